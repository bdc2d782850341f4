"""Bits are unpacked with a shift that is negative for the first lanes."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(packed_ptr, y_ptr):
    i = tl.arange(0, 8)
    bits = (tl.load(packed_ptr) >> (4 * i - 4)) & 0xF
    tl.store(y_ptr + i, bits)  # finds: shift too wide, y_ptr


@triton.jit
def fixed_kernel(packed_ptr, y_ptr):
    i = tl.arange(0, 8)
    bits = (tl.load(packed_ptr) >> (4 * i)) & 0xF
    tl.store(y_ptr + i, bits)


def drive(kernel) -> torch.Tensor:
    packed, y = torch.tensor([0x76543210], dtype=torch.int32), torch.empty(8, dtype=torch.int32)
    kernel[(1,)](packed, y)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
