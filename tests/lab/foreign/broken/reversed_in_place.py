"""Input and output are one tensor: the last programs read what the first have written."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + n - 1 - at, mask=at < n, other=0.0)  # finds: read race, x_ptr
    # finds on the next line: order dependence, x_ptr; read race, y_ptr
    tl.store(y_ptr + at, x, mask=at < n)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    behind = n - 1 - at
    first = at < n // 2
    left = tl.load(x_ptr + at, mask=first, other=0.0)
    right = tl.load(x_ptr + behind, mask=first, other=0.0)
    tl.debug_barrier()
    tl.store(y_ptr + at, right, mask=first)
    tl.store(y_ptr + behind, left, mask=first)


def drive(kernel) -> torch.Tensor:
    x = torch.randn(64)
    kernel[(4,)](x, x, 64, BLOCK=16)
    return x


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
