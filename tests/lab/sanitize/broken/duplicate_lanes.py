"""Two lanes of a block have the same index, and different values."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at // 2, tl.load(x_ptr + at))  # finds: duplicate lanes, y_ptr


@triton.jit
def fixed_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at // 2, tl.load(x_ptr + at // 2 * 2))  # twice the same is harmless


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(64), torch.empty(32)
    kernel[(1,)](x, y, BLOCK=64)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
