"""The twin from the residual stream to the attended heads: QKV projection and attention."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.attention import qkv_attention as core_qkv_attention
from ....kernels.attention import qkv_attention as triton_qkv_attention
from ....kernels.attention.attention import attention_forward_kernel
from ....kernels.attention.attention_backward import (
    attention_backward_delta_kernel,
    attention_backward_query_kernel,
)
from ....kernels.attention.attention_backward_keys import KEY_VALUE_KERNELS
from ....kernels.attention.qkv_attention_short import qkv_attention_short_kernel
from ....kernels.attention.qkv_projection import qkv_projection_kernel
from ..strategies import sizes
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin
from .qkv_projection import (
    ARGUMENTS,
    ASKED_ALONE,
    AXES,
    GPT2,
    PROJECTION_KERNELS,
    SMALL_PROJECTION,
    all_but,
    heads,
    projection_cost,
    projection_inputs,
    projection_real,
    projection_sizes,
)


def _attention_inputs(case: Case, draw: Draw) -> Inputs:
    inputs = projection_inputs(case, draw)
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
    forward, backward = projection_cost(case, itemsize)
    (n_head, n_kv_head), time, d_head = heads(case), case["time"], case["d_head"]
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


_CONTRACTS = {
    "qkv_attention_short_kernel": """
        x[n_batch, n_time, d_model]; weight[d_model, 3 * n_head * D_HEAD]; bias[3 * n_head * D_HEAD]
        norm.weight[d_model]; norm.bias[d_model]; masks.key_start[n_batch]
        output_ptr[n_batch, n_time, n_head, D_HEAD]; lse_ptr[n_batch, n_head, n_time]
        1 <= n_time <= BLOCK_TIME; d_model <= MOST_COUNTED; grid[n_batch * n_head]
    """,
}

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
            **projection_sizes,
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
            "bias": True, "norm": True, "padded": True, "window": 20, "path": "single",
            "layout": "every_other", "d_layout": "every_other", "seed": 2,
        },
        {
            "batch": 1, "time": 5, "d_model": 6, "n_kv_head": 1, "d_head": 3,
            "causal": False, "padded": True, "path": "single", "seed": 3,
        },
        *(
            SMALL_PROJECTION | {"frozen": all_but(name), "path": "single"} for name in ASKED_ALONE
        ),
    ),
    inputs=_attention_inputs,
    real=projection_real,
    shapes={
        "gpt2": {"batch": 8, "time": 1024, **GPT2},
        "gpt2, short": {"batch": 64, "time": 64, **GPT2},
        "grouped, windowed": {
            "batch": 4, "time": 2048, "d_model": 2048, "n_kv_head": 8, "group": 4, "d_head": 64,
            "window": 1024,
        },
    },
    cost=_attention_cost,
    contracts=_CONTRACTS,
    rows=Rows(
        dict.fromkeys(("x", "key_start", "output"), 0),
        by_place=lambda case: bool(case.get("dropout")),
    ),
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
    axes=AXES | {"output": "batch time feature"},
    roundings=12.0,  # attention's 8 and the projection's 4
    shared_kernels=(
        qkv_projection_kernel,
        *PROJECTION_KERNELS,
        qkv_attention_short_kernel,
        attention_forward_kernel,
        attention_backward_delta_kernel,
        KEY_VALUE_KERNELS[2],
        attention_backward_query_kernel,
    ),
)  # fmt: skip
