"""The twin of attention; part of the list in `twins/catalogue.py`."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.attention import attention as core_attention
from ....core.attention.key_intervals import key_intervals
from ....kernels.attention import attention as triton_attention
from ....kernels.attention.attention_backward import (
    attention_backward_delta_kernel,
    attention_backward_query_kernel,
)
from ....kernels.attention.attention_backward_keys import KEY_VALUE_KERNELS
from ..strategies import any_tensors, sizes
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats

MASKS = ("causal", "window", "key_start", "cu_seqlens")


def _lengths(case: Case) -> tuple[int, int]:
    """Return n_query and n_key: equal with documents; keys for every query without "minus_inf"."""
    n_query: int = case["queries"]
    if case.get("documents") is not None:
        return n_query, n_query
    n_key: int = case.get("keys", n_query)
    return n_query, n_key if case.get("minus_inf") else max(n_key, n_query, 1)


def _options(case: Case) -> dict[str, Any]:
    """Make every argument but the tensors.

    Only with "minus_inf" may a query see nothing: its lse is −inf then, which has no derivative.
    """
    n_query, n_key = _lengths(case)
    blind = case.get("minus_inf", False)
    options: dict[str, Any] = {"causal": case.get("causal", False)}
    for name in ("scale", "dropout"):
        if case.get(name) is not None:
            options[name] = case[name]
    if options.get("dropout"):
        options["seed"] = 2**33 + case.get("seed", 0)
    if options["causal"] and case.get("window") is not None:
        options["window"] = case["window"]
    if case.get("padding") is not None:
        # Each sequence starts elsewhere, up to this share of the keys.
        most = n_key + 1 if blind else n_key - n_query
        starts = np.arange(1, case["batch"] + 1) / case["batch"] * case["padding"] * most
        options["key_start"] = starts.astype(np.int64)
    if case.get("documents") is not None:
        bounds = np.minimum(np.cumsum([0, *case["documents"]]), n_query)
        if not blind:
            bounds = np.append(bounds, n_query)
        options["cu_seqlens"] = bounds
    return options


def _attention_inputs(case: Case, draw: Draw) -> Inputs:
    n_query, n_key = _lengths(case)
    n_batch, d_head = case["batch"], case["d_head"]
    n_head: int = case["head"]
    n_kv_head: int = case.get("kv_head") or n_head
    magnitude: float = case.get("magnitude", 1.0)
    tensors = {
        "query": draw.normal(n_batch, n_head, n_query, d_head, std=magnitude),
        "key": draw.normal(n_batch, n_kv_head, n_key, d_head),
        "value": draw.normal(n_batch, n_kv_head, n_key, d_head),
    }
    options = _options(case)
    for name in ("key_start", "cu_seqlens"):
        if name in options:
            # Memory of this drawing's kind takes the same numbers; the meta device holds none.
            drawn = draw.mask(len(options[name]), share=0.0).cumsum(0) * 0
            for i, position in enumerate(options[name][: drawn.shape[0]]):
                drawn[i] += int(position)
            options[name] = drawn
    return Inputs(tensors, options)


def _attention_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n_query, n_key = _lengths(case)
    n_batch, n_head, d_head = case["batch"], case["head"], case["d_head"]
    masks = {name: option for name, option in _options(case).items() if name in MASKS}
    low, high = key_intervals(n_batch, n_query, n_key, **masks)
    pairs = n_head * int(np.maximum(high - low, 0).sum())
    rows = n_batch * n_head * n_query
    n_kv_head: int = case.get("kv_head") or n_head
    query, key = rows * d_head, n_kv_head * _keys_seen(low, high, n_key) * d_head
    all_keys = n_batch * n_kv_head * n_key * d_head  # Backward writes all.
    bounds = {name: 8 * len(masks[name]) for name in ("key_start", "cu_seqlens") if name in masks}
    # forward turns the bounds into int32: a start for each sequence, two ends for each query
    saved = {"saved": 4 * n_batch * ("key_start" in masks) + 8 * n_query * ("cu_seqlens" in masks)}
    # forward: query·key and weight·value. backward: both again with their two gradients each, save
    # that weight·value itself is not needed: 5 products of a multiplication and an addition.
    arguments = floats(itemsize, query=query, key=key, value=key)
    results = floats(itemsize, output=query) | {"lse": 4 * rows}
    cotangents = {f"d_{name}": size for name, size in results.items()}
    gradients = floats(itemsize, d_query=query, d_key=all_keys, d_value=all_keys)
    return (
        Cost(4 * d_head * pairs, arguments | bounds, results),
        Cost(10 * d_head * pairs, arguments | results | cotangents | saved, gradients),
    )


def _keys_seen(low: np.ndarray, high: np.ndarray, n_key: int) -> int:
    """Count the keys of all sequences that some query sees, from every query's interval."""
    n = 0
    for starts, ends in zip(low, np.maximum(low, high), strict=True):  # one sequence's queries
        steps = np.bincount(starts, minlength=n_key + 1) - np.bincount(ends, minlength=n_key + 1)
        n += int((steps.cumsum() > 0).sum())
    return n


def _real(activations: dict[str, Any]) -> Inputs:
    tensors = {name: activations[name] for name in ("query", "key", "value")}
    return Inputs(tensors, {"causal": True, "scale": activations["scale"].item()})


def _with_heads(case: Case) -> Case:
    return case | {"head": case["kv_head"] * case["group"]}


_CONTRACTS = {
    "attention_forward_kernel": """
        query[n_batch, n_head, n_query, D_HEAD]; output[n_batch, n_head, n_query, D_HEAD]
        key[n_batch, n_kv_head, n_key, D_HEAD]; value[n_batch, n_kv_head, n_key, D_HEAD]
        lse_ptr[n_batch * n_head, n_query]
        tile = rows_per_tile(QUERY_TILE_BYTES, D_HEAD, itemsize)
        grid[cdiv(n_query, tile) * n_batch * n_head]
        masks.key_start[n_batch]; masks.document_start[n_query]; masks.document_end[n_query]
        0 <= masks.document_start.value < n_query; 0 <= masks.document_end.value <= n_query
        masks.document_start and n_query == n_key
        n_kv_head * GROUP == n_head; n_query < 2**30; n_key < 2**30; 1 <= masks.window <= 2**30
    """,
    "attention_backward_delta_kernel": """
        output[n_batch, n_head, n_query, D_HEAD]; d_output[n_batch, n_head, n_query, D_HEAD]
        d_lse[n_batch, n_head, n_query]; delta_ptr[n_batch * n_head, n_query]
        tile = rows_per_tile(QUERY_TILE_BYTES, D_HEAD, itemsize)
        grid[cdiv(n_query, tile) * n_batch * n_head]; n_query < 2**30
    """,
    "attention_backward_query_kernel": """
        query[n_batch, n_head, n_query, D_HEAD]; d_output[n_batch, n_head, n_query, D_HEAD]
        key[n_batch, n_kv_head, n_key, D_HEAD]; value[n_batch, n_kv_head, n_key, D_HEAD]
        d_query[n_batch, n_head, n_query, D_HEAD]
        lse_ptr[n_batch * n_head, n_query]; delta_ptr[n_batch * n_head, n_query]
        tile = rows_per_tile(QUERY_TILE_BYTES, D_HEAD, itemsize)
        grid[cdiv(n_query, tile) * n_batch * n_head]
        masks.key_start[n_batch]; masks.document_start[n_query]; masks.document_end[n_query]
        0 <= masks.document_start.value < n_query; 0 <= masks.document_end.value <= n_query
        masks.document_start and n_query == n_key
        n_kv_head * GROUP == n_head; n_query < 2**30; n_key < 2**30; 1 <= masks.window <= 2**30
    """,
    "attention_backward_key_value_kernel": """
        query[n_batch, n_head, n_query, D_HEAD]; d_output[n_batch, n_head, n_query, D_HEAD]
        key[n_batch, n_kv_head, n_key, D_HEAD]; value[n_batch, n_kv_head, n_key, D_HEAD]
        d_key[n_batch, n_kv_head, n_key, D_HEAD]; d_value[n_batch, n_kv_head, n_key, D_HEAD]
        lse_ptr[n_batch, n_head, n_query]; delta_ptr[n_batch, n_head, n_query]; n_query >= 1
        tile = summed_rows_per_tile(KEY_TILE_BYTES, D_HEAD, itemsize)
        grid[cdiv(n_key, tile) * n_batch * n_kv_head]
        masks.key_start[n_batch]; masks.document_start[n_query]; masks.document_end[n_query]
        0 <= masks.document_start.value < n_query; 0 <= masks.document_end.value <= n_query
        masks.document_start and n_query == n_key
        n_kv_head * GROUP == n_head; n_query < 2**30; n_key < 2**30; 1 <= masks.window <= 2**30
    """,
}

attention = Twin(
    name="attention",
    forward=core_attention.attention_forward,
    backward=core_attention.attention_backward,
    kernel=triton_attention.attention,
    eager=triton_attention.attention_eager,
    arguments=("query", "key", "value"),
    results=("output", "lse"),
    cases=st.fixed_dictionaries(
        {
            "batch": sizes((0, 2), (1, 2)),
            "kv_head": st.integers(1, 2),
            "group": st.integers(1, 2),
            "queries": sizes((0, 3), (1, 60), (100, 150)),
            "keys": sizes((0, 3), (1, 60), (100, 150)),
            "d_head": st.sampled_from([1, 8, 16, 40, 59, 64, 96, 111, 128]),
            "causal": st.booleans(),
            "window": st.none() | sizes((1, 3), (1, 150)),
            "padding": st.none() | st.sampled_from([0.1, 0.6, 1.0]),
            "documents": st.none() | st.lists(st.integers(0, 60), max_size=5),
            "dropout": st.sampled_from([0.0, 0.0, 0.1, 0.5]),
            "scale": st.sampled_from([None, 1.0, 0.02]),
            "magnitude": st.sampled_from([1.0, 1.0, 0.001, 30.0]),
            "minus_inf": st.booleans(),
            **any_tensors,
        }
    ).map(_with_heads),
    corners=(
        # It walks through boundary, seen by all and boundary, with several tiles either way.
        {"batch": 1, "head": 2, "kv_head": 1, "queries": 150, "keys": 200, "d_head": 40,
         "causal": True, "window": 140},
        {"batch": 2, "head": 1, "queries": 70, "d_head": 64, "causal": True, "padding": 0.6,
         "documents": [20, 0, 33, 1], "dropout": 0.3, "minus_inf": True, "scale": 0.2},
        # Scores are large, and the first query sees one key: its weight is 1, whatever they are.
        {"batch": 1, "head": 4, "kv_head": 2, "queries": 33, "d_head": 128, "causal": True,
         "scale": 1.0, "magnitude": 30.0},
        # Dropout's tiles are smaller where heads are narrow: a mutant of their size survived.
        {"batch": 1, "head": 1, "queries": 9, "d_head": 16, "dropout": 0.5, "seed": 4},
        # Keys 32, 64 and 128 start tiles and end documents, which they see whole: a mutant that
        # took the next key's start survived.
        {"batch": 1, "head": 1, "queries": 140, "d_head": 16, "documents": [33, 32, 64],
         "seed": 5},
    ),
    inputs=_attention_inputs,
    real=_real,
    shapes={
        "gpt2 training": {
            "batch": 8, "head": 12, "queries": 1024, "d_head": 64, "causal": True,
        },
        "gpt2-xl training, dropout": {
            "batch": 4, "head": 25, "queries": 1024, "d_head": 64, "causal": True, "dropout": 0.1,
        },
        "gpt3-13b layer": {"batch": 2, "head": 40, "queries": 2048, "d_head": 128, "causal": True},
        "16k, d_head 64": {"batch": 1, "head": 16, "queries": 16384, "d_head": 64},
        "16k, d_head 64, causal": {
            "batch": 1, "head": 16, "queries": 16384, "d_head": 64, "causal": True,
        },
        "16k, d_head 128, causal": {
            "batch": 1, "head": 16, "queries": 16384, "d_head": 128, "causal": True,
        },
        "grouped heads": {
            "batch": 2, "head": 32, "kv_head": 8, "queries": 4096, "d_head": 128, "causal": True,
        },
        "packed documents": {
            "batch": 1, "head": 12, "queries": 8192, "d_head": 64, "causal": True,
            "documents": [900, 3000, 17, 1250, 2000, 1025],
        },
        "window 256": {
            "batch": 2, "head": 12, "queries": 4096, "d_head": 64, "causal": True, "window": 256,
        },
        "d_head 40, left padding": {
            "batch": 8, "head": 8, "queries": 4000, "d_head": 40, "padding": 0.5, "minus_inf": True,
        },
        "d_head 96": {"batch": 4, "head": 16, "queries": 2048, "d_head": 96, "causal": True},
    },
    cost=_attention_cost,
    contracts=_CONTRACTS,
    rows=Rows(
        dict.fromkeys(("query", "key", "value", "key_start", "output", "lse"), 0),
        by_place=lambda case: bool(case.get("dropout")),
    ),
    studies=(
        {"batch": 1, "head": 1, "queries": 384, "d_head": 16, "causal": True},
        {"batch": 2, "head": 2, "kv_head": 1, "queries": 40, "keys": 60, "d_head": 16,
         "causal": True, "window": 8},  # No query sees the first keys.
        {"batch": 1, "head": 2, "queries": 40, "d_head": 8, "documents": [10, 20, 10]},
    ),
    extremes=(
        {"batch": 2, "head": 2, "kv_head": 1, "queries": 4, "keys": 6, "d_head": 4,
         "causal": True, "window": 3, "padding": 0.7, "minus_inf": True},
        {"batch": 1, "head": 1, "queries": 7, "d_head": 3, "documents": [3, 0, 2],
         "minus_inf": True},
        {"batch": 1, "head": 1, "queries": 3, "keys": 4, "d_head": 2, "dropout": 0.5},
    ),
    axes=dict.fromkeys(("query", "output"), "batch head query d_head")
    | dict.fromkeys(("key", "value"), "batch kv_head key d_head")
    | {"lse": "batch head query"},
    roundings=8.0,
    exponent="lse",  # a weight is exp(score − lse)
    kept="output",  # delta = d_output · output
    shared_kernels=(
        attention_backward_delta_kernel,
        KEY_VALUE_KERNELS[2],
        attention_backward_query_kernel,
    ),
)  # fmt: skip
