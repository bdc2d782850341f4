"""Rotary embedding: device functions within each other, one of them an argument."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl


class Strided(NamedTuple):
    ptr: torch.Tensor
    row: int
    col: int


@triton.jit
def rotate_pair(a, b, cos, sin):
    return a * cos - b * sin, b * cos + a * sin


@triton.jit
def apply_to_halves(f: tl.constexpr, x, y, row, col, half, cos, sin, mask):
    a = tl.load(x.ptr + row * x.row + col * x.col, mask=mask, other=0.0)
    b = tl.load(x.ptr + row * x.row + (col + half) * x.col, mask=mask, other=0.0)
    a, b = f(a, b, cos, sin)
    tl.store(y.ptr + row * y.row + col * y.col, a, mask=mask)
    tl.store(y.ptr + row * y.row + (col + half) * y.col, b, mask=mask)


@triton.jit
def rope_kernel(x, y, base, half, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    col = tl.arange(0, BLOCK)
    angle = row * tl.exp2(-tl.log2(base) * (col / half))
    apply_to_halves(rotate_pair, x, y, row, col, half, tl.cos(angle), tl.sin(angle), col < half)


def rotate(x, base=10000.0):
    y = torch.empty_strided(x.shape, x.stride(), device=x.device, dtype=x.dtype)
    half = x.shape[1] // 2
    rope_kernel[(x.shape[0],)](
        Strided(x, *x.stride()), Strided(y, *y.stride()), base, half,
        BLOCK=triton.next_power_of_2(half),
    )  # fmt: skip
    return y
