"""The axes of the grid change places: some tiles have no program, others do not exist."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    row, block = tl.program_id(1), tl.program_id(0)
    at = row * n_columns + block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x)  # finds: write race, y_ptr; unwritten result, y_ptr


@triton.jit
def fixed_kernel(x_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    row, block = tl.program_id(0), tl.program_id(1)
    at = row * n_columns + block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x)


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(5, 32), torch.empty(5, 32)
    kernel[(5, 2)](x, y, 32, BLOCK=16)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
