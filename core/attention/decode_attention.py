"""Decode attention: one or a few new queries against a cache of keys and values.

    s[j] = scale · q·k[j],   lse = log Σ_j exp(s[j]),   output = Σ_j exp(s[j] − lse) · v[j]

over the keys j that the query sees. While a model generates, each step brings n_query new tokens
(one, or a few at a time) whose keys and values are already in the cache. Sequences differ in
length: the cache has room for `capacity` keys, sequence b fills the first `lengths[b]`, and the
queries are its last n_query positions. Query i stands at position t = lengths[b] − n_query + i and
sees key j when

    key_start[b] ≤ j ≤ t   and, with a window,   j > t − window.

The file climbs: `decode_attention` is the definition; `decode_attention_split` gets the same from
separate pieces of the cache, as the kernel must: with one query, a GPU is filled only by sharing
out the keys (flash decoding, Dao et al. 2023). A piece returns its own output and lse, and pieces
combine as

    lse = log Σ_s exp(lse_s),   output = Σ_s exp(lse_s − lse) · output_s

because output_s · exp(lse_s) is the piece's unnormalised sum.

Grouped queries: with fewer key heads than query heads, query head h reads key head h // group.

Edge semantics, the same in both twins: a query that sees no key (a length of 0, a position before
the sequence's start, a key_start behind it) gives output 0 and lse −inf; what the cache holds where
no query looks, NaN included, changes nothing.
"""

import math
from typing import Any

import numpy as np

from ..checks import (
    expect_floats,
    expect_integers,
    expect_positive,
    expect_shape,
    refuse,
    signed,
    whole,
)
from ..layers.softmax import weigh
from ..operation import at_least_float32, value_of
from .attention import default_scale

Result = tuple[np.ndarray, np.ndarray]


@at_least_float32
def decode_attention_forward(
    query: np.ndarray,
    key_cache: np.ndarray,
    value_cache: np.ndarray,
    lengths: np.ndarray,
    *,
    scale: float | None = None,
    window: int | None = None,
    key_start: np.ndarray | None = None,
) -> tuple[Result, None]:
    """Attend from each sequence's last positions to its cache: the definition.

    Parameters
    ----------
    query : numpy.ndarray [batch, head, query, d_head]
        The last n_query positions of each sequence.
    key_cache, value_cache : numpy.ndarray [batch, kv_head, capacity, d_head]
        Keys and values; `head` is a multiple of `kv_head`.
    lengths : numpy.ndarray of int [batch]
        Keys that each sequence has so far, its queries' own included; from 0 to capacity.
    scale : float, optional
        Multiplies the scores; 1/√d_head if not given.
    window : int, optional
        Let a query see at most the last `window` keys up to its own position.
    key_start : numpy.ndarray of int [batch], optional
        Keys before it are padding on the left.

    Returns
    -------
    output : numpy.ndarray [batch, head, query, d_head]
    lse : numpy.ndarray [batch, head, query]
        Log of the sum of the exponentials of the scaled scores, −inf where no key is seen.
    saved : None

    Raises
    ------
    ValueError
        If shapes, dtypes or values do not fit.
    """
    check_decode_attention(query, key_cache, value_cache, lengths, scale, window, key_start)
    check_lengths(lengths, key_cache.shape[2])
    seen = visible_keys(query.shape[2], key_cache.shape[2], lengths, window, key_start)
    return attend(query, key_cache, value_cache, seen, scale), None


decode_attention = value_of(decode_attention_forward)


@at_least_float32
def decode_attention_split(
    query: np.ndarray,
    key_cache: np.ndarray,
    value_cache: np.ndarray,
    lengths: np.ndarray,
    n_splits: int,
    *,
    scale: float | None = None,
    window: int | None = None,
    key_start: np.ndarray | None = None,
) -> Result:
    """Attend to `n_splits` pieces of the cache one by one, then combine them."""
    expect_positive("n_splits", n_splits)
    check_decode_attention(query, key_cache, value_cache, lengths, scale, window, key_start)
    check_lengths(lengths, key_cache.shape[2])
    seen = visible_keys(query.shape[2], key_cache.shape[2], lengths, window, key_start)
    pieces = zip(
        *(np.array_split(cache, n_splits, axis=2) for cache in (key_cache, value_cache)),
        np.array_split(seen, n_splits, axis=-1),
        strict=True,
    )
    partial = [attend(query, key, value, seen_here, scale) for key, value, seen_here in pieces]
    return combine(np.stack([o for o, _ in partial]), np.stack([lse for _, lse in partial]))


def combine(outputs: np.ndarray, lses: np.ndarray) -> Result:
    """Merge attention over disjoint sets of keys into attention over their union.

    `outputs` [split, ..., d_head] and `lses` [split, ...] are each set's own; the lse of a set of
    which nothing is seen is −inf.
    """
    shares, lse = weigh(np.moveaxis(lses, 0, -1), 1.0)  # [..., split] and [..., 1]
    output = (np.moveaxis(shares, -1, 0)[..., None] * outputs).sum(axis=0)
    return output, lse[..., 0]


def attend(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    seen: np.ndarray,
    scale: float | None,
) -> Result:
    """Attend to those keys of a cache, or of a piece of it, that are seen: [batch, query, key]."""
    batch, n_head, n_query, d_head = query.shape
    n_kv_head = key.shape[1]
    # What no query looks at becomes 0, even a NaN: 0 · NaN in a product would be NaN.
    wanted = np.asarray(seen.any(axis=1))[:, None, :, None]
    key, value = np.where(wanted, key, 0), np.where(wanted, value, 0)
    # [batch, head, query, d_head] -> [batch, kv_head, group, query, d_head]
    grouped = query.reshape(batch, n_kv_head, n_head // n_kv_head, n_query, d_head)
    scores = grouped @ key[:, :, None].swapaxes(-1, -2)  # [..., query, key]
    scores = np.where(seen[:, None, None], scores, -math.inf)
    probabilities, lse = weigh(scores, default_scale(scale, d_head))
    output = probabilities @ value[:, :, None]
    return output.reshape(query.shape), lse.reshape(query.shape[:-1])


def visible_keys(
    n_query: int,
    capacity: int,
    lengths: np.ndarray,
    window: int | None,
    key_start: np.ndarray | None,
) -> np.ndarray:
    """Say which keys of its cache each query sees: bool [batch, query, capacity]."""
    keys = np.arange(capacity)
    position = (signed(lengths)[:, None] - n_query + np.arange(n_query))[
        ..., None
    ]  # [batch, query, 1]
    seen = keys <= position
    if window is not None:
        seen = seen & (keys > position - window)
    if key_start is not None:
        seen = seen & (keys >= key_start[:, None, None])
    return seen


def check_decode_attention(
    query: Any,
    key_cache: Any,
    value_cache: Any,
    lengths: Any,
    scale: float | None,
    window: int | None,
    key_start: Any,
) -> None:
    """Refuse arguments that do not fit together; looks at shapes and dtypes alone."""
    expect_floats(query=query, key_cache=key_cache, value_cache=value_cache)
    if len(query.shape) != 4 or query.shape[-1] < 1:
        refuse("query", "shape [batch, head, query, d_head]", f"shape {tuple(query.shape)}")
    if len(key_cache.shape) != 4:
        meaning = "shape [batch, kv_head, capacity, d_head]"
        refuse("key_cache", meaning, f"shape {tuple(key_cache.shape)}")
    batch, n_head, _, d_head = query.shape
    n_kv_head = key_cache.shape[1]
    if n_kv_head < 1 or n_head % n_kv_head:
        refuse(
            "key_cache",
            f"a number of heads that divides query's {n_head}",
            f"{n_kv_head} heads",
            "a cache laid out as [batch, capacity, kv_head, d_head]: pass a transposed view",
        )
    expect_shape("key_cache", key_cache, (batch, n_kv_head, key_cache.shape[2], d_head))
    expect_shape("value_cache", value_cache, tuple(key_cache.shape), "key_cache has another")
    expect_integers(lengths=lengths, key_start=key_start)
    for name, integers in (("lengths", lengths), ("key_start", key_start)):
        if integers is not None:
            expect_shape(name, integers, (batch,), "one number for each sequence")
    if scale is not None:
        expect_positive("scale", scale)
    if window is not None and whole("window", window) < 1:
        refuse("window", "at least 1, the query's own position", repr(window))


def check_lengths(lengths: Any, capacity: int) -> None:
    """Refuse lengths that no cache of this capacity can have; reads the values."""
    if len(lengths) and (int(lengths.min()) < 0 or int(lengths.max()) > capacity):
        refuse(
            "lengths",
            f"numbers from 0 to the cache's capacity {capacity}",
            f"numbers from {int(lengths.min())} to {int(lengths.max())}",
            "a cache that is full: allocate a longer one",
        )
