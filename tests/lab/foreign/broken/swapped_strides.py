"""Strides of rows and columns change places: right for square matrices alone."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, n_rows, n_columns, BLOCK: tl.constexpr):
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    inside = (rows < n_rows) & (columns < n_columns)
    x = tl.load(x_ptr + rows * n_columns + columns, mask=inside, other=0.0)
    tl.store(y_ptr + columns * n_columns + rows, x, mask=inside)  # finds: out of bounds, y_ptr


@triton.jit
def fixed_kernel(x_ptr, y_ptr, n_rows, n_columns, BLOCK: tl.constexpr):
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    inside = (rows < n_rows) & (columns < n_columns)
    x = tl.load(x_ptr + rows * n_columns + columns, mask=inside, other=0.0)
    tl.store(y_ptr + columns * n_rows + rows, x, mask=inside)


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(5, 7), torch.zeros(7, 5)
    kernel[(1,)](x, y, 5, 7, BLOCK=8)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
