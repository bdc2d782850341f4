"""Neighbouring blocks share an element; both write the same there, still a race."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, STEP: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * STEP + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at))  # finds: write race, y_ptr


@triton.jit
def fixed_kernel(x_ptr, y_ptr, STEP: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * STEP + tl.arange(0, BLOCK)
    mine = tl.arange(0, BLOCK) < STEP
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=mine), mask=mine)


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(61), torch.empty(61)
    kernel[(4,)](x, y, STEP=15, BLOCK=16)
    return y[:60]


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
