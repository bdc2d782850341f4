"""Two tensors share an allocation; one block of the first ends in the second."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(keys_ptr, values_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(keys_ptr + at, 1.0)  # finds: outside the view, keys_ptr
    tl.store(values_ptr + at, 2.0, mask=at < n)


@triton.jit
def fixed_kernel(keys_ptr, values_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(keys_ptr + at, 1.0, mask=at < n)
    tl.store(values_ptr + at, 2.0, mask=at < n)


def drive(kernel) -> tuple[torch.Tensor, torch.Tensor]:
    pool = torch.empty(200)
    keys, values = pool[:100], pool[100:]
    kernel[(1,)](keys, values, 100, BLOCK=128)
    return keys, values


def drive_broken_kernel() -> tuple[torch.Tensor, torch.Tensor]:
    return drive(broken_kernel)


def drive_fixed_kernel() -> tuple[torch.Tensor, torch.Tensor]:
    return drive(fixed_kernel)
