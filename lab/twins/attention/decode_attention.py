"""The twins of generation, token by token: attention to a KV cache."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.attention import decode_attention as core_decode_attention
from ....kernels.attention import decode_attention as triton_decode_attention
from ..strategies import any_inputs, sizes
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats

# --- decode_attention ----------------------------------------------------------------------------


def _lengths(case: Case, draw: Draw) -> Any:
    """Draw a length for each sequence; the first one fills its cache."""
    lengths = abs(draw.normal(case["batch"], std=1e5)) % (case["capacity"] + 1)
    lengths[:1] = case["capacity"]
    return lengths.astype(np.int64) if isinstance(lengths, np.ndarray) else lengths.long()


def _decode_attention_inputs(case: Case, draw: Draw) -> Inputs:
    batch, kv_head, capacity = case["batch"], case["kv_head"], case["capacity"]
    std = case.get("magnitude", 1.0)
    query = draw.normal(batch, kv_head * case["group"], case["n_query"], case["d_head"], std=std)
    cache = (batch, kv_head, capacity, case["d_head"])
    tensors = {"query": query, "key_cache": draw.normal(*cache), "value_cache": draw.normal(*cache)}
    lengths = _lengths(case, draw)
    options: dict[str, Any] = {"lengths": lengths, "window": case.get("window")}
    if case.get("padded"):
        options["key_start"] = lengths // 3 + draw.mask(batch, share=0.5)
    if isinstance(lengths, np.ndarray):
        # Cache that was not written yet must not leak into a result.
        written = (np.arange(capacity) < lengths[:, None])[:, None, :, None]
        for name in ("key_cache", "value_cache"):
            tensors[name] = np.where(written, tensors[name], np.nan)
    return Inputs(tensors, options)


def _decode_attention_real(a: dict[str, Any]) -> Inputs:
    """Take the block's last two positions as they are decoded, over a cache with some room left."""
    room = ((0, 0), (0, 0), (0, 16), (0, 0))
    return Inputs(
        {
            "query": a["query"][:, :, -2:],
            "key_cache": np.pad(a["key"], room, constant_values=np.nan),
            "value_cache": np.pad(a["value"], room, constant_values=np.nan),
        },
        {"lengths": np.array([a["key"].shape[2]]), "scale": a["scale"].item()},
    )


def _decode_attention_cost(case: Case, itemsize: int) -> tuple[Cost, None]:
    """Count full caches, from their first key on: the most that a step can take."""
    caches, rows = case["batch"] * case["kv_head"], case["group"] * case["n_query"]
    scores, d_head = caches * rows * case["capacity"], case["d_head"]
    n_seen = case["capacity"]
    if case.get("window") is not None:
        n_seen = min(n_seen, case["window"] + case["n_query"] - 1)
    query, cached = caches * rows * d_head, caches * n_seen * d_head
    bounds = dict.fromkeys(
        ("lengths", *(["key_start"] * case.get("padded", False))), 8 * case["batch"]
    )
    # two products; scale, subtract, exp, sum; no backward
    return (
        Cost(
            1 + 4 * scores * d_head + 4 * scores,
            floats(itemsize, query=query, key_cache=cached, value_cache=cached) | bounds,
            floats(itemsize, output=query) | {"lse": 4 * caches * rows},
        ),
        None,
    )


_CONTRACTS = {
    "decode_attention_split_kernel": """
        query[n_batch, n_head, n_query, d_head]; lengths_ptr[n_batch]; key_start_ptr[n_batch]
        key[n_batch, n_kv_head, capacity, d_head]; value[n_batch, n_kv_head, capacity, d_head]
        output_ptr[n_splits:split_rows * d_head, n_batch:n_query * n_head * d_head,
                   n_query:n_head * d_head, n_head:d_head, d_head:1]
        lse_ptr[n_splits:split_rows, n_batch:n_query * n_head, n_query:n_head, n_head:1]
        n_kv_head >= 1; n_head == n_kv_head * (n_head // n_kv_head); d_head <= BLOCK_D
        n_head // n_kv_head * n_query <= MOST_COUNTED; capacity <= MOST_COUNTED
        -2**40 <= lengths_ptr.value <= 2**40; -2**40 <= key_start_ptr.value <= 2**40
        ROW_TILES == cdiv(n_head // n_kv_head * n_query, BLOCK_ROWS)
        grid[n_batch * n_kv_head * ROW_TILES, n_splits]
    """,
    "decode_attention_combine_kernel": """
        partial_ptr[n_splits, n_rows, d_head]; partial_lse_ptr[n_splits, n_rows]
        output_ptr[n_rows, d_head]; lse_ptr[n_rows]
        n_splits <= BLOCK_SPLITS; d_head >= 1; grid[n_rows, cdiv(d_head, BLOCK_COLUMNS)]
    """,
}

decode_attention = Twin(
    name="decode_attention",
    forward=core_decode_attention.decode_attention_forward,
    backward=None,
    kernel=triton_decode_attention.decode_attention,
    eager=triton_decode_attention.decode_attention_eager,
    arguments=("query", "key_cache", "value_cache"),
    results=("output", "lse"),
    statistics=("output", "lse"),
    cases=st.fixed_dictionaries(
        {
            "batch": st.integers(0, 3),
            "kv_head": st.integers(1, 2),
            "group": st.integers(1, 5),
            "n_query": sizes((0, 1), (1, 4), (5, 70)),
            "capacity": sizes((0, 40), (100, 500)),
            "d_head": st.one_of(
                st.sampled_from([1, 40, 59, 64, 96]), st.integers(2, 33), st.just(256)
            ),
            "window": st.sampled_from([None, None, 1, 7, 64]),
            "padded": st.booleans(),
            "magnitude": st.sampled_from([1.0, 0.001, 30.0]),
            **any_inputs,
        }
    ),
    corners=(
        # grouped heads, several splits of several tiles, and lengths of all sizes
        {
            "batch": 2, "kv_head": 2, "group": 3, "n_query": 2, "capacity": 500, "d_head": 40,
            "padded": True, "seed": 1,
        },
        # more rows than one tile, a window, and a cache that is not split
        {
            "batch": 5, "kv_head": 1, "group": 11, "n_query": 6, "capacity": 90, "d_head": 96,
            "window": 50, "seed": 2,
        },
        # There are more new positions than keys, so some stand before the sequence's start.
        {"batch": 1, "kv_head": 2, "group": 1, "n_query": 9, "capacity": 5, "d_head": 256},
        # Three pieces are no power of two: what is loaded beyond the last must count for nothing.
        {"batch": 1, "kv_head": 1, "group": 1, "n_query": 1, "capacity": 300, "d_head": 8},
    ),
    inputs=_decode_attention_inputs,
    real=_decode_attention_real,
    shapes={
        "gpt2": {
            "batch": 8, "kv_head": 12, "group": 1, "n_query": 1, "capacity": 1024, "d_head": 64,
        },
        "gpt2 xl, one prompt": {
            "batch": 1, "kv_head": 25, "group": 1, "n_query": 1, "capacity": 1024, "d_head": 64,
        },
        "grouped, long": {
            "batch": 4, "kv_head": 8, "group": 4, "n_query": 8, "capacity": 8192, "d_head": 128,
        },
        "one key head": {
            "batch": 8, "kv_head": 1, "group": 71, "n_query": 1, "capacity": 2048, "d_head": 64,
        },
        "one key head, wide, windowed": {
            "batch": 2, "kv_head": 1, "group": 8, "n_query": 4, "capacity": 8192, "d_head": 256,
            "window": 4096, "padded": True,
        },
    },
    cost=_decode_attention_cost,
    contracts=_CONTRACTS,
    rows=Rows(
        dict.fromkeys(("query", "key_cache", "value_cache", "output", "lse"), 0)
        | dict.fromkeys(("lengths", "key_start"), 0)
    ),
    studies=(
        {"batch": 1, "kv_head": 2, "group": 2, "n_query": 1, "capacity": 500, "d_head": 16},
        {"batch": 1, "kv_head": 1, "group": 3, "n_query": 2, "capacity": 90, "d_head": 24,
         "window": 20},
        {"batch": 1, "kv_head": 1, "group": 1, "n_query": 5, "capacity": 9, "d_head": 8},
    ),
    extremes=(
        {"batch": 3, "kv_head": 1, "group": 2, "n_query": 2, "capacity": 6, "d_head": 4,
         "window": 3, "padded": True, "seed": 1},
        {"batch": 1, "kv_head": 1, "group": 1, "n_query": 1, "capacity": 300, "d_head": 2},
    ),
    axes=dict.fromkeys(("query", "output"), "batch head query d_head")
    | dict.fromkeys(("key_cache", "value_cache"), "batch kv_head position d_head")
    | {"lse": "batch head query", "lengths": "batch", "key_start": "batch"},
)  # fmt: skip
