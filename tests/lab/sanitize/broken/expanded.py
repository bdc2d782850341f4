"""An expanded tensor has one row in memory, whatever its shape says."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, stride, n, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n + at, mask=at < n)  # finds: out of bounds, x_ptr
    tl.store(y_ptr + row * n + at, x, mask=at < n)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, stride, n, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + at, mask=at < n)
    tl.store(y_ptr + row * n + at, x, mask=at < n)


def drive(kernel) -> torch.Tensor:
    x = torch.randn(13).expand(4, 13)
    y = torch.empty(4, 13)
    kernel[(4,)](x, y, x.stride(0), 13, BLOCK=16)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
