"""A transposed copy, by tensor descriptors made on the host and in the kernel."""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def transpose_kernel(x_desc, y_ptr, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    y_desc = tl.make_tensor_descriptor(
        y_ptr, shape=[N, M], strides=[M, 1], block_shape=[BLOCK_N, BLOCK_M]
    )
    m, n = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    y_desc.store([n, m], tl.trans(x_desc.load([m, n])))


def transpose(x):
    triton.set_allocator(lambda size, alignment, stream: torch.empty(size, device="cuda", dtype=torch.int8))  # noqa: E501 # fmt: skip
    M, N = x.shape
    y = torch.empty((N, M), device=x.device, dtype=x.dtype)
    desc = TensorDescriptor.from_tensor(x, [16, 32])
    transpose_kernel[(triton.cdiv(M, 16), triton.cdiv(N, 32))](
        desc, y, M, N, BLOCK_M=16, BLOCK_N=32
    )
    return y
