"""Which keys a query sees, as an interval, and what attention may be asked.

Every mask of `attention` is a statement about positions, and each of them lets query i see the
keys of one interval low(i) ≤ j < high(i). With shift = n_key − n_query:

    causal         high(i) = i + shift + 1              aligned at the bottom right
    window w       low(i)  = i + shift + 1 − w          the last w keys that causal lets it see
    key_start s    low(i)  = s                          left padding, one number for each sequence
    cu_seqlens     low(i)  = start of i's document      packed documents, laid end to end
                   high(i) = end of i's document

Several masks at once: the largest low and the smallest high. low ≥ high means that nothing is seen.

Neither bound ever decreases with i, and the kernel lives off that. The keys that a tile of queries
sees lie between the first query's low and the last query's high, and those between the last
query's low and the first query's high are seen by all of the tile:

    keys        low(first) low(last)     high(first) high(last)
                    ├──────────┼───────────────┼──────────┤
    tiles     none  │ boundary │ seen by all   │ boundary │  none
                    │ (masked) │ (no mask)     │ (masked) │

The other way round, the queries that see a tile of keys are found by searching the two sorted
lists (`query_stretch`).
"""

from typing import Any

import numpy as np

from ..checks import expect_integers, expect_positive, expect_shape, refuse, signed, whole

MAX_D_HEAD = 256


def key_intervals(
    n_batch: int,
    n_query: int,
    n_key: int,
    *,
    causal: bool = False,
    window: int | None = None,
    key_start: np.ndarray | None = None,
    cu_seqlens: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute low and high of every query.

    Parameters
    ----------
    n_batch, n_query, n_key : int
        Sizes.
    causal, window, key_start, cu_seqlens
        As in `attention`.

    Returns
    -------
    low, high : numpy.ndarray of int64 [batch, query]
        Between 0 and n_key, neither ever decreasing along the queries.
    """
    last_seen = np.arange(n_query) + (n_key - n_query)
    low = np.zeros((n_batch, n_query), np.int64)
    high = np.full((n_batch, n_query), n_key)
    if causal:
        high = np.minimum(high, last_seen + 1)
    if window is not None:
        low = np.maximum(low, last_seen + 1 - window)
    if key_start is not None:
        low = np.maximum(low, signed(key_start)[:, None])
    if cu_seqlens is not None:
        start, end = document_bounds(cu_seqlens, n_query)
        low, high = np.maximum(low, start), np.minimum(high, end)
    return np.clip(low, 0, n_key), np.clip(high, 0, n_key)


def document_bounds(cu_seqlens: np.ndarray, n_query: int) -> tuple[np.ndarray, np.ndarray]:
    """Find where the document of each position starts and ends, both [query].

    The two are equal, and so an empty interval, for positions after the last document.
    """
    # The last boundary at or before a position counts, which steps over documents of length 0.
    document = np.searchsorted(cu_seqlens, np.arange(n_query), side="right") - 1
    bounds = signed(np.append(cu_seqlens, cu_seqlens[-1]))
    return bounds[document], bounds[document + 1]


def key_stretch(
    low: np.ndarray, high: np.ndarray, first: int, end: int
) -> tuple[int, int, int, int]:
    """Say which keys the queries `first` to `end` − 1 read, and which of them without a mask.

    Returns start, full_start, full_end, end: keys from start to end are read, and those from
    full_start to full_end are seen by every query of the tile. Empty stretches have their start at
    or after their end. `low` and `high` [query] are those of one sequence.
    """
    return low[first], low[end - 1], high[first], high[end - 1]


def query_stretch(
    low: np.ndarray, high: np.ndarray, first: int, end: int
) -> tuple[int, int, int, int]:
    """Say which queries see the keys `first` to `end` − 1, and which of them see all of these.

    Returns start, full_start, full_end, end as `key_stretch` does, but of queries.
    """
    # Keys before the first low or after the last high are seen by nobody.
    first, end = max(first, low[0]), min(end, high[-1])
    if first >= end:
        return 0, 0, 0, 0
    return (
        int(np.searchsorted(high, first, side="right")),  # the first with high > first
        int(np.searchsorted(high, end, side="left")),  # the first with high ≥ end
        int(np.searchsorted(low, first, side="right")),  # the first with low > first
        int(np.searchsorted(low, end, side="left")),  # the first with low ≥ end
    )


def check_attention(
    query: Any,
    key: Any,
    value: Any,
    scale: float | None,
    causal: bool,
    window: int | None,
    key_start: Any,
    cu_seqlens: Any,
    dropout: float,
    seed: int,
) -> None:
    """Refuse what `attention` has no meaning for; looks at shapes and dtypes alone."""
    for name, array in (("query", query), ("key", key)):
        if len(array.shape) != 4:
            refuse(
                name,
                f"4 dimensions [batch, head, {name}, d_head]",
                f"shape {tuple(array.shape)}",
                "heads not split off, or no batch axis",
            )
    n_batch, n_head, n_query, d_head = query.shape
    _, n_kv_head, n_key, _ = key.shape
    if not 1 <= d_head <= MAX_D_HEAD:
        refuse("query", f"1 ≤ d_head ≤ {MAX_D_HEAD}", f"d_head {d_head}")
    expect_shape("key", key, (n_batch, n_kv_head, n_key, d_head), "batch and d_head of query")
    expect_shape("value", value, key.shape, "that of key")
    if n_kv_head == 0 or n_head % n_kv_head:
        refuse("key", "a number of heads that divides query's", f"{n_kv_head} for {n_head}")
    if scale is not None:
        expect_positive("scale", scale)
    if window is not None:
        if not causal:
            refuse("window", "causal=True with a window", "causal=False")
        if isinstance(window, bool) or int(window) != window or window < 1:
            refuse("window", "a whole number of keys, at least 1", repr(window))
    expect_integers(key_start=key_start, cu_seqlens=cu_seqlens)
    if key_start is not None:
        expect_shape("key_start", key_start, (n_batch,), "one for each sequence")
    if cu_seqlens is not None:
        if len(cu_seqlens.shape) != 1 or cu_seqlens.shape[0] == 0:
            refuse("cu_seqlens", "shape (n_documents + 1,)", f"shape {tuple(cu_seqlens.shape)}")
        if n_query != n_key:
            refuse("cu_seqlens", "as many queries as keys", f"{n_query} and {n_key}")
    if not 0 <= dropout < 1:
        refuse("dropout", "a probability from 0 to below 1", repr(dropout))
    if not 0 <= whole("seed", seed) < 2**64:
        refuse("seed", "a whole number from 0 to 2⁶⁴ − 1", repr(seed))


def check_cu_seqlens(cu_seqlens: np.ndarray, n_query: int) -> None:
    """Refuse boundaries that do not begin at 0, that decrease, or that end after the last query.

    It reads the values. The kernels cannot do so without waiting.
    """
    if cu_seqlens[0] != 0 or (cu_seqlens[1:] < cu_seqlens[:-1]).any() or cu_seqlens[-1] > n_query:
        refuse(
            "cu_seqlens",
            f"boundaries from 0 upwards to at most {n_query}",
            np.array2string(np.asarray(cu_seqlens), threshold=8),
            "lengths instead of their running sum",
        )
