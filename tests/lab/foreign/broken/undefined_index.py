"""Lanes beyond the end have no index, and are followed nevertheless."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(index_ptr, x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    index = tl.load(index_ptr + at, mask=at < n)
    x = tl.load(x_ptr + index)  # finds: out of bounds, ; out of bounds, x_ptr
    tl.store(y_ptr + at, x, mask=at < n)


@triton.jit
def fixed_kernel(index_ptr, x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    index = tl.load(index_ptr + at, mask=at < n, other=0)
    x = tl.load(x_ptr + index)
    tl.store(y_ptr + at, x, mask=at < n)


def drive(kernel) -> torch.Tensor:
    index, x, y = torch.tensor([4, 0, 7, 7, 2]), torch.randn(8), torch.empty(5)
    kernel[(1,)](index, x, y, 5, BLOCK=8)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
