"""Dropout whose mask is a hash of the position: the hash wraps on purpose."""

import torch
import triton
import triton.language as tl
from triton.language import load, store


@triton.jit
def hashed(x):
    x = x.to(tl.uint32)
    x = (x ^ (x >> 16)) * 0x45D9F3B
    x = (x ^ (x >> 16)) * 0x45D9F3B
    return x ^ (x >> 16)


@triton.jit
def dropout_kernel(x_ptr, y_ptr, n, p, seed, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = load(x_ptr + i, mask=i < n, other=0.0)
    keep = hashed(i + seed).to(tl.float32) * 2.3283064365386963e-10 > p
    store(y_ptr + i, tl.where(keep & (tl.rand(seed, i) >= 0), x / (1 - p), 0.0), mask=i < n)


def seeded_dropout(x: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    y = torch.empty_like(x)
    with torch.cuda.device(x.device.index):
        dropout_kernel[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](
            x, y, x.numel(), p, seed, BLOCK=64
        )
    return y
