"""The second launch sums more partial results than the first one wrote."""

import torch
import triton
import triton.language as tl


@triton.jit
def partial_kernel(x_ptr, partial_ptr, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    x = tl.load(x_ptr + program * BLOCK + tl.arange(0, BLOCK))
    tl.store(partial_ptr + program, tl.sum(x))


@triton.jit
def broken_kernel(partial_ptr, total_ptr, n_partials, MOST: tl.constexpr):
    partial = tl.load(partial_ptr + tl.arange(0, MOST))  # finds: unwritten read, partial_ptr
    tl.store(total_ptr, tl.sum(partial))


@triton.jit
def fixed_kernel(partial_ptr, total_ptr, n_partials, MOST: tl.constexpr):
    at = tl.arange(0, MOST)
    partial = tl.load(partial_ptr + at, mask=at < n_partials, other=0.0)
    tl.store(total_ptr, tl.sum(partial))


def drive(kernel) -> torch.Tensor:
    x, partial, total = torch.randn(96), torch.empty(4), torch.empty(1)
    partial_kernel[(3,)](x, partial, BLOCK=32)
    kernel[(1,)](partial, total, 3, MOST=4)
    return total


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
