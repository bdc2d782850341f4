"""The offset of a far row does not fit into int32."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, row, stride):
    far = (row + tl.program_id(0)) * stride  # finds: failure,
    tl.store(y_ptr, tl.load(x_ptr + far, mask=far < 1, other=0.0))


@triton.jit
def fixed_kernel(x_ptr, y_ptr, row, stride):
    far = (row + tl.program_id(0)).to(tl.int64) * stride
    tl.store(y_ptr, tl.load(x_ptr + far, mask=far < 1, other=0.0))


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(1), torch.empty(1)
    kernel[(1,)](x, y, 70_000, 70_000)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
