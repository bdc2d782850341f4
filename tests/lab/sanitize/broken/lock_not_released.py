"""Programs add to one row under a lock, and the program that has nothing to add keeps it."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, lock_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    row = tl.program_id(0)
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:  # finds: endless wait
        pass
    if row < n:
        tl.store(y_ptr + at, tl.load(y_ptr + at) + tl.load(x_ptr + row * BLOCK + at))
        tl.debug_barrier()
        tl.atomic_xchg(lock_ptr, 0)


@triton.jit
def fixed_kernel(x_ptr, lock_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    row = tl.program_id(0)
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    if row < n:
        tl.store(y_ptr + at, tl.load(y_ptr + at) + tl.load(x_ptr + row * BLOCK + at))
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


def drive(kernel) -> torch.Tensor:
    x, y = torch.arange(48).reshape(3, 16), torch.zeros(16, dtype=torch.int64)
    lock = torch.zeros(1, dtype=torch.int32)
    kernel[(5,)](x, lock, y, 3, BLOCK=16)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
