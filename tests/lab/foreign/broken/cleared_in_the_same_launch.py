"""Each program clears its counter, to which others may have added already."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(ids_ptr, counts_ptr):
    program = tl.program_id(0)
    tl.store(counts_ptr + program, 0)  # finds: write race, counts_ptr
    # finds on the next line: write race, counts_ptr; order dependence, counts_ptr
    tl.atomic_add(counts_ptr + tl.load(ids_ptr + program), 1)


@triton.jit
def fixed_kernel(ids_ptr, counts_ptr):
    program = tl.program_id(0)
    tl.atomic_add(counts_ptr + tl.load(ids_ptr + program), 1)


def drive(kernel) -> torch.Tensor:
    ids, counts = torch.tensor([1, 0, 3, 2]), torch.zeros(4, dtype=torch.int32)
    kernel[(4,)](ids, counts)
    return counts


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
