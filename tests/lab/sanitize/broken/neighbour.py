"""What lies where a pointer went astray is another tensor's memory: nothing crashes."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, bias_ptr, y_ptr, distance, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    bias = tl.load(x_ptr + distance + at)  # finds: out of bounds, x_ptr
    tl.store(y_ptr + at, tl.load(x_ptr + at) + bias)


@triton.jit
def fixed_kernel(x_ptr, bias_ptr, y_ptr, distance, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    bias = tl.load(bias_ptr + at)
    tl.store(y_ptr + at, tl.load(x_ptr + at) + bias)


def drive(kernel) -> torch.Tensor:
    x, bias, y = torch.randn(64), torch.randn(64), torch.empty(64)
    kernel[(1,)](x, bias, y, (bias.data_ptr() - x.data_ptr()) // 4, BLOCK=64)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
