"""How the kernels of these tests are launched, and what they must compute."""

import math
from collections.abc import Callable

import numpy as np
import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from gptwin.core.attention.attention import attention

from .kernels import attention_kernel, doubled_kernel

Launch = Callable[[], list[torch.Tensor]]
Results = tuple[list[torch.Tensor], Callable[[], list[np.ndarray]]]  # what is written, what should

DTYPES = {torch.float32: gl.float32, torch.bfloat16: gl.bfloat16}


def described(x: torch.Tensor, rows: int) -> TensorDescriptor:
    block = [rows, x.shape[1]]
    layout = gl.NVMMASharedLayout.get_default_for(block, DTYPES[x.dtype])
    return TensorDescriptor(x, list(x.shape), list(x.stride()), block, layout)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def greatest_error(found: list[torch.Tensor], expected: list[np.ndarray]) -> float:
    """Compare with the reference, relative to its greatest number or 1; NaN is infinitely wrong."""
    errors = [
        np.abs(ours.double().numpy() - theirs).max() / max(1, np.abs(theirs).max())
        for ours, theirs in zip(found, expected, strict=True)
    ]
    return float(np.nan_to_num(errors, nan=np.inf).max())


def double(n_tiles: int = 5) -> Results:
    """Launch the tiny kernel on a tensor whose last tile is cut off."""
    x = draw(16 * n_tiles - 3, 32, dtype=torch.float32)
    y = torch.full_like(x, torch.nan)
    doubled_kernel[1,](described(x, 16), described(y, 16), n_tiles, STAGES=2)
    return [y], lambda: [2 * x.double().numpy()]


def attend(n_key: int = 160) -> Results:
    """Launch the test's own attention."""
    d, n_ctx = 16, n_key
    q, k, v = (draw(n, d, seed=seed) for seed, n in enumerate((128, n_ctx, n_ctx)))
    out, lse = torch.full_like(q, torch.nan), torch.full((128,), torch.nan)
    scale = d**-0.5 * math.log2(math.e)
    attention_kernel[1, 1](
        described(q, 64), described(k, 32), described(v, 32), described(out, 64), lse, n_ctx, scale,
        BLOCK_N=32, STAGES=2,
    )  # fmt: skip

    def expected() -> list[np.ndarray]:
        output, lse = attention(*(x.double().numpy()[None, None] for x in (q, k, v)))
        return [output[0, 0], lse[0, 0] * math.log2(math.e)]

    return [out, lse], expected


LAUNCHES: dict[str, Launch] = {"double": lambda: double()[0], "attend": lambda: attend()[0]}
