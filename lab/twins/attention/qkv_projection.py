"""The twins from the residual stream to the attended heads: QKV projection, QKV attention."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...core.attention import qkv_attention as core_qkv_attention
from ...core.attention import qkv_projection as core_qkv_projection
from ...kernels.attention import qkv_attention as triton_qkv_attention
from ...kernels.attention import qkv_projection as triton_qkv_projection
from ...kernels.attention.attention import attention_forward_kernel
from ...kernels.attention.attention_backward import (
    attention_backward_delta_kernel,
    attention_backward_query_kernel,
)
from ...kernels.attention.attention_backward_keys import KEY_VALUE_KERNELS
from ...kernels.attention.qkv_attention_short import qkv_attention_short_kernel
from ...kernels.attention.qkv_norm import qkv_statistics_kernel
from ...kernels.attention.qkv_projection import qkv_projection_kernel
from ...kernels.attention.qkv_projection_backward import (
    qkv_projection_d_rows_kernel,
    qkv_projection_d_weight_kernel,
)
from ...kernels.common.column_sum import column_sum_kernel
from ...kernels.layers.layer_norm import layer_norm_backward_kernel
from .strategies import any_tensors, sizes
from .twin import Case, Cost, Draw, Inputs, Twin, floats

ARGUMENTS = ("x", "w_qkv", "b_qkv", "norm_weight", "norm_bias")


def _heads(case: Case) -> tuple[int, int]:
    """Return how many heads there are of queries, and of keys."""
    n_kv_head = case["n_kv_head"]
    return n_kv_head * case.get("group", 1), n_kv_head


def _columns(case: Case) -> int:
    n_head, n_kv_head = _heads(case)
    return (n_head + 2 * n_kv_head) * case["d_head"]


def _projection_inputs(case: Case, draw: Draw) -> Inputs:
    (n_head, n_kv_head), d_model, n_columns = _heads(case), case["d_model"], _columns(case)
    std, mean = case.get("magnitude", 1.0), case.get("offset", 0.0)
    x = draw.normal(case["batch"], case["time"], d_model, std=std, mean=mean)
    tensors = {"x": x, "w_qkv": draw.normal(d_model, n_columns, std=d_model**-0.5)}
    if case.get("bias"):
        tensors["b_qkv"] = draw.normal(n_columns)
    if case.get("norm"):
        tensors["norm_weight"] = draw.normal(d_model, mean=1.0)
        tensors["norm_bias"] = draw.normal(d_model)
    return Inputs(tensors, {"n_head": n_head, "n_kv_head": n_kv_head})


def _projection_real(a: dict[str, Any]) -> Inputs:
    tensors = {name: a[name] for name in ARGUMENTS[1:]}
    return Inputs({"x": a["embedded"], **tensors}, {"n_head": a["query"].shape[1]})


def _projection_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    rows, d_model, n_columns = case["batch"] * case["time"], case["d_model"], _columns(case)
    x, weight, packed = rows * d_model, d_model * n_columns, rows * n_columns
    product = 2 * rows * d_model * n_columns
    norm = bool(case.get("norm"))
    bias = {"b_qkv": n_columns} if case.get("bias") else {}
    vectors = {"norm_weight": d_model, "norm_bias": d_model} if norm else {}
    arguments = floats(itemsize, x=x, w_qkv=weight, **vectors)
    b_qkv = floats(itemsize, **bias)
    gradients = {f"d_{name}": size for name, size in (arguments | b_qkv).items()}
    saved = {"saved": 12 * rows * norm}  # the norm's statistics
    return (
        # the norm: mean, centre, square, sum, scale, weight, bias
        Cost(product + 7 * x * norm, arguments | b_qkv, floats(itemsize, packed=packed)),
        Cost(
            2 * product + 11 * x * norm,
            arguments | saved | floats(itemsize, d_packed=packed),
            gradients,
        ),
    )


_sizes = {
    "batch": st.integers(0, 3),
    "time": sizes((0, 3), (1, 70)),
    "d_model": sizes((1, 5), (6, 140)),
    "n_kv_head": st.integers(1, 3),
    "group": st.sampled_from([1, 1, 2, 3]),
    "d_head": st.one_of(st.integers(1, 8), st.sampled_from([16, 24, 32, 40, 59])),
    "bias": st.booleans(),
    "norm": st.booleans(),
    **any_tensors,
}
_AXES = {
    "x": "batch time d_model",
    "w_qkv": "d_model column",
    "b_qkv": "column",
    "norm_weight": "d_model",
    "norm_bias": "d_model",
}
_GPT2 = {"d_model": 768, "n_kv_head": 12, "d_head": 64, "bias": True, "norm": True}

# --- qkv_projection ------------------------------------------------------------------------------

_projection_kernels = (
    qkv_statistics_kernel,
    qkv_projection_d_rows_kernel,
    qkv_projection_d_weight_kernel,
    layer_norm_backward_kernel,
    column_sum_kernel,
)

qkv_projection = Twin(
    name="qkv_projection",
    forward=core_qkv_projection.qkv_projection_forward,
    backward=core_qkv_projection.qkv_projection_backward,
    kernel=triton_qkv_projection.qkv_projection,
    eager=triton_qkv_projection.qkv_projection_eager,
    arguments=ARGUMENTS,
    results=("packed",),
    cases=st.fixed_dictionaries(
        {
            **_sizes,
            "magnitude": st.sampled_from([1.0, 0.001, 100.0]),
            "offset": st.sampled_from([0.0, 0.0, 10.0]),
        }
    ),
    corners=(
        # heads that no block's edge falls between, several blocks of every axis
        {
            "batch": 3, "time": 67, "d_model": 140, "n_kv_head": 2, "group": 2, "d_head": 40,
            "bias": True, "norm": True, "seed": 1,
        },
        {"batch": 2, "time": 9, "d_model": 5, "n_kv_head": 1, "group": 3, "d_head": 3, "seed": 2},
        # Every sum is of 33: a mutant that stopped early survived where blocks are not full.
        {"batch": 3, "time": 11, "d_model": 33, "n_kv_head": 1, "d_head": 11, "seed": 3},
        # The norm's squares are beyond float32.
        {
            "batch": 1, "time": 3, "d_model": 5, "n_kv_head": 1, "d_head": 4, "norm": True,
            "magnitude": 1e25, "seed": 4,
        },
    ),
    inputs=_projection_inputs,
    real=_projection_real,
    shapes={
        "gpt2": {"batch": 8, "time": 1024, **_GPT2},
        "grouped, no norm": {
            "batch": 4, "time": 2048, "d_model": 2048, "n_kv_head": 8, "group": 4, "d_head": 64,
        },
    },
    cost=_projection_cost,
    studies=(
        {"batch": 1, "time": 150, "d_model": 40, "n_kv_head": 2, "d_head": 32, "bias": True,
         "norm": True},
        {"batch": 2, "time": 9, "d_model": 12, "n_kv_head": 1, "group": 2, "d_head": 8},
        {"batch": 1, "time": 3, "d_model": 5, "n_kv_head": 1, "d_head": 4, "bias": True},
    ),
    extremes=(
        {"batch": 2, "time": 2, "d_model": 3, "n_kv_head": 1, "d_head": 2, "bias": True,
         "norm": True},
    ),
    axes=_AXES | {"packed": "head batch time d_head"},
    shared_kernels=_projection_kernels,
)  # fmt: skip

# --- qkv_attention -------------------------------------------------------------------------------


def _attention_inputs(case: Case, draw: Draw) -> Inputs:
    inputs = _projection_inputs(case, draw)
    options: dict[str, Any] = {"causal": case.get("causal", True)}
    if options["causal"]:
        options["window"] = case.get("window")
    if case.get("padded"):
        options["key_start"] = draw.mask(case["batch"], share=0.6) * 3
    if case.get("documents"):
        time = case["time"]
        # One is of length 0, and the tail belongs to none.
        options["cu_seqlens"] = np.array([0, time // 3, time // 3, time - time // 4])
    if case.get("dropout"):
        options |= {"dropout": case["dropout"], "seed": case.get("seed", 0)}
    if case.get("path"):
        options["force_path"] = case["path"]
    return Inputs(inputs.tensors, inputs.options | options)


def _without_path(operation: Any) -> Any:
    """Drop what says how to run: the reference and eager have one way."""

    def wrapped(*, force_path: str | None = None, **arguments: Any) -> Any:
        return operation(**arguments)

    return wrapped


def _attention_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    """Count every row and key, whatever masks hide.

    The packed buffer is no result; unless one launch does all, backward reads it again.
    """
    forward, backward = _projection_cost(case, itemsize)
    (n_head, n_kv_head), time, d_head = _heads(case), case["time"], case["d_head"]
    rows = case["batch"] * time
    output = rows * n_head * d_head * itemsize
    pairs = case["batch"] * n_head * time * time / (2 if case.get("causal", True) else 1)
    bounds = {"key_start": 8 * case["batch"]} if case.get("padded") else {}
    if case.get("documents"):
        bounds["cu_seqlens"] = 8 * 4
    chosen = case.get("path") or triton_qkv_attention.path(
        time, n_head, n_kv_head, d_head,
        dropout=case.get("dropout", 0.0), documents=case.get("documents", False),
    )  # fmt: skip
    reads, lse = dict(backward.reads), 4 * rows * n_head
    packed, statistics = reads.pop("d_packed"), reads["saved"]
    if chosen == "single":
        reads |= {name: size for name, size in forward.reads.items() if name == "b_qkv"}
    else:
        lse += packed + statistics
    # the bounds as int32: a start for each sequence, two ends for each query
    reads["saved"] = lse + 4 * case["batch"] * ("key_start" in bounds)
    reads["saved"] += 8 * time * ("cu_seqlens" in bounds)
    return (
        Cost(
            forward.flops + int(pairs * (4 * d_head + 4)),
            forward.reads | bounds,
            {"output": output},
        ),
        # attention's five products
        Cost(
            backward.flops + int(pairs * (10 * d_head + 6)),
            reads | {"output": output, "d_output": output},
            backward.writes,
        ),
    )


qkv_attention = Twin(
    name="qkv_attention",
    forward=_without_path(core_qkv_attention.qkv_attention_forward),
    backward=core_qkv_attention.qkv_attention_backward,
    kernel=triton_qkv_attention.qkv_attention,
    eager=_without_path(triton_qkv_attention.qkv_attention_eager),
    arguments=ARGUMENTS,
    results=("output",),
    cases=st.fixed_dictionaries(
        {
            **_sizes,
            "batch": st.integers(0, 2),
            "d_model": sizes((1, 5), (6, 40)),
            "n_kv_head": st.integers(1, 2),
            "d_head": st.one_of(st.integers(1, 8), st.sampled_from([16, 24, 40])),
            "causal": st.sampled_from([True, True, False]),
            "window": st.sampled_from([None, None, 1, 10]),
            "padded": st.booleans(),
            "documents": st.sampled_from([False, False, True]),
            "dropout": st.sampled_from([0.0, 0.0, 0.0, 0.3]),
            "path": st.sampled_from([None, None, "packed"]),
        }
    ),
    corners=(
        {
            "batch": 1, "time": 67, "d_model": 40, "n_kv_head": 1, "group": 2, "d_head": 24,
            "bias": True, "norm": True, "padded": True, "seed": 1,
        },
        {
            "batch": 2, "time": 50, "d_model": 70, "n_kv_head": 2, "d_head": 24,
            "bias": True, "norm": True, "padded": True, "window": 20, "path": "single", "seed": 2,
        },
        {
            "batch": 1, "time": 5, "d_model": 6, "n_kv_head": 1, "d_head": 3,
            "causal": False, "padded": True, "path": "single", "seed": 3,
        },
    ),
    inputs=_attention_inputs,
    real=_projection_real,
    shapes={
        "gpt2": {"batch": 8, "time": 1024, **_GPT2},
        "gpt2, short": {"batch": 64, "time": 64, **_GPT2},
        "grouped, windowed": {
            "batch": 4, "time": 2048, "d_model": 2048, "n_kv_head": 8, "group": 4, "d_head": 64,
            "window": 1024,
        },
    },
    cost=_attention_cost,
    studies=(
        {"batch": 2, "time": 20, "d_model": 40, "n_kv_head": 2, "d_head": 8, "bias": True,
         "norm": True},  # It takes one launch.
        {"batch": 1, "time": 9, "d_model": 12, "n_kv_head": 1, "group": 2, "d_head": 8,
         "bias": True, "norm": True},
        {"batch": 1, "time": 5, "d_model": 6, "n_kv_head": 1, "d_head": 4, "causal": False},
    ),
    extremes=(
        {"batch": 2, "time": 5, "d_model": 3, "n_kv_head": 1, "d_head": 2, "bias": True,
         "norm": True, "padded": True, "path": "single", "values": ["nan"]},
        {"batch": 2, "time": 5, "d_model": 3, "n_kv_head": 1, "d_head": 2, "window": 2,
         "padded": True, "path": "packed", "values": ["nan"]},
    ),
    axes=_AXES | {"output": "batch time feature"},
    roundings=12.0,  # attention's 8 and the projection's 4
    shared_kernels=(
        qkv_projection_kernel,
        *_projection_kernels,
        qkv_attention_short_kernel,
        attention_forward_kernel,
        attention_backward_delta_kernel,
        KEY_VALUE_KERNELS[2],  # with as many configurations as [4]
        attention_backward_query_kernel,
    ),
)  # fmt: skip

TWINS = (qkv_projection, qkv_attention)
