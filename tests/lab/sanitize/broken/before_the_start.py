"""The first element has no left neighbour."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    left = tl.load(x_ptr + at - 1, mask=at < n, other=0.0)  # finds: out of bounds, x_ptr
    tl.store(y_ptr + at, left, mask=at < n)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    left = tl.load(x_ptr + at - 1, mask=(at > 0) & (at < n), other=0.0)
    tl.store(y_ptr + at, left, mask=at < n)


def drive(kernel) -> torch.Tensor:
    x = torch.randn(60)
    y = torch.empty_like(x)
    kernel[(1,)](x, y, 60, BLOCK=64)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
