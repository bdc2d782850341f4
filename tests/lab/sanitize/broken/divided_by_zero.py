"""A mean of counts, some of which are 0."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(total_ptr, count_ptr, mean_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    total = tl.load(total_ptr + at, mask=at < n, other=0)
    count = tl.load(count_ptr + at, mask=at < n, other=0)  # beyond n nothing is stored
    mean = total // count
    tl.store(mean_ptr + at, mean, mask=at < n)  # finds: division by zero, mean_ptr


@triton.jit
def fixed_kernel(total_ptr, count_ptr, mean_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    total = tl.load(total_ptr + at, mask=at < n, other=0)
    count = tl.load(count_ptr + at, mask=at < n, other=0)
    mean = total // count
    tl.store(mean_ptr + at, tl.where(count == 0, 0, mean), mask=at < n)


def drive(kernel) -> torch.Tensor:
    total, count, mean = torch.arange(50), torch.arange(50) % 7, torch.empty(50, dtype=torch.int64)
    kernel[(1,)](total, count, mean, 50, BLOCK=64)
    return mean


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
