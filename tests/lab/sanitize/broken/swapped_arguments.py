"""Result and input change places."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(y_ptr, x_ptr, BLOCK: tl.constexpr):  # finds: unwritten result, x_ptr
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)  # finds: unwritten read, x_ptr
    tl.store(y_ptr + at, x)  # finds: write to an input, y_ptr


@triton.jit
def fixed_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x)


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(64), torch.empty(64)
    kernel[(1,)](x, y, BLOCK=64)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
