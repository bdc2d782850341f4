"""Device functions for a tile of rows: where it lies, how it is loaded, how it is normalised.

A tile is [BLOCK_ROWS, BLOCK_FEATURES]; `rows` are int64 [BLOCK_ROWS], `features` [BLOCK_FEATURES].
On the host, what launches over many rows are sized by: buckets to be tuned for, and the device.
"""

from typing import Any, NamedTuple

import torch

from ._triton import tl, triton
from .launch import door
from .strided import Strided, block_at

# 2⁻⁷⁵: the squares of a row of float32's largest numbers, scaled down by it, have a sum.
SMALL = tl.constexpr(2.0**-75)
_INFINITY = tl.constexpr(float("inf"))


class Statistics(NamedTuple):
    """What a layer norm knows of each row.

    Attributes
    ----------
    mean, mean_rest : torch.Tensor of float32 [row]
        The mean, and what its rounding left over.
    rstd : torch.Tensor of float32 [row]
        1/√(variance + ε).
    """

    mean: Any
    mean_rest: Any
    rstd: Any


@triton.jit
def contiguous(ptr, n_features):
    """Make a matrix of a pointer to rows that follow one another.

    A result that was just allocated needs no strides of its own: they would take registers.
    """
    return Strided(ptr, (n_features, 1))


@triton.jit
def load_tile(x, rows, features, inside):
    """Load as float32; 0 outside the tensor."""
    return tl.load(block_at(x, rows, features), mask=inside, other=0.0).to(tl.float32)


@triton.jit
def load_summed(x, residual, rows, features, inside):
    """Load x, or x + residual rounded as it is stored, as float32; 0 outside the tensor."""
    tile = load_tile(x, rows, features, inside)
    if residual is not None:
        tile += load_tile(residual, rows, features, inside)
        # Backward reads the sum as it was stored, so the statistics are taken of that.
        tile = tile.to(x.ptr.dtype.element_ty).to(tl.float32)
    return tile


@triton.jit
def load_statistics(statistics, rows, inside):
    """Load the statistics of these rows, [BLOCK_ROWS] each; 0 outside."""
    mean = tl.load(statistics.mean + rows, mask=inside, other=0.0)
    mean_rest = tl.load(statistics.mean_rest + rows, mask=inside, other=0.0)
    rstd = tl.load(statistics.rstd + rows, mask=inside, other=0.0)
    return Statistics(mean, mean_rest, rstd)


@triton.jit
def reciprocal_root(variance, eps):
    """Return 1/√(variance + ε), where rounding may have left the variance below 0."""
    return 1.0 / tl.sqrt_rn(tl.maximum(variance, 0.0, tl.PropagateNan.ALL) + eps)


@triton.jit
def is_too_large(variance):
    """Say which rows' squares are beyond float32, or NaN."""
    return (variance < _INFINITY) == 0


@triton.jit
def reciprocal_root_of_small(small_variance):
    """Return 1/√(variance + ε) from the variance of a row · SMALL, beside which ε is nothing."""
    return SMALL / tl.sqrt_rn(small_variance)


@triton.jit
def normalise(x, found):
    """Shift and scale each row by its statistics."""
    return (x - found.mean[:, None] - found.mean_rest[:, None]) * found.rstd[:, None]


# --- on the host ----------------------------------------------------------------------------------


def bucketed(size: int) -> tuple[int, int]:
    """Return a size, and the same rounded up to a power of two, for a kernel's autotune key.

    Keyed by the size itself, a kernel would be tuned again, for tenths of a second, in every batch
    of another length.

    Parameters
    ----------
    size : int

    Returns
    -------
    tuple of int
        To be passed to a kernel that takes both, one after the other.
    """
    return size, 1 << max(size - 1, 0).bit_length()


def multiprocessors(tensor: torch.Tensor) -> int:
    """Return how many programs fill the device that a tensor is on.

    Parameters
    ----------
    tensor : torch.Tensor
        Any argument of the kernel.

    Returns
    -------
    int
        The GPU's multiprocessor count; 132 (an H100's) when compiling without one; 4 in the
        interpreter, which runs programs one after another.
    """
    if tensor.is_cuda:
        return torch.cuda.get_device_properties(tensor.device).multi_processor_count
    return 132 if door().compile_only else 4
