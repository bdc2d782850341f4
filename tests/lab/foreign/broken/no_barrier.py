"""A program stores a block and loads it turned around: other threads may not have stored yet."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2 * tl.load(x_ptr + at))
    turned = tl.load(y_ptr + BLOCK - 1 - at)  # finds: thread race, y_ptr
    tl.store(y_ptr + at, turned)  # finds: thread race, y_ptr


@triton.jit
def fixed_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2 * tl.load(x_ptr + at))
    tl.debug_barrier()
    turned = tl.load(y_ptr + BLOCK - 1 - at)
    tl.debug_barrier()
    tl.store(y_ptr + at, turned)


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(256), torch.empty(256)
    kernel[(1,)](x, y, BLOCK=256)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
