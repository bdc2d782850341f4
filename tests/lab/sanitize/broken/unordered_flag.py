"""The last program sums the others' results, but its counter puts nothing in order."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, partial_ptr, counter_ptr, total_ptr, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    x = tl.load(x_ptr + program * BLOCK + tl.arange(0, BLOCK))
    tl.store(partial_ptr + program, tl.sum(x))
    if tl.atomic_add(counter_ptr, 1, sem="relaxed") == 3:
        partial = tl.load(partial_ptr + tl.arange(0, 4))  # finds: read race, partial_ptr
        tl.store(total_ptr, tl.sum(partial))


@triton.jit
def fixed_kernel(x_ptr, partial_ptr, counter_ptr, total_ptr, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    x = tl.load(x_ptr + program * BLOCK + tl.arange(0, BLOCK))
    tl.store(partial_ptr + program, tl.sum(x))
    if tl.atomic_add(counter_ptr, 1) == 3:  # releases this program's, acquires the others'
        partial = tl.load(partial_ptr + tl.arange(0, 4))
        tl.store(total_ptr, tl.sum(partial))


def drive(kernel) -> torch.Tensor:
    x, partial, total = torch.randn(64), torch.empty(4), torch.empty(1)
    counter = torch.zeros(1, dtype=torch.int32)
    kernel[(4,)](x, partial, counter, total, BLOCK=16)
    return total


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
