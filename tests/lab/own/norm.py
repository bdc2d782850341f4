"""A project of somebody else's: a kernel with a gradient, launched plainly, and its references."""

import numpy as np
import torch
import triton
import triton.language as tl
from hypothesis import strategies as st

CONFIGS = [triton.Config({"ROWS": 1}), triton.Config({"ROWS": 2}, num_warps=2)]


@triton.autotune(CONFIGS, key=["n"])
@triton.jit
def scale_kernel(x_ptr, weight_ptr, y_ptr, x_row, x_column, rows, n, BLOCK: tl.constexpr,
                 ROWS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    at = tl.arange(0, BLOCK)[None, :]
    mask = (row < rows) & (at < n)
    x = tl.load(x_ptr + row * x_row + at * x_column, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * n + at, x * weight, mask=mask)


def launch(x, weight):
    rows, n = x.shape
    y = torch.empty(rows, n, dtype=x.dtype, device=x.device)
    block = triton.next_power_of_2(n)
    scale_kernel[lambda meta: (triton.cdiv(rows, meta["ROWS"]),)](
        x, weight.contiguous(), y, x.stride(0), x.stride(1), rows, n, BLOCK=block
    )
    return y


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return launch(x, weight)

    @staticmethod
    def backward(ctx, d_y):
        x, weight = ctx.saved_tensors
        return launch(d_y, weight), (d_y.float() * x.float()).sum(0).to(weight.dtype)


def scale(x, weight):
    return Scale.apply(x, weight)


@triton.jit
def decay_kernel(x_ptr, rate, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(x_ptr + at, x * (1 - rate), mask=at < n)


def decay_(x, rate):
    decay_kernel[(triton.cdiv(x.numel(), 16),)](x, rate, x.numel(), BLOCK=16)


def cases():
    def case(rows, n):
        return {"x": {"normal": [rows, n]}, "weight": {"normal": [n]}}

    return st.builds(case, st.integers(1, 3), st.integers(1, 20))


def in_numpy(x, weight):
    return np.multiply(x, weight)


def in_torch(x, weight):
    return (x.float() * weight.float()).to(x.dtype)
