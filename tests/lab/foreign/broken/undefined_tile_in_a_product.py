"""The last tile of a product is not whole, and its other lanes are multiplied along."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(a_ptr, b_ptr, c_ptr, sums_ptr, n, BLOCK: tl.constexpr):
    i, k = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    a = tl.load(a_ptr + i * n + k, mask=k < n)
    b = tl.load(b_ptr + i * BLOCK + k, mask=i < n)
    tl.store(c_ptr + i * BLOCK + k, tl.dot(a, b))  # finds: undefined lane, c_ptr
    tl.store(sums_ptr + tl.arange(0, BLOCK), tl.sum(a, 1))  # finds: undefined lane, sums_ptr


@triton.jit
def fixed_kernel(a_ptr, b_ptr, c_ptr, sums_ptr, n, BLOCK: tl.constexpr):
    i, k = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    a = tl.load(a_ptr + i * n + k, mask=k < n, other=0.0)
    b = tl.load(b_ptr + i * BLOCK + k, mask=i < n, other=0.0)
    tl.store(c_ptr + i * BLOCK + k, tl.dot(a, b))
    tl.store(sums_ptr + tl.arange(0, BLOCK), tl.sum(a, 1))


def drive(kernel) -> tuple[torch.Tensor, ...]:
    a, b = torch.randn(16, 9), torch.randn(9, 16)
    c, sums = torch.empty(16, 16), torch.empty(16)
    kernel[(1,)](a, b, c, sums, 9, BLOCK=16)
    return c, sums


def drive_broken_kernel() -> tuple[torch.Tensor, ...]:
    return drive(broken_kernel)


def drive_fixed_kernel() -> tuple[torch.Tensor, ...]:
    return drive(fixed_kernel)
