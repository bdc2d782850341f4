"""A floor is meant, but a GPU truncates: position -1 falls into block 0, not -1."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    position = tl.arange(0, BLOCK) - 3
    block = position // 2  # -1 // 2 is 0
    x = tl.load(x_ptr + block, mask=block >= -1, other=0.0)  # finds: out of bounds, x_ptr
    tl.store(y_ptr + position + 3, x)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    position = tl.arange(0, BLOCK) - 3
    block = position // 2
    x = tl.load(x_ptr + block, mask=position >= 0, other=0.0)
    tl.store(y_ptr + position + 3, x)


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(8), torch.empty(16)
    kernel[(1,)](x, y, 8, BLOCK=16)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
