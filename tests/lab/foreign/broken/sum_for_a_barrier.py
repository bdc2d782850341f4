"""A sum makes threads exchange values, but promises nothing of what they stored."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, sum_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x)
    tl.store(sum_ptr, tl.sum(x))
    turned = tl.load(y_ptr + BLOCK - 1 - at)  # finds: thread race, y_ptr
    tl.debug_barrier()
    tl.store(y_ptr + at, x - turned)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, sum_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x)
    tl.store(sum_ptr, tl.sum(x))
    tl.debug_barrier()
    turned = tl.load(y_ptr + BLOCK - 1 - at)
    tl.debug_barrier()
    tl.store(y_ptr + at, x - turned)


def drive(kernel) -> torch.Tensor:
    x, y, total = torch.randn(64), torch.empty(64), torch.empty(1)
    kernel[(1,)](x, y, total, BLOCK=64)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
