"""The lock is given back before the store that it was to protect."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, best_ptr, lock_ptr):
    x = tl.load(x_ptr + tl.program_id(0))
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    best = tl.load(best_ptr)  # finds: read race, best_ptr
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)
    tl.store(best_ptr, tl.maximum(best, x))  # finds: write race, best_ptr


@triton.jit
def fixed_kernel(x_ptr, best_ptr, lock_ptr):
    x = tl.load(x_ptr + tl.program_id(0))
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    best = tl.load(best_ptr)
    tl.store(best_ptr, tl.maximum(best, x))
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


def drive(kernel) -> torch.Tensor:
    x, best, lock = torch.randn(6), torch.full((1,), -9.0), torch.zeros(1, dtype=torch.int32)
    kernel[(6,)](x, best, lock)
    return best


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
