"""A program looks first whether the lock is worth taking: what it sees may be half of an update."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, best_ptr, lock_ptr):
    x = tl.load(x_ptr + tl.program_id(0))
    if x > tl.load(best_ptr):  # finds: read race, best_ptr
        while tl.atomic_cas(lock_ptr, 0, 1) == 1:
            pass
        best = tl.maximum(tl.load(best_ptr), x)
        tl.store(best_ptr, best)
        tl.debug_barrier()
        tl.atomic_xchg(lock_ptr, 0)


@triton.jit
def fixed_kernel(x_ptr, best_ptr, lock_ptr):
    x = tl.load(x_ptr + tl.program_id(0))
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    best = tl.maximum(tl.load(best_ptr), x)
    tl.store(best_ptr, best)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


def drive(kernel) -> torch.Tensor:
    x, best, lock = torch.arange(1.0, 5), torch.zeros(1), torch.zeros(1, dtype=torch.int32)
    kernel[(4,)](x, best, lock)
    return best


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
