"""Each lane may update its own element in place; the last one takes its neighbour's as well."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at))
    tl.store(y_ptr + at, 2 * tl.load(y_ptr + at))
    before = tl.load(y_ptr + tl.maximum(at - 1, 0))  # finds: thread race, y_ptr
    tl.debug_barrier()
    tl.store(y_ptr + at, before)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at))
    tl.store(y_ptr + at, 2 * tl.load(y_ptr + at))
    tl.debug_barrier()
    before = tl.load(y_ptr + tl.maximum(at - 1, 0))
    tl.debug_barrier()
    tl.store(y_ptr + at, before)


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(64), torch.empty(64)
    kernel[(1,)](x, y, BLOCK=64)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
