"""The same for integers, which have no NaN to show it."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(labels_ptr, count_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    label = tl.load(labels_ptr + at, mask=at < n)
    tl.store(count_ptr, tl.sum((label < 7).to(tl.int32)))  # finds: undefined lane, count_ptr


@triton.jit
def fixed_kernel(labels_ptr, count_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    label = tl.load(labels_ptr + at, mask=at < n, other=7)
    tl.store(count_ptr, tl.sum((label < 7).to(tl.int32)))


def drive(kernel) -> torch.Tensor:
    labels, count = torch.arange(50), torch.empty(1, dtype=torch.int32)
    kernel[(1,)](labels, count, 50, BLOCK=64)
    return count


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
