"""Programs read a counter, add to it, and write it back: no atomic, so updates are lost."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(ids_ptr, counts_ptr):
    id = tl.load(ids_ptr + tl.program_id(0))
    before = tl.load(counts_ptr + id)  # finds: read race, counts_ptr
    # finds on the next line: write race, counts_ptr; read race, counts_ptr
    tl.store(counts_ptr + id, before + 1)


@triton.jit
def fixed_kernel(ids_ptr, counts_ptr):
    id = tl.load(ids_ptr + tl.program_id(0))
    tl.atomic_add(counts_ptr + id, 1)


def drive(kernel) -> torch.Tensor:
    ids, counts = torch.tensor([0, 1, 0, 0, 1]), torch.zeros(2, dtype=torch.int32)
    kernel[(5,)](ids, counts)
    return counts


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
