"""The thread that gives the lock back does not wait for the others' stores."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, sums_ptr, lock_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * BLOCK + at)
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    # finds on the next line: read race, sums_ptr; write race, sums_ptr
    tl.store(sums_ptr + at, tl.load(sums_ptr + at) + x)
    tl.atomic_xchg(lock_ptr, 0)


@triton.jit
def fixed_kernel(x_ptr, sums_ptr, lock_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * BLOCK + at)
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    tl.store(sums_ptr + at, tl.load(sums_ptr + at) + x)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


def drive(kernel) -> torch.Tensor:
    x = torch.randint(-9, 9, (4, 64), dtype=torch.int32)
    sums, lock = torch.zeros(64, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    kernel[(4,)](x, sums, lock, BLOCK=64)
    return sums


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
