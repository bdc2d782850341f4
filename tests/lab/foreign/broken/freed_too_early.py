"""A table holds addresses of tensors, one of which has been given back."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(table_ptr, sums_ptr, n, BLOCK: tl.constexpr):
    address = tl.load(table_ptr + tl.program_id(0))
    at = tl.arange(0, BLOCK)
    x_ptr = address.to(tl.pointer_type(tl.float32))
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)  # finds: out of bounds,
    tl.store(sums_ptr + tl.program_id(0), tl.sum(x))


@triton.jit
def fixed_kernel(table_ptr, sums_ptr, n, BLOCK: tl.constexpr):
    address = tl.load(table_ptr + tl.program_id(0))
    at = tl.arange(0, BLOCK)
    x_ptr = address.to(tl.pointer_type(tl.float32))
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(sums_ptr + tl.program_id(0), tl.sum(x))


def drive(kernel) -> torch.Tensor:
    tensors = [torch.randn(8) for _ in range(3)]
    table = torch.tensor([t.data_ptr() for t in tensors])
    sums = torch.empty(3)
    if kernel is broken_kernel:
        del tensors[1]
    kernel[(3,)](table, sums, 8, BLOCK=8)
    return sums


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
