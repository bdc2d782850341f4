"""Block pointers end where the tensor ends, not where the sequence of a packed batch does."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, starts_ptr, n_tokens, BLOCK: tl.constexpr):
    start = tl.load(starts_ptr + tl.program_id(0))
    x_block = tl.make_block_ptr(x_ptr, (n_tokens,), (1,), (start,), (BLOCK,), (0,))
    y_block = tl.make_block_ptr(y_ptr, (n_tokens,), (1,), (start,), (BLOCK,), (0,))
    x = tl.load(x_block, boundary_check=(0,), padding_option="zero")
    # finds on the next line: write race, y_ptr; order dependence, y_ptr
    tl.store(y_block, tl.cumsum(x), boundary_check=(0,))


@triton.jit
def fixed_kernel(x_ptr, y_ptr, starts_ptr, n_tokens, BLOCK: tl.constexpr):
    start = tl.load(starts_ptr + tl.program_id(0))
    end = tl.load(starts_ptr + tl.program_id(0) + 1)
    x_block = tl.make_block_ptr(x_ptr, (end,), (1,), (start,), (BLOCK,), (0,))
    y_block = tl.make_block_ptr(y_ptr, (end,), (1,), (start,), (BLOCK,), (0,))
    x = tl.load(x_block, boundary_check=(0,), padding_option="zero")
    tl.store(y_block, tl.cumsum(x), boundary_check=(0,))


def drive(kernel) -> torch.Tensor:
    x, y, starts = torch.randn(23), torch.empty(23), torch.tensor([0, 9, 14, 23])
    kernel[(3,)](x, y, starts, 23, BLOCK=16)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
