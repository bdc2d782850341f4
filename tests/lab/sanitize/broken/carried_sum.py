"""Each program goes on from the last one's sum, as if they ran one after another."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, ends_ptr, y_ptr, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    x = tl.load(x_ptr + program * BLOCK + tl.arange(0, BLOCK))
    before = tl.load(ends_ptr + program)  # finds: read race, ends_ptr
    tl.store(y_ptr + program * BLOCK + tl.arange(0, BLOCK), before + tl.cumsum(x))
    tl.store(ends_ptr + program + 1, before + tl.sum(x))  # finds: order dependence, ends_ptr


@triton.jit
def fixed_kernel(x_ptr, ends_ptr, y_ptr, BLOCK: tl.constexpr):
    total = 0.0
    for block in range(4):
        x = tl.load(x_ptr + block * BLOCK + tl.arange(0, BLOCK))
        tl.store(y_ptr + block * BLOCK + tl.arange(0, BLOCK), total + tl.cumsum(x))
        total += tl.sum(x)


def drive(kernel) -> torch.Tensor:
    x, ends, y = torch.randn(64), torch.zeros(5), torch.empty(64)
    kernel[(4 if kernel is broken_kernel else 1,)](x, ends, y, BLOCK=16)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
