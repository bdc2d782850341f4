"""Softmax: scores in, probabilities out.

    p[j] = exp(s·x[j] − m) / Σ_k exp(s·x[k] − m),   m = max_k s·x[k]

where s is the scale (1/√d_head in attention). Subtracting the maximum changes nothing in exact
arithmetic and keeps every exponent at or below 0, so nothing overflows.

Two masks say which keys j a row may see. *Causal*: the last two axes are query and key, and query
i sees key j when j ≤ i + (n_key − n_query): the masks are aligned at the bottom right, so that the
last query sees every key. *Key mask*: True where a key is real, False where it is padding.

The file climbs: `softmax` is the definition; `softmax_online` gets the same from one pass over the
row in blocks, as the kernel must when a row does not fit on the chip (Milakov & Gimelshein 2018,
arXiv 1805.02867, algorithm 3).

Edge semantics, the same in both twins: a row that sees no key gives zeros; a logit of −inf is a
key that is not seen; a logit of +inf or NaN makes its row NaN; rows of width 0 stay empty.
"""

import math
from typing import Any

import numpy as np

from ..checks import expect_floats, expect_ndim, expect_positive, expect_shape, refuse
from ..operation import at_least_float32, value_of

Saved = tuple[np.ndarray, float]


@at_least_float32
def softmax_forward(
    x: np.ndarray,
    *,
    scale: float = 1.0,
    causal: bool = False,
    key_mask: np.ndarray | None = None,
) -> tuple[np.ndarray, Saved]:
    """Turn each row of scores into probabilities: the definition.

    Parameters
    ----------
    x : numpy.ndarray [..., key] or [batch, ..., query, key]
        The scores; at least two dimensions if `causal` or `key_mask` is given.
    scale : float
        Multiplies the scores first; finite and above 0.
    causal : bool
        Let query i see key j only if j ≤ i + (n_key − n_query).
    key_mask : numpy.ndarray of bool [batch, key], optional
        True where a key may be seen.

    Returns
    -------
    probabilities : numpy.ndarray
        Probabilities, shaped like `x`: each row sums to 1, or is 0 where no key is seen.
    saved : tuple
        For `softmax_backward`: the probabilities and the scale. The scores are not needed.

    Raises
    ------
    ValueError
        If a shape, `scale` or the mask's dtype is wrong.
    """
    check_softmax(x, scale, causal, key_mask)
    scale = float(scale)  # a NumPy float64 scalar would promote a float32 model
    scores = np.where(visible(x.shape, causal, key_mask), x, -math.inf)  # [..., key]
    probabilities, _ = weigh(scores, scale)
    return probabilities.astype(x.dtype, copy=False), (probabilities, scale)


softmax = value_of(softmax_forward)


@at_least_float32
def softmax_backward(saved: Saved, d_probabilities: np.ndarray) -> np.ndarray:
    """Carry the gradient from the probabilities back to the scores.

    The Jacobian of one row is diag(p) − p pᵀ, so d_x = s · p · (d_p − Σ_k p[k]·d_p[k]): only one
    number per row, the sum, couples its elements. A key that was not seen has p = 0 and so gets
    gradient 0 without looking at the masks again.

    Parameters
    ----------
    saved : tuple
        From `softmax_forward`.
    d_probabilities : numpy.ndarray
        Gradient of the loss with respect to the probabilities, shaped like them.

    Returns
    -------
    numpy.ndarray
        Gradient with respect to `x`.

    Raises
    ------
    ValueError
        If `d_probabilities` is not shaped like the probabilities.
    """
    probabilities, scale = saved
    expect_shape("d_probabilities", d_probabilities, probabilities.shape)
    coupling = (probabilities * d_probabilities).sum(axis=-1, keepdims=True)  # [..., 1]
    return probabilities * (d_probabilities - coupling) * scale


@at_least_float32
def softmax_online(x: np.ndarray, block: int, *, scale: float = 1.0) -> np.ndarray:
    """Compute the rows' softmax with one pass over blocks for the statistics, one to write.

    After each block, `running_max` and `running_sum` are those of the row so far. When a block
    raises the maximum, every term summed before was taken relative to the old one; a single factor
    exp(old − new) brings them all up to date. This is the kernel's loop for wide rows.
    """
    expect_positive("block", block)
    check_softmax(x, scale, False, None)
    running_max = np.full((*x.shape[:-1], 1), -math.inf, dtype=x.dtype)
    running_sum = np.zeros_like(running_max)
    for start in range(0, x.shape[-1], block):
        scores = x[..., start : start + block]  # [..., block]
        new_max = np.maximum(running_max, scores.max(axis=-1, keepdims=True))
        origin = np.where(np.isneginf(new_max), 0, new_max)
        rescale = np.exp((running_max - origin) * scale)
        block_sum = np.exp((scores - origin) * scale).sum(axis=-1, keepdims=True)
        running_sum = running_sum * rescale + block_sum
        running_max = new_max

    origin = np.where(np.isneginf(running_max), 0, running_max)
    total = np.where(running_sum == 0, 1, running_sum)
    return np.exp((x - origin) * scale) / total


def weigh(scores: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the softmax of scale · scores over the last axis, and the log-sum-exp [..., 1].

    Where nothing is seen, all scores are −inf: the softmax is 0 and the log-sum-exp −inf.
    """
    origin = pivot(scores)
    # The difference is at most 0 before it is scaled, so no scale can make it overflow.
    exponents = np.exp((scores - origin) * scale)
    total = exponents.sum(axis=-1, keepdims=True)  # [..., 1]
    nothing = total == 0
    divisor = np.where(nothing, 1, total)
    return exponents / divisor, np.where(nothing, -math.inf, origin * scale + np.log(divisor))


def visible(shape: tuple[int, ...], causal: bool, key_mask: np.ndarray | None) -> np.ndarray:
    """Say which keys each row may see: bools that broadcast against scores of this shape."""
    seen = np.ones((1,) * len(shape), dtype=bool)
    if causal:
        n_query, n_key = shape[-2:]
        # The last query sees every key.
        seen = np.arange(n_key) <= np.arange(n_query)[:, None] + (n_key - n_query)
    if key_mask is not None:
        between = (1,) * (len(shape) - 2)
        seen = seen & key_mask.reshape(shape[0], *between, shape[-1])
    return seen


def pivot(scores: np.ndarray) -> np.ndarray:
    """Return each row's maximum, [..., 1], or 0 where nothing is seen: what is safe to subtract.

    It is never −inf: −inf − (−inf) would be NaN.
    """
    row_max = scores.max(axis=-1, keepdims=True, initial=-math.inf)
    return np.where(np.isneginf(row_max), 0, row_max).astype(scores.dtype, copy=False)


def check_softmax(x: Any, scale: float, causal: bool, key_mask: Any) -> None:
    """Refuse arguments that `softmax` has no meaning for."""
    expect_floats(x=x)
    expect_positive("scale", scale)
    if causal or key_mask is not None:
        expect_ndim("x", x, 2, "[batch, ..., query, key]")
    else:
        expect_ndim("x", x, 1, "[..., key]")
    if key_mask is not None:
        if not str(key_mask.dtype).endswith("bool"):
            refuse(
                "key_mask",
                "dtype bool, True where a key may be seen",
                f"dtype {key_mask.dtype}",
                "an additive mask of 0 and -inf",
            )
        expect_shape("key_mask", key_mask, (x.shape[0], x.shape[-1]), "[batch, key] of x")
