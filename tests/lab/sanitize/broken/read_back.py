"""A program reverses what it has stored itself, before all of its threads have stored."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, z_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2 * tl.load(x_ptr + at))
    y = tl.load(y_ptr + BLOCK - 1 - at)  # finds: thread race, y_ptr
    tl.store(z_ptr + at, y)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, z_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2 * tl.load(x_ptr + at))
    tl.debug_barrier()
    y = tl.load(y_ptr + BLOCK - 1 - at)
    tl.store(z_ptr + at, y)


def drive(kernel) -> torch.Tensor:
    x, y, z = torch.randn(64), torch.empty(64), torch.empty(64)
    kernel[(1,)](x, y, z, BLOCK=64)
    return z


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
