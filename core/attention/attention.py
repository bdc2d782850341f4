"""Attention: each query's average of the values, weighted by how well it matches the keys.

    s[i, j] = query[i] · key[j]                      one number for each pair
    p[i, :] = softmax(scale · s[i, :])               over the keys that query i sees
    output[i] = Σ_j p[i, j] · value[j]
    lse[i] = log Σ_j exp(scale · s[i, j])            how much there was to see

(Vaswani et al. 2017, arXiv 1706.03762, equation 1.) Fewer heads of keys and values than of queries
(grouped-query attention, Ainslie et al. 2023, arXiv 2305.13245; multi-query with one): query head h
reads key head h // (n_head // n_kv_head). What a query sees is an interval of keys: see
`key_intervals`.

The file climbs. `attention` is the definition, which holds all n_query × n_key scores.
`attention_online` takes one pass over the keys and holds a block of scores at a time (Milakov &
Gimelshein 2018, arXiv 1805.02867; Rabe & Staats 2021, arXiv 2112.05682). `attention_tiled`, in the
file of that name, is the kernel's own loop, forward and backward (Dao et al. 2022, arXiv
2205.14135), which never looks at keys that no query of a tile sees.

Backward (written out in `attention_backward`): the sum Σ_j p·d_p that softmax's Jacobian needs is
d_output · output, one number for each row, known before any score is computed again. The gradient
of lse joins it, for ∂lse/∂s = scale · p.

Dropout zeroes weights with probability `dropout` and divides the others by 1 − dropout. Which ones
is a function of (seed, batch, head, query, key) alone, through Philox: backward draws the same ones
again, whatever the tiles, and nothing is stored.

Edge semantics, the same in both twins: a query that sees no key gets output 0 and lse −inf, and no
gradient flows through it; what stands in a key that nobody sees (padding) or in a query that sees
nothing is never used, not even NaN, and its gradient is 0; a score of −inf is a key that is not
seen; a score of +inf or NaN makes its row NaN; a NaN in a value that one query sees may reach the
others of its head as well (0 · NaN: which of them depends on the kernel's tiles); no keys at all:
every output is 0.
"""

import math
from typing import Any

import numpy as np

from ..checks import expect_floats, expect_positive, expect_shape
from ..layers.softmax import weigh
from ..operation import at_least_float32, value_of
from ..philox import philox
from .key_intervals import check_attention, check_cu_seqlens, key_intervals

Saved = tuple[Any, ...]
# Dropout compares this many of Philox's 32 bits. A float32 in [0, 1) is as fine.
DROPOUT_BITS = 24


@at_least_float32
def attention_forward(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    key_start: np.ndarray | None = None,
    cu_seqlens: np.ndarray | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[tuple[np.ndarray, np.ndarray], Saved]:
    """Average the values by the softmax of the scores: the definition.

    Parameters
    ----------
    query : numpy.ndarray [batch, head, query, d_head]
    key, value : numpy.ndarray [batch, kv_head, key, d_head]
        kv_head divides head.
    scale : float, optional
        Multiplies the scores; above 0. 1/√d_head if not given.
    causal : bool
        Let query i see key j only if j ≤ i + (n_key − n_query).
    window : int, optional
        With `causal`: let a query see only the last `window` of those keys.
    key_start : numpy.ndarray of int [batch], optional
        Keys before it are left padding, which nobody sees.
    cu_seqlens : numpy.ndarray of int [n_documents + 1], optional
        Documents packed on the time axis: document d is at positions cu_seqlens[d] to
        cu_seqlens[d + 1] − 1 and sees itself alone. Positions from the last entry on see nothing.
        Needs n_query = n_key.
    dropout : float
        Share of the weights that are zeroed, from 0 to below 1.
    seed : int
        Which ones; 64 bits.

    Returns
    -------
    output : numpy.ndarray [batch, head, query, d_head]
        0 where a query sees nothing.
    lse : numpy.ndarray [batch, head, query]
        Log-sum-exp of the scaled scores, before dropout; −inf where a query sees nothing.
    saved : tuple
        For `attention_backward`: the arguments, the weights, and the output.

    Raises
    ------
    ValueError
        If a shape, dtype or number is wrong.
    """
    check_attention(
        query, key, value, scale, causal, window, key_start, cu_seqlens, dropout, seed
    )  # fmt: skip
    expect_floats(query=query, key=key, value=value)
    n_batch, n_head, n_query, d_head = query.shape
    n_kv_head, n_key = key.shape[1:3]
    if cu_seqlens is not None:
        check_cu_seqlens(cu_seqlens, n_query)
    low, high = key_intervals(
        n_batch, n_query, n_key, causal=causal, window=window, key_start=key_start,
        cu_seqlens=cu_seqlens,
    )  # fmt: skip
    keys = np.arange(n_key)
    seen = (low[..., None] <= keys) & (keys < high[..., None])  # [batch, query, key]
    sees = (low < high)[:, None, None, :, None]  # [batch, 1, 1, query, 1]
    is_seen = np.asarray(seen.any(axis=1))[:, None, None, :, None]  # [batch, 1, 1, key, 1]
    heads, queries = np.arange(n_batch * n_head), np.arange(n_query)
    factor = dropout_factor(seed, dropout, heads, queries, keys, query.dtype)
    factor = factor.reshape(n_batch, n_kv_head, n_head // n_kv_head, *factor.shape[1:])
    # What nobody looks at becomes 0, even a NaN: 0 · NaN in a product would be NaN.
    query = np.where(sees, split_groups(query, n_kv_head), 0)
    key, value = np.where(is_seen, key[:, :, None], 0), np.where(is_seen, value[:, :, None], 0)

    scale = default_scale(scale, d_head)
    # [batch, kv_head, group, query, key]
    scores = np.where(seen[:, None, None], query @ key.swapaxes(-1, -2), -math.inf)
    probabilities, lse = weigh(scores, scale)
    output = (probabilities * factor) @ value  # [batch, kv_head, group, query, d_head]
    saved = (query, key, value, probabilities, factor, output, sees, scale)
    merged = (n_batch, n_head, n_query)
    return (output.reshape(*merged, d_head), lse.reshape(merged)), saved


attention = value_of(attention_forward)


@at_least_float32
def attention_backward(
    saved: Saved, d_output: np.ndarray, d_lse: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Carry the gradients of output and lse back to query, key and value.

        d_value = (p·z)ᵀ d_output                        z: dropout's factor
        d_p     = z · (d_output valueᵀ)
        d_s     = scale · p · (d_p − (delta − d_lse)),   delta = Σ_j p·d_p = d_output · output
        d_query = d_s key,   d_key = d_sᵀ query

    Parameters
    ----------
    saved : tuple
        From `attention_forward`.
    d_output : numpy.ndarray [batch, head, query, d_head]
        Gradient of the loss with respect to the output.
    d_lse : numpy.ndarray [batch, head, query], optional
        And with respect to lse; 0 if not given.

    Returns
    -------
    d_query, d_key, d_value : numpy.ndarray
        Shaped like query, key and value; key heads sum over their group of query heads.

    Raises
    ------
    ValueError
        If a gradient is not shaped like its result.
    """
    query, key, value, probabilities, factor, output, sees, scale = saved
    n_batch, n_kv_head, n_group, n_query, d_head = query.shape
    merged = (n_batch, n_kv_head * n_group, n_query)
    expect_shape("d_output", d_output, (*merged, d_head))
    d_output = np.where(sees, d_output.reshape(query.shape), 0)
    delta = (d_output * output).sum(axis=-1, keepdims=True)  # [batch, kv_head, group, query, 1]
    if d_lse is not None:
        expect_shape("d_lse", d_lse, merged)
        delta = delta - np.where(sees, d_lse.reshape(delta.shape), 0)

    d_probabilities = factor * (d_output @ value.swapaxes(-1, -2))
    d_scores = probabilities * (d_probabilities - delta) * scale
    d_query = d_scores @ key
    d_key = (d_scores.swapaxes(-1, -2) @ query).sum(axis=2)  # Query heads of a group share it.
    d_value = ((probabilities * factor).swapaxes(-1, -2) @ d_output).sum(axis=2)
    return d_query.reshape(*merged, d_head), d_key, d_value


@at_least_float32
def attention_online(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    block_keys: int,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    **masks: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute `attention` in one pass over blocks of keys.

    `running_max` and `running_sum` are those of `softmax_online`; the accumulator is a third thing
    that is relative to the maximum, and the same factor brings it up to date. It is divided by the
    sum once, at the end. `masks` are `causal`, `window`, `key_start` and `cu_seqlens`.
    """
    expect_positive("block_keys", block_keys)
    (n_batch, n_head, n_query, d_head), n_key = query.shape, key.shape[2]
    group = n_head // key.shape[1]
    low, high = key_intervals(n_batch, n_query, n_key, **masks)
    key, value = (np.repeat(array, group, axis=1) for array in (key, value))
    scale = default_scale(scale, d_head)
    heads, queries = np.arange(n_batch * n_head), np.arange(n_query)

    running_max = np.full((*query.shape[:3], 1), -math.inf, query.dtype)
    running_sum = np.zeros_like(running_max)
    accumulator = np.zeros_like(query)  # [batch, head, query, d_head]
    for start in range(0, n_key, block_keys):
        keys = np.arange(start, min(start + block_keys, n_key))
        seen = (low[..., None] <= keys) & (keys < high[..., None])
        scores = query @ key[:, :, keys].swapaxes(-1, -2)  # [batch, head, query, block]
        scores = np.where(seen[:, None], scores, -math.inf)
        new_max = np.maximum(running_max, scores.max(axis=-1, keepdims=True))
        origin = np.where(np.isneginf(new_max), 0, new_max)
        rescale = np.exp((running_max - origin) * scale)
        exponents = np.exp((scores - origin) * scale)
        factor = dropout_factor(seed, dropout, heads, queries, keys, query.dtype)
        weights = exponents * factor.reshape(n_batch, n_head, *factor.shape[1:])
        running_sum = running_sum * rescale + exponents.sum(axis=-1, keepdims=True)
        accumulator = accumulator * rescale + weights @ value[:, :, keys]
        running_max = new_max

    total = np.where(running_sum == 0, 1, running_sum)
    lse = np.where(running_sum == 0, -math.inf, running_max * scale + np.log(total))
    return accumulator / total, lse[..., 0]


def dropout_factor(
    seed: int,
    dropout: float,
    heads: np.ndarray,
    queries: np.ndarray,
    keys: np.ndarray,
    dtype: Any = np.float64,
) -> np.ndarray:
    """Draw what each weight is multiplied with, 0 or 1/(1 − dropout): [head, query, key].

    The weight of (batch, head, query, key) is kept if the upper 24 bits of Philox's first word, at
    the counter (key, query, batch · n_head + head, 0), are at least dropout · 2²⁴. `heads` are
    numbers batch · n_head + head. Without dropout the result has size 1 along queries and keys.
    """
    if dropout == 0:
        return np.ones((len(heads), 1, 1), dtype)
    bits = philox(seed, keys, queries[:, None], heads[:, None, None], 0)[0]
    kept = (bits >> (32 - DROPOUT_BITS)) >= dropout_threshold(dropout)
    return (kept / (1 - dropout)).astype(dtype)


def dropout_threshold(dropout: float) -> int:
    """Return the number, from 0 to 2²⁴, that Philox's bits are compared with."""
    return round(dropout * 2**DROPOUT_BITS)


def default_scale(scale: float | None, d_head: int) -> float:
    """Return the scale that was asked for, or 1/√d_head."""
    return 1 / math.sqrt(d_head) if scale is None else float(scale)


def split_groups(x: np.ndarray, n_kv_head: int) -> np.ndarray:
    """Put query heads that share a key head side by side: [batch, kv_head, group, ...]."""
    n_batch, n_head = x.shape[:2]
    return x.reshape(n_batch, n_kv_head, n_head // n_kv_head, *x.shape[2:])
