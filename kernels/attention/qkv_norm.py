"""A layer norm in front of a product: each row's statistics, and the prologue that applies them.

The product's kernel loads a tile of x, normalises it in registers and multiplies it: norm(x) is
never stored. What a tile needs of its rows, mean and 1/√(variance + ε), comes from one pass over x
before (`qkv_statistics_kernel`; 12 bytes a row), and serves the backward pass too.

Numbers are as in kernels/layers/layer_norm.py: float32, two passes over a row, and the mean kept as
two numbers. The normalised tile is rounded to x's dtype, as if it had been stored.
"""

from typing import Any, NamedTuple

import torch

from ..common._triton import tl, triton
from ..common.launch import launch
from ..common.rows import (
    SMALL,
    is_too_large,
    load_tile,
    reciprocal_root,
    reciprocal_root_of_small,
)
from ..common.strided import strided

STATISTICS_CONFIGS = [
    triton.Config({"BLOCK_ROWS": 4, "BLOCK_FEATURES": 512}, num_warps=4),
    triton.Config({"BLOCK_ROWS": 16, "BLOCK_FEATURES": 256}, num_warps=8),
]


class Norm(NamedTuple):
    """A layer norm in front of a product; None stands for no norm.

    Attributes
    ----------
    weight, bias : torch.Tensor [d_model]
        Contiguous.
    mean, mean_rest, rstd : torch.Tensor of float32 [row]
        From `norm_statistics`; None where a kernel computes them itself.
    """

    weight: Any
    bias: Any
    mean: Any = None
    mean_rest: Any = None
    rstd: Any = None


@triton.jit
def row_statistics(
    x,  # [row, feature]
    rows,  # [BLOCK_ROWS]
    row_inside,
    n_features,
    eps,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
):
    """Return mean, what its rounding left, and 1/√(variance + ε) of each row, in two passes."""
    sums = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    for start in range(0, n_features, BLOCK_FEATURES):
        features = start + tl.arange(0, BLOCK_FEATURES)
        inside = row_inside[:, None] & (features < n_features)[None, :]
        sums += load_tile(x, rows, features, inside)
    mean = tl.sum(sums, axis=1) / n_features

    rests = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    squares = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    for start in range(0, n_features, BLOCK_FEATURES):
        features = start + tl.arange(0, BLOCK_FEATURES)
        inside = row_inside[:, None] & (features < n_features)[None, :]
        tile = load_tile(x, rows, features, inside)
        distance = tl.where(inside, tile - mean[:, None], 0.0)
        rests += distance
        squares += distance * distance
    mean_rest = tl.sum(rests, axis=1) / n_features
    variance = tl.sum(squares, axis=1) / n_features - mean_rest * mean_rest
    rstd = reciprocal_root(variance, eps)
    too_large = is_too_large(variance)
    if tl.max(too_large.to(tl.int32), axis=0) > 0:
        squares = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
        for start in range(0, n_features, BLOCK_FEATURES):
            features = start + tl.arange(0, BLOCK_FEATURES)
            inside = row_inside[:, None] & (features < n_features)[None, :]
            tile = load_tile(x, rows, features, inside)
            small = tl.where(inside, tile - mean[:, None], 0.0) * SMALL
            squares += small * small
        small_rest = mean_rest * SMALL
        variance = tl.sum(squares, axis=1) / n_features - small_rest * small_rest
        rstd = tl.where(too_large, reciprocal_root_of_small(variance), rstd)
    return mean, mean_rest, rstd


@triton.jit
def load_norm(norm, features, n_features):
    """Load the norm's weight and bias as float32; 0 beyond the last feature."""
    inside = features < n_features
    weight = tl.load(norm.weight + features, mask=inside, other=0.0).to(tl.float32)
    return weight, tl.load(norm.bias + features, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def normed_tile(x, mean, mean_rest, rstd, weight, bias):
    """Normalise a tile as loaded, and round it as if it had been stored.

    The rows' statistics, and the features' weight and bias, broadcast against it from either side.
    """
    y = (x.to(tl.float32) - mean - mean_rest) * rstd * weight + bias
    return y.to(x.dtype)


@triton.autotune(STATISTICS_CONFIGS, key=["n_features"])
@triton.jit
def qkv_statistics_kernel(
    x,  # [row, feature]
    mean_ptr,  # float32 [row], like the next two
    mean_rest_ptr,
    rstd_ptr,
    n_rows,
    n_features,
    eps,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
):
    """What the norm in the products' prologue needs to know of each row."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row_inside = rows < n_rows
    mean, mean_rest, rstd = row_statistics(
        x, rows, row_inside, n_features, eps, BLOCK_ROWS, BLOCK_FEATURES
    )
    tl.store(mean_ptr + rows, mean, mask=row_inside)
    tl.store(mean_rest_ptr + rows, mean_rest, mask=row_inside)
    tl.store(rstd_ptr + rows, rstd, mask=row_inside)


def norm_statistics(x_rows: torch.Tensor, eps: float) -> torch.Tensor:
    """Launch the statistics kernel.

    Parameters
    ----------
    x_rows : torch.Tensor [row, d_model]
        Any strides.
    eps : float
        Added to the variance.

    Returns
    -------
    torch.Tensor of float32 [3, row]
        As `layer_norm_forward` returns: mean, what its rounding left over, 1/√(variance + ε).
    """
    n_rows, n_features = x_rows.shape
    statistics = torch.empty(3, n_rows, dtype=torch.float32, device=x_rows.device)
    launch(
        qkv_statistics_kernel,
        lambda meta: (triton.cdiv(n_rows, meta["BLOCK_ROWS"]),),
        *(strided(x_rows), *statistics, n_rows, n_features, eps),
    )
    return statistics


def norm_argument(
    norm: tuple[torch.Tensor, torch.Tensor] | None, statistics: torch.Tensor | None = None
) -> Norm | None:
    """Return what the prologue takes.

    Parameters
    ----------
    norm : (norm_weight, norm_bias) or None
        The layer norm in front.
    statistics : torch.Tensor, optional
        From `norm_statistics`.

    Returns
    -------
    Norm or None
        None if there is no norm.
    """
    if norm is None:
        return None
    weight, bias = (parameter.contiguous() for parameter in norm)
    return Norm(weight, bias) if statistics is None else Norm(weight, bias, *statistics)
