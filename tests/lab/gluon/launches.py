"""How the kernels of these tests are launched, and what they must compute."""

import math
from collections.abc import Callable

import numpy as np
import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from gptwin.core.attention.attention import attention
from gptwin.kernels.hopper import attention as hopper

from .kernels import attention_kernel, doubled_kernel

DTYPES = {torch.float32: gl.float32, torch.bfloat16: gl.bfloat16}


def described(x: torch.Tensor, rows: int) -> TensorDescriptor:
    block = [rows, x.shape[1]]
    layout = gl.NVMMASharedLayout.get_default_for(block, DTYPES[x.dtype])
    return TensorDescriptor(x, list(x.shape), list(x.stride()), block, layout)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def greatest_error(found: torch.Tensor, expected: np.ndarray) -> float:
    error = np.abs(found.double().numpy() - expected)
    return float(np.nan_to_num(error, nan=np.inf).max())


def double(n_tiles: int = 5) -> float:
    """Launch the tiny kernel on a tensor whose last tile is cut off; return its greatest error."""
    x = draw(16 * n_tiles - 3, 32, dtype=torch.float32)
    y = torch.full_like(x, torch.nan)
    doubled_kernel[1,](described(x, 16), described(y, 16), n_tiles, STAGES=2)
    return greatest_error(y, 2 * x.double().numpy())


def attend(n_key: int = 160) -> float:
    """Launch the test's own attention; return its greatest error."""
    d, n_ctx = 16, n_key
    q, k, v = (draw(n, d, seed=seed) for seed, n in enumerate((128, n_ctx, n_ctx)))
    out, lse = torch.full_like(q, torch.nan), torch.full((128,), torch.nan)
    scale = d**-0.5 * math.log2(math.e)
    attention_kernel[1, 1](
        described(q, 64), described(k, 32), described(v, 32), described(out, 64), lse, n_ctx, scale,
        BLOCK_N=32, STAGES=2,
    )  # fmt: skip
    expected, expected_lse = attention(*(x.double().numpy()[None, None] for x in (q, k, v)))
    return max(
        greatest_error(out, expected[0, 0]),
        greatest_error(lse, expected_lse[0, 0] * math.log2(math.e)),
    )


def attend_on_hopper(n_query: int = 128, n_key: int = 600, causal: bool = False) -> float:
    """Launch the project's kernel through its host function; return its greatest error."""
    d, heads = 16, 2
    q, k, v = (
        draw(1, h, n, d, seed=seed)
        for seed, (h, n) in enumerate(((heads, n_query), (1, n_key), (1, n_key)))
    )
    out, lse = torch.full_like(q, torch.nan), torch.full((1, heads, n_query), torch.nan)
    scale = d**-0.5 * math.log2(math.e)
    hopper.attention_forward(q, k, v, out, lse, causal=causal, scale_log2_e=scale)
    expected, expected_lse = attention(*(x.double().numpy() for x in (q, k, v)), causal=causal)
    return max(greatest_error(out, expected), greatest_error(lse, expected_lse))


# Half the spacing of bfloat16 at the greatest results, 4, and as much for the weights' rounding.
LAUNCHES: dict[str, tuple[Callable[[], float], float]] = {
    "double": (double, 0.0),
    "attend": (attend, 2.0**-6),
    "attend_on_hopper": (attend_on_hopper, 2.0**-6),
}
