"""Programs overwrite what their neighbours have yet to read."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    right = tl.load(x_ptr + at + 1, mask=at + 1 < n, other=0.0)
    # finds on the next line: read race, x_ptr; order dependence, x_ptr; thread race, x_ptr
    tl.store(x_ptr + at, right)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    right = tl.load(x_ptr + at + 1, mask=at + 1 < n, other=0.0)
    tl.store(y_ptr + at, right)


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(64), torch.empty(64)
    kernel[(4,)](x, y, 64, BLOCK=16)
    return x if kernel is broken_kernel else y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
