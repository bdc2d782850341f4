"""To float8 by rows, and the scales."""

import torch
import triton
import triton.language as tl

cast = tl.cast


@triton.jit
def quantize_kernel(x_ptr, q_ptr, scale_ptr, stride, n_cols, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    col = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + col, mask=col < n_cols, other=0.0)
    scale = tl.maximum(tl.max(tl.abs(x)) / 448.0, 1e-12)
    tl.store(scale_ptr + row, scale)
    q = cast(tl.clamp(x / scale, -448.0, 448.0), q_ptr.dtype.element_ty)
    tl.store(q_ptr + row * n_cols + col, q, mask=col < n_cols)


def quantize(x):
    rows, n_cols = x.shape
    q = torch.empty(rows, n_cols, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty(rows, device=x.device)
    quantize_kernel[(rows,)](x, q, scale, x.stride(0), n_cols, BLOCK=triton.next_power_of_2(n_cols))
    return q, scale
