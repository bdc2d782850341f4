"""A view of every second column: the kernel takes its columns to be neighbours."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, row, column, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x_ptrs = x_ptr + tl.program_id(0) * row + at
    x = tl.load(x_ptrs, mask=at < n, other=0.0)  # finds: outside the view, x_ptr
    tl.store(y_ptr + tl.program_id(0) * n + at, x, mask=at < n)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, row, column, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x_ptrs = x_ptr + tl.program_id(0) * row + at * column
    x = tl.load(x_ptrs, mask=at < n, other=0.0)
    tl.store(y_ptr + tl.program_id(0) * n + at, x, mask=at < n)


def drive(kernel) -> torch.Tensor:
    x = torch.randn(4, 12)[:, ::2]
    y = torch.empty(4, 6)
    kernel[(4,)](x, y, x.stride(0), x.stride(1), 6, BLOCK=8)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
