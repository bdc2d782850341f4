"""Eight numbers of 8 bits are packed into 64, but the shift is done in 32."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, packed_ptr):
    i = tl.arange(0, 8)
    x = tl.load(x_ptr + i).to(tl.int32)
    tl.store(packed_ptr, tl.sum(x << (8 * i)))  # finds: shift too wide, packed_ptr


@triton.jit
def fixed_kernel(x_ptr, packed_ptr):
    i = tl.arange(0, 8)
    x = tl.load(x_ptr + i).to(tl.int64)
    tl.store(packed_ptr, tl.sum(x << (8 * i).to(tl.int64)))


def drive(kernel) -> torch.Tensor:
    x, packed = torch.arange(1, 9, dtype=torch.uint8), torch.empty(1, dtype=torch.int64)
    kernel[(1,)](x, packed)
    return packed


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
