"""A descriptor in the kernel is given the padded shape: nothing stops it at the tensor's end."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, n_rows, BLOCK: tl.constexpr):
    padded = tl.cdiv(n_rows, BLOCK) * BLOCK
    x = tl.make_tensor_descriptor(x_ptr, [padded, 16], [16, 1], [BLOCK, 16])
    y = tl.make_tensor_descriptor(y_ptr, [n_rows, 16], [16, 1], [BLOCK, 16])
    start = tl.program_id(0) * BLOCK
    y.store([start, 0], x.load([start, 0]))  # finds: out of bounds, x_ptr


@triton.jit
def fixed_kernel(x_ptr, y_ptr, n_rows, BLOCK: tl.constexpr):
    x = tl.make_tensor_descriptor(x_ptr, [n_rows, 16], [16, 1], [BLOCK, 16])
    y = tl.make_tensor_descriptor(y_ptr, [n_rows, 16], [16, 1], [BLOCK, 16])
    start = tl.program_id(0) * BLOCK
    y.store([start, 0], x.load([start, 0]))


def drive(kernel) -> torch.Tensor:
    x, y = torch.randn(13, 16), torch.empty(13, 16)
    kernel[(2,)](x, y, 13, BLOCK=8)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
