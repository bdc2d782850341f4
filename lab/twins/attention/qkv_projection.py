"""The twin of the QKV projection: from the residual stream to query, key and value."""

from typing import Any

from hypothesis import strategies as st

from ....core.attention import qkv_projection as core_qkv_projection
from ....kernels.attention import qkv_projection as triton_qkv_projection
from ....kernels.attention.qkv_norm import qkv_statistics_kernel
from ....kernels.attention.qkv_projection_backward import (
    qkv_projection_d_rows_kernel,
    qkv_projection_d_weight_kernel,
)
from ....kernels.common.column_sum import column_sum_kernel
from ....kernels.layers.layer_norm import layer_norm_backward_kernel
from ..strategies import any_tensors, sizes
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats

ARGUMENTS = ("x", "w_qkv", "b_qkv", "norm_weight", "norm_bias")


def heads(case: Case) -> tuple[int, int]:
    """Return how many heads there are of queries, and of keys."""
    n_kv_head = case["n_kv_head"]
    return n_kv_head * case.get("group", 1), n_kv_head


def columns(case: Case) -> int:
    """Return how many columns a row of query, key and value has."""
    n_head, n_kv_head = heads(case)
    return (n_head + 2 * n_kv_head) * case["d_head"]


def all_but(argument: str) -> list[str]:
    """List the other arguments."""
    return [name for name in ARGUMENTS if name != argument]


def projection_inputs(case: Case, draw: Draw) -> Inputs:
    """Draw the residual stream and what projects it."""
    (n_head, n_kv_head), d_model, n_columns = heads(case), case["d_model"], columns(case)
    std, mean = case.get("magnitude", 1.0), case.get("offset", 0.0)
    x = draw.normal(case["batch"], case["time"], d_model, std=std, mean=mean)
    tensors = {"x": x, "w_qkv": draw.normal(d_model, n_columns, std=d_model**-0.5)}
    if case.get("bias"):
        tensors["b_qkv"] = draw.normal(n_columns)
    if case.get("norm"):
        tensors["norm_weight"] = draw.normal(d_model, mean=1.0)
        tensors["norm_bias"] = draw.normal(d_model)
    return Inputs(tensors, {"n_head": n_head, "n_kv_head": n_kv_head})


def projection_real(a: dict[str, Any]) -> Inputs:
    """Take the residual stream of a block over real text."""
    tensors = {name: a[name] for name in ARGUMENTS[1:]}
    return Inputs({"x": a["embedded"], **tensors}, {"n_head": a["query"].shape[1]})


def projection_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    """Count the product, and the norm where there is one."""
    rows, d_model, n_columns = case["batch"] * case["time"], case["d_model"], columns(case)
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


projection_sizes = {
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
AXES = {
    "x": "batch time d_model",
    "w_qkv": "d_model column",
    "b_qkv": "column",
    "norm_weight": "d_model",
    "norm_bias": "d_model",
}
# Gradients that come of one product each, asked for alone: mutants that left it out survived.
ASKED_ALONE = ("b_qkv", "norm_weight", "norm_bias")
SMALL_PROJECTION = {
    "batch": 1, "time": 3, "d_model": 5, "n_kv_head": 1, "d_head": 4, "bias": True, "norm": True,
    "seed": 2,
}  # fmt: skip
GPT2 = {"d_model": 768, "n_kv_head": 12, "d_head": 64, "bias": True, "norm": True}


PROJECTION_KERNELS = (
    qkv_statistics_kernel,
    qkv_projection_d_rows_kernel,
    qkv_projection_d_weight_kernel,
    layer_norm_backward_kernel,
    column_sum_kernel,
)

_CONTRACTS = {
    "qkv_statistics_kernel": """
        x[n_rows, n_features]; mean_ptr[n_rows]; mean_rest_ptr[n_rows]; rstd_ptr[n_rows]
        grid[cdiv(n_rows, BLOCK_ROWS)]; 1 <= n_features <= MOST_COUNTED
    """,
    "qkv_projection_kernel": """
        x[n_rows, d_model]; weight[d_model, n_columns]; bias[n_columns]
        packed_ptr[n_columns // D_HEAD, n_rows, D_HEAD]; norm.weight[d_model]; norm.bias[d_model]
        norm.mean[n_rows]; norm.mean_rest[n_rows]; norm.rstd[n_rows]
        grid[cdiv(n_rows, BLOCK_M) * cdiv(n_columns, BLOCK_N)]
        n_columns % D_HEAD == 0
        n_rows <= MOST_COUNTED; n_columns <= MOST_COUNTED; d_model <= MOST_COUNTED
    """,
    "qkv_projection_d_rows_kernel": """
        d_packed_ptr[n_columns // D_HEAD, n_rows, D_HEAD]
        weight[d_model, n_columns]; d_rows_ptr[n_rows, d_model]
        grid[cdiv(n_rows, BLOCK_M) * cdiv(d_model, BLOCK_N)]
        n_columns % D_HEAD == 0
        n_rows <= MOST_COUNTED; n_columns <= MOST_COUNTED; d_model <= MOST_COUNTED
    """,
    "qkv_projection_d_weight_kernel": """
        x[n_rows, d_model]; d_packed_ptr[n_columns // D_HEAD, n_rows, D_HEAD]
        d_weight_ptr[d_model, n_columns]; d_bias_ptr[n_columns]
        norm.weight[d_model]; norm.bias[d_model]
        norm.mean[n_rows]; norm.mean_rest[n_rows]; norm.rstd[n_rows]
        grid[cdiv(d_model, BLOCK_M) * cdiv(n_columns, BLOCK_N)]
        n_columns % D_HEAD == 0; 1 <= d_model <= MOST_COUNTED
        n_rows <= MOST_COUNTED; n_columns <= MOST_COUNTED
    """,
}

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
            **projection_sizes,
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
        # And what the mean's rounding leaves over is as large as the numbers' spread.
        {
            "batch": 1, "time": 8, "d_model": 5, "n_kv_head": 1, "d_head": 4, "norm": True,
            "magnitude": 1e21, "offset": 3e27, "seed": 5,
        },
        *(SMALL_PROJECTION | {"frozen": all_but(name)} for name in ASKED_ALONE),
    ),
    inputs=projection_inputs,
    real=projection_real,
    shapes={
        "gpt2": {"batch": 8, "time": 1024, **GPT2},
        "grouped, no norm": {
            "batch": 4, "time": 2048, "d_model": 2048, "n_kv_head": 8, "group": 4, "d_head": 64,
        },
    },
    cost=projection_cost,
    contracts=_CONTRACTS,
    rows=Rows({"x": 0, "packed": 1}),
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
    axes=AXES | {"packed": "head batch time d_head"},
    shared_kernels=PROJECTION_KERNELS,
)  # fmt: skip
