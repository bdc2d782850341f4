"""The mask of a tile compares the rows with the number of columns."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, sums_ptr, n_rows, n_columns, BLOCK: tl.constexpr):
    rows, columns = tl.arange(0, BLOCK), tl.arange(0, BLOCK)
    inside = (rows < n_columns)[:, None] & (columns < n_columns)[None, :]
    ptrs = x_ptr + rows[:, None] * n_columns + columns[None, :]
    x = tl.load(ptrs, mask=inside, other=0.0)  # finds: out of bounds, x_ptr
    tl.store(sums_ptr + rows, tl.sum(x, axis=1), mask=rows < n_rows)


@triton.jit
def fixed_kernel(x_ptr, sums_ptr, n_rows, n_columns, BLOCK: tl.constexpr):
    rows, columns = tl.arange(0, BLOCK), tl.arange(0, BLOCK)
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    ptrs = x_ptr + rows[:, None] * n_columns + columns[None, :]
    x = tl.load(ptrs, mask=inside, other=0.0)
    tl.store(sums_ptr + rows, tl.sum(x, axis=1), mask=rows < n_rows)


def drive(kernel) -> torch.Tensor:
    x, sums = torch.randn(3, 7), torch.empty(3)
    kernel[(1,)](x, sums, 3, 7, BLOCK=8)
    return sums


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
