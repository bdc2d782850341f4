"""An empty group has no mean: the integer division by its size may give anything."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(sums_ptr, sizes_ptr, means_ptr, BLOCK: tl.constexpr):
    group = tl.arange(0, BLOCK)
    mean = tl.load(sums_ptr + group) // tl.load(sizes_ptr + group)
    tl.store(means_ptr + group, mean)  # finds: division by zero, means_ptr


@triton.jit
def fixed_kernel(sums_ptr, sizes_ptr, means_ptr, BLOCK: tl.constexpr):
    group = tl.arange(0, BLOCK)
    mean = tl.load(sums_ptr + group) // tl.maximum(tl.load(sizes_ptr + group), 1)
    tl.store(means_ptr + group, mean)


def drive(kernel) -> torch.Tensor:
    sums = torch.tensor([12, 0, 9, 4], dtype=torch.int32)
    sizes = torch.tensor([4, 0, 3, 1], dtype=torch.int32)
    means = torch.empty(4, dtype=torch.int32)
    kernel[(1,)](sums, sizes, means, BLOCK=4)
    return means


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
