"""Programs draw numbers from a counter, and who comes first writes first."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, counter_ptr, y_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))
    place = tl.atomic_add(counter_ptr, 1)
    tl.store(y_ptr + place * BLOCK + tl.arange(0, BLOCK), x)  # finds: order dependence, y_ptr


@triton.jit
def fixed_kernel(x_ptr, counter_ptr, y_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))
    tl.atomic_add(counter_ptr, 1)  # integers count the same in every order
    tl.store(y_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), x)


def drive(kernel) -> torch.Tensor:
    x, counter, y = torch.randn(64), torch.zeros(1, dtype=torch.int32), torch.empty(64)
    kernel[(4,)](x, counter, y, BLOCK=16)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
