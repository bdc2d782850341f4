"""A table of addresses is read in the wrong column: a size is taken for an address."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(table_ptr, BLOCK: tl.constexpr):  # finds: unwritten result, result
    pointer = tl.load(table_ptr + 1).to(tl.pointer_type(tl.float32))
    tl.store(pointer + tl.arange(0, BLOCK), 1.0)  # finds: out of bounds,


@triton.jit
def fixed_kernel(table_ptr, BLOCK: tl.constexpr):
    pointer = tl.load(table_ptr).to(tl.pointer_type(tl.float32))
    tl.store(pointer + tl.arange(0, BLOCK), 1.0, mask=tl.arange(0, BLOCK) < tl.load(table_ptr + 1))


def drive(kernel) -> torch.Tensor:
    y = torch.empty(50)
    kernel[(1,)](torch.tensor([y.data_ptr(), y.numel()]), BLOCK=64)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
