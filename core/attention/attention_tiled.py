"""Attention in tiles: the kernels' own loops, one head at a time, with their names.

Forward gives a program one tile of queries and lets it walk along the keys with the running
maximum, sum and accumulator of `attention_online`. It starts at the first key that any of its
queries sees and ends after the last, so that tiles of keys that none of them sees are never read;
and only where some of them see a key and others do not does it look at the mask at all:

                    keys                          causal, 4 × 4 tiles
              ┌────┬────┬────┬────┐
              │ ◣  │    │    │    │               ◣  boundary: read, masked
      queries ├────┼────┼────┼────┤               ■  seen by all: read, no mask
              │ ■  │ ◣  │    │    │                  (blank) never read
              ├────┼────┼────┼────┤
              │ ■  │ ■  │ ◣  │    │
              ├────┼────┼────┼────┤
              │ ■  │ ■  │ ■  │ ◣  │
              └────┴────┴────┴────┘

Backward holds no scores either: p = exp(scale · s − lse) computes a tile of them again from what
forward kept, query, key and lse. It walks the picture twice, for a program that adds to what others
add to would need atomics: d_query row by row, d_key and d_value column by column.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..operation import at_least_float32, value_of
from .attention import default_scale, dropout_factor
from .key_intervals import key_intervals, key_stretch, query_stretch

Saved = tuple[Any, ...]


def tiles(stretch: tuple[int, int, int, int], block: int) -> Iterator[tuple[int, int, bool]]:
    """Cut a stretch of keys (or queries) into blocks: boundary, seen by all, boundary.

    Yields first and end of each block, and whether its mask must be looked at. The stretch is what
    `key_stretch` or `query_stretch` returns.
    """
    start, full_start, full_end, end = stretch
    # Blocks are counted from the start. Those between full_start and full_end are seen by all.
    full_start = start + -(-max(full_start - start, 0) // block) * block
    full_end = full_start + max(full_end - full_start, 0) // block * block
    for first in range(start, min(full_start, end), block):
        yield first, min(first + block, end), True
    for first in range(full_start, full_end, block):
        yield first, first + block, False
    for first in range(full_end, end, block):
        yield first, min(first + block, end), True


@at_least_float32
def attention_tiled_forward(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    *,
    block_queries: int,
    block_keys: int,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    **masks: Any,
) -> tuple[tuple[np.ndarray, np.ndarray], Saved]:
    """Compute `attention` as the kernel does.

    Parameters
    ----------
    query, key, value, scale, dropout, seed
        As in `attention`.
    block_queries, block_keys : int
        Size of the tiles.
    **masks
        `causal`, `window`, `key_start` and `cu_seqlens`, as in `attention`.

    Returns
    -------
    output, lse : numpy.ndarray
        As `attention`.
    saved : tuple
        For `attention_tiled_backward`.
    """
    (n_batch, n_head, n_query, d_head), n_key = query.shape, key.shape[2]
    group = n_head // key.shape[1]
    scale = default_scale(scale, d_head)
    low, high = key_intervals(n_batch, n_query, n_key, **masks)
    output, lse = np.zeros_like(query), np.full_like(query[..., 0], -math.inf)
    for b, h, first in np.ndindex(n_batch, n_head, -(-n_query // block_queries)):
        queries = np.arange(first * block_queries, min((first + 1) * block_queries, n_query))
        running_max = np.full((len(queries), 1), -math.inf, query.dtype)
        running_sum = np.zeros_like(running_max)
        accumulator = np.zeros((len(queries), d_head), query.dtype)
        stretch = key_stretch(low[b], high[b], queries[0], queries[-1] + 1)
        for first_key, end_key, masked in tiles(stretch, block_keys):
            keys = np.arange(first_key, end_key)
            scores = (
                query[b, h, queries] @ key[b, h // group, keys].T
            )  # [block_queries, block_keys]
            if masked:
                scores = np.where(_seen(low[b], high[b], queries, keys), scores, -math.inf)
            new_max = np.maximum(running_max, scores.max(axis=1, keepdims=True))
            origin = np.where(np.isneginf(new_max), 0, new_max)
            rescale = np.exp((running_max - origin) * scale)
            exponents = np.exp((scores - origin) * scale)
            running_sum = running_sum * rescale + exponents.sum(axis=1, keepdims=True)
            weights = exponents * _factor(seed, dropout, b * n_head + h, queries, keys, query.dtype)
            accumulator = accumulator * rescale + weights @ value[b, h // group, keys]
            running_max = new_max
        total = np.where(running_sum == 0, 1, running_sum)
        output[b, h, queries] = accumulator / total
        log_sum = np.where(running_sum == 0, -math.inf, running_max * scale + np.log(total))
        lse[b, h, queries] = log_sum[:, 0]
    blocks = (block_queries, block_keys)
    saved = (query, key, value, output, lse, low, high, blocks, scale, dropout, seed)
    return (output, lse), saved


attention_tiled = value_of(attention_tiled_forward)


@at_least_float32
def attention_tiled_backward(
    saved: Saved, d_output: np.ndarray, d_lse: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Carry the gradients back in tiles: three kernels.

    First delta − d_lse, one number for each query. Then a program for each tile of keys, which
    walks along the queries that see it, in every query head of its group, and sums d_key and
    d_value. Then a program for each tile of queries, which walks along its keys and sums d_query.
    The price of no atomics is that scores and d_p are computed in both: 7 products instead of 5.

    Parameters
    ----------
    saved : tuple
        From `attention_tiled_forward`.
    d_output, d_lse
        As in `attention_backward`.

    Returns
    -------
    d_query, d_key, d_value : numpy.ndarray
        As `attention_backward`.
    """
    query, key, value, output, _, low, high, (block_queries, block_keys), scale, *_ = saved
    n_batch, n_head, n_query, _ = query.shape
    n_kv_head, n_key = key.shape[1:3]
    group = n_head // n_kv_head
    delta = (d_output * output).sum(axis=-1)  # [batch, head, query]
    if d_lse is not None:
        delta = delta - d_lse
    d_query, d_key, d_value = np.zeros_like(query), np.zeros_like(key), np.zeros_like(value)

    for b, kv, first in np.ndindex(n_batch, n_kv_head, -(-n_key // block_keys)):
        if n_query == 0:
            continue
        keys = np.arange(first * block_keys, min((first + 1) * block_keys, n_key))
        keys = keys[(low[b, 0] <= keys) & (keys < high[b, -1])]  # Nobody reads the others.
        if len(keys) == 0:
            continue
        stretch = query_stretch(low[b], high[b], keys[0], keys[-1] + 1)
        for h in range(kv * group, (kv + 1) * group):
            for first_query, end_query, masked in tiles(stretch, block_queries):
                queries = np.arange(first_query, end_query)
                weights, d_scores = _recompute(saved, delta, d_output, b, h, queries, keys, masked)
                d_value[b, kv, keys] += weights.T @ d_output[b, h, queries]
                d_key[b, kv, keys] += scale * (d_scores.T @ query[b, h, queries])

    for b, h, first in np.ndindex(n_batch, n_head, -(-n_query // block_queries)):
        queries = np.arange(first * block_queries, min((first + 1) * block_queries, n_query))
        stretch = key_stretch(low[b], high[b], queries[0], queries[-1] + 1)
        for first_key, end_key, masked in tiles(stretch, block_keys):
            keys = np.arange(first_key, end_key)
            _, d_scores = _recompute(saved, delta, d_output, b, h, queries, keys, masked)
            d_query[b, h, queries] += scale * (d_scores @ key[b, h // group, keys])
    return d_query, d_key, d_value


def _recompute(
    saved: Saved,
    delta: np.ndarray,
    d_output: np.ndarray,
    b: int,
    h: int,
    queries: np.ndarray,
    keys: np.ndarray,
    masked: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute a tile of weights again (after dropout), and of the gradient of the scaled scores."""
    query, key, value, _, lse, low, high, _, scale, dropout, seed = saved
    n_head = query.shape[1]
    kv = h // (n_head // key.shape[1])
    row_lse = lse[b, h, queries]
    # A query that sees nothing gets p = exp(s − ∞) = 0; with its lse of −∞, p would be infinite.
    row_lse = np.where(np.isneginf(row_lse), math.inf, row_lse)
    scores = query[b, h, queries] @ key[b, kv, keys].T
    probabilities = np.exp(scores * scale - row_lse[:, None])
    d_output_tile = d_output[b, h, queries]
    if masked:
        seen = _seen(low[b], high[b], queries, keys)
        probabilities = np.where(seen, probabilities, 0)
        d_output_tile = np.where(seen.any(axis=1, keepdims=True), d_output_tile, 0)
    factor = _factor(seed, dropout, b * n_head + h, queries, keys, query.dtype)
    d_probabilities = factor * (d_output_tile @ value[b, kv, keys].T)
    d_scores = probabilities * (d_probabilities - delta[b, h, queries, None])
    return probabilities * factor, d_scores


def _seen(low: np.ndarray, high: np.ndarray, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    return (low[queries, None] <= keys) & (keys < high[queries, None])


def _factor(
    seed: int, dropout: float, head: int, queries: np.ndarray, keys: np.ndarray, dtype: Any
) -> np.ndarray:
    return dropout_factor(seed, dropout, np.array([head]), queries, keys, dtype)[0]
