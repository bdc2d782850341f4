"""A lock is released by one thread of a program, while the others may still have to store."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, lock_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * BLOCK + at)
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    y = tl.load(y_ptr + at)  # finds: read race, y_ptr
    # finds on the next line: write race, y_ptr; read race, y_ptr
    tl.store(y_ptr + at, y + x)
    tl.atomic_xchg(lock_ptr, 0)


@triton.jit
def fixed_kernel(x_ptr, lock_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * BLOCK + at)
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    y = tl.load(y_ptr + at)
    tl.store(y_ptr + at, y + x)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


def drive(kernel) -> torch.Tensor:
    x, y = torch.arange(64).reshape(4, 16), torch.zeros(16, dtype=torch.int64)
    kernel[(4,)](x, torch.zeros(1, dtype=torch.int32), y, BLOCK=16)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
