"""A program reads how far the others are, by a plain load beside their atomics."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(done_ptr, seen_ptr, n_workers):
    if tl.program_id(0) < n_workers:
        tl.atomic_add(done_ptr, 1)
    else:
        # finds on the next line: order dependence, seen_ptr; read race, done_ptr
        tl.store(seen_ptr, tl.load(done_ptr))


@triton.jit
def fixed_kernel(done_ptr, seen_ptr, n_workers):
    if tl.program_id(0) < n_workers:
        tl.atomic_add(done_ptr, 1)
    else:
        while tl.atomic_add(done_ptr, 0) < n_workers:
            pass
        tl.store(seen_ptr, tl.atomic_add(done_ptr, 0))


def drive(kernel) -> torch.Tensor:
    done, seen = torch.zeros(1, dtype=torch.int32), torch.empty(1, dtype=torch.int32)
    kernel[(4,)](done, seen, 3)
    return seen


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
