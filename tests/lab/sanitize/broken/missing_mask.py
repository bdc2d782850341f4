"""The last block is not whole, and nothing says so."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)  # finds: out of bounds, x_ptr
    tl.store(y_ptr + at, 2 * x)  # finds: out of bounds, y_ptr


@triton.jit
def fixed_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(y_ptr + at, 2 * x, mask=at < n)


def drive(kernel) -> torch.Tensor:
    x = torch.randn(100)
    y = torch.empty_like(x)
    kernel[(4,)](x, y, 100, BLOCK=32)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
