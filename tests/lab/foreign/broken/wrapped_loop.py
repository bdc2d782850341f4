"""The counter of a loop of rows wraps: the offset is a product of int32."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, stride, first, n_rows):
    total = 0.0
    for row in range(first, first + n_rows):
        at = tl.full([], row, tl.int32) * stride  # finds: failure,
        total += tl.load(x_ptr + at, mask=at < 1, other=0.0)
    tl.store(y_ptr, total)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, stride, first, n_rows):
    total = 0.0
    for row in range(first, first + n_rows):
        at = tl.full([], row, tl.int64) * stride
        total += tl.load(x_ptr + at, mask=at < 1, other=0.0)
    tl.store(y_ptr, total)


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(1), torch.empty(1)
    kernel[(1,)](x, y, 65_536, 32_766, 4)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
