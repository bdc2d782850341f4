"""A sum is added to what torch.empty happened to hold."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, total_ptr, BLOCK: tl.constexpr):
    total = tl.load(total_ptr)  # finds: unwritten read, total_ptr
    tl.store(total_ptr, total + tl.sum(tl.load(x_ptr + tl.arange(0, BLOCK))))


@triton.jit
def fixed_kernel(x_ptr, total_ptr, BLOCK: tl.constexpr):
    tl.store(total_ptr, tl.sum(tl.load(x_ptr + tl.arange(0, BLOCK))))


def drive(kernel) -> torch.Tensor:
    x, total = torch.randn(64), torch.empty(1)
    kernel[(1,)](x, total, BLOCK=64)
    return total


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
