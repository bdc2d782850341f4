"""Programs add floats to one number, in any order."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, partial_ptr, total_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))
    # finds on the next line: atomic order, total_ptr; order dependence, total_ptr
    tl.atomic_add(total_ptr, tl.sum(x))


@triton.jit
def fixed_kernel(x_ptr, partial_ptr, total_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))
    tl.store(partial_ptr + tl.program_id(0), tl.sum(x))


@triton.jit
def sum_kernel(partial_ptr, total_ptr, N: tl.constexpr):
    tl.store(total_ptr, tl.sum(tl.load(partial_ptr + tl.arange(0, N))))


def drive(kernel) -> torch.Tensor:
    x, partial, total = torch.randn(512), torch.empty(16), torch.zeros(1)
    kernel[(16,)](x, partial, total, BLOCK=32)
    if kernel is fixed_kernel:
        sum_kernel[(1,)](partial, total, N=16)
    return total


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
