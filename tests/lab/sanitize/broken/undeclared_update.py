"""The caller's tensor is scaled on the way."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, sum_ptr, scale, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at) * scale
    tl.store(x_ptr + at, x)  # finds: write to an input, x_ptr
    tl.store(sum_ptr, tl.sum(x))


@triton.jit
def fixed_kernel(x_ptr, sum_ptr, scale, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at) * scale
    tl.store(sum_ptr, tl.sum(x))


def drive(kernel) -> torch.Tensor:
    x, total = torch.randn(64), torch.empty(1)
    kernel[(1,)](x, total, 0.5, BLOCK=64)
    return total


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
