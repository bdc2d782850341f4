"""The sum runs over lanes that the mask left out, which may hold anything."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, sum_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(sum_ptr, tl.sum(x))  # finds: undefined lane, sum_ptr


@triton.jit
def fixed_kernel(x_ptr, sum_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(sum_ptr, tl.sum(x))


@triton.jit
def halve_kernel(sum_ptr, half_ptr):
    tl.store(half_ptr, tl.load(sum_ptr) / 2)  # spoiled by another launch's fault, not by its own


def drive(kernel) -> torch.Tensor:
    x, total, half = torch.randn(50), torch.empty(1), torch.empty(1)
    kernel[(1,)](x, total, 50, BLOCK=64)
    halve_kernel[(1,)](total, half)
    return half


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
