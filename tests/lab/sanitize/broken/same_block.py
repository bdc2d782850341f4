"""Every program writes the first block."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    # finds on the next line: write race, y_ptr; order dependence, y_ptr; unwritten result, y_ptr
    tl.store(y_ptr + tl.arange(0, BLOCK), x)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x)


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(64), torch.empty(64)
    kernel[(4,)](x, y, BLOCK=16)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
