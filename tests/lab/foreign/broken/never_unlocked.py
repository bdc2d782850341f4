"""A program that has nothing to add leaves with the lock in its hand."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, best_ptr, lock_ptr):
    x = tl.load(x_ptr + tl.program_id(0))
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:  # finds: endless wait,
        pass
    if x > tl.load(best_ptr):
        tl.store(best_ptr, x)
        tl.debug_barrier()
        tl.atomic_xchg(lock_ptr, 0)


@triton.jit
def fixed_kernel(x_ptr, best_ptr, lock_ptr):
    x = tl.load(x_ptr + tl.program_id(0))
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    if x > tl.load(best_ptr):
        tl.store(best_ptr, x)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


def drive(kernel) -> torch.Tensor:
    x, best, lock = torch.tensor([1.0, 0, 2, 0]), torch.zeros(1), torch.zeros(1, dtype=torch.int32)
    kernel[(4,)](x, best, lock)
    return best


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
