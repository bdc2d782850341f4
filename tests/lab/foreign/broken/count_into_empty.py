"""Counts are added to what torch.empty happened to hold."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(ids_ptr, counts_ptr, BLOCK: tl.constexpr):
    ids = tl.load(ids_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))
    tl.atomic_add(counts_ptr + ids, 1)  # finds: unwritten read, counts_ptr


@triton.jit
def fixed_kernel(ids_ptr, counts_ptr, BLOCK: tl.constexpr):
    tl.store(counts_ptr + tl.arange(0, 8), 0)
    tl.debug_barrier()
    for block in range(4):
        ids = tl.load(ids_ptr + block * BLOCK + tl.arange(0, BLOCK))
        tl.atomic_add(counts_ptr + ids, 1)


def drive(kernel) -> torch.Tensor:
    ids = torch.arange(64) % 8
    counts = torch.empty(8, dtype=torch.int32)
    grid = 4 if kernel is broken_kernel else 1
    kernel[(grid,)](ids, counts, BLOCK=16)
    return counts


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
