"""The number of experts is 0 for a rank that has none, and the remainder may be anything."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(ids_ptr, n_ptr, slots_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    slot = tl.load(ids_ptr + at) % tl.load(n_ptr)
    tl.store(slots_ptr + at, slot)  # finds: division by zero, slots_ptr


@triton.jit
def fixed_kernel(ids_ptr, n_ptr, slots_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    n = tl.load(n_ptr)
    slot = tl.where(n > 0, tl.load(ids_ptr + at) % tl.maximum(n, 1), -1)
    tl.store(slots_ptr + at, slot)


def drive(kernel) -> torch.Tensor:
    ids, n = torch.arange(8), torch.tensor([0])
    slots = torch.empty(8, dtype=torch.int64)
    kernel[(1,)](ids, n, slots, BLOCK=8)
    return slots


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
