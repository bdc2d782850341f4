"""A comparison with NaN is false: the undefined value leaves no trace but the choice."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, largest_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    clipped = tl.where(x < 2.0, 1, 0)
    tl.store(largest_ptr, tl.sum(clipped))  # finds: undefined lane, largest_ptr


@triton.jit
def fixed_kernel(x_ptr, largest_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    clipped = tl.where((x < 2.0) & (at < n), 1, 0)
    tl.store(largest_ptr, tl.sum(clipped))


def drive(kernel) -> torch.Tensor:
    x, largest = torch.randn(50), torch.empty(1, dtype=torch.int32)
    kernel[(1,)](x, largest, 50, BLOCK=64)
    return largest


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
