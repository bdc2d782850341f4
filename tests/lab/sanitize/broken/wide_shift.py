"""Numbers of four bits are packed into 64 bits, but shifted as 32."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, packed_ptr, N: tl.constexpr):
    packed = tl.zeros((1,), dtype=tl.int32)
    for i in tl.static_range(N):
        packed |= tl.load(x_ptr + i) << (4 * i)
    tl.store(packed_ptr + tl.arange(0, 1), packed)  # finds: shift too wide, packed_ptr


@triton.jit
def fixed_kernel(x_ptr, packed_ptr, N: tl.constexpr):
    packed = tl.zeros((1,), dtype=tl.int64)
    for i in tl.static_range(N):
        packed |= tl.load(x_ptr + i).to(tl.int64) << (4 * i)
    tl.store(packed_ptr + tl.arange(0, 1), packed)


def drive(kernel) -> torch.Tensor:
    x, packed = torch.arange(10, dtype=torch.int32), torch.empty(1, dtype=torch.int64)
    kernel[(1,)](x, packed, N=10)
    return packed


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
