"""The rows are longer in memory than they are; the kernel knows no strides."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, sums_ptr, stride, n, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n + at, mask=at < n, other=0.0)  # finds: outside the view, x_ptr
    tl.store(sums_ptr + row, tl.sum(x))


@triton.jit
def fixed_kernel(x_ptr, sums_ptr, stride, n, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + at, mask=at < n, other=0.0)
    tl.store(sums_ptr + row, tl.sum(x))


def drive(kernel) -> torch.Tensor:
    x = torch.randn(5, 20)[:, :13]
    sums = torch.empty(5)
    kernel[(5,)](x, sums, x.stride(0), 13, BLOCK=16)
    return sums


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
