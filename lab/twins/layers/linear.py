"""The twin of the linear layer: a product and a bias."""

from typing import Any

from hypothesis import strategies as st

from ....core.layers import linear as core_linear
from ....kernels.common.column_sum import column_sum_kernel
from ....kernels.layers import linear as triton_linear
from ..strategies import any_tensors, sizes
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats


def _linear_forward(*, precision: str, **arguments: Any) -> Any:
    """Run the reference, which knows no reduced precision."""
    return core_linear.linear_forward(**arguments)


def _linear_inputs(case: Case, draw: Draw) -> Inputs:
    rows, d_in, d_out = case["rows"], case["d_in"], case["d_out"]
    tensors = {"x": draw.normal(rows, d_in), "weight": draw.normal(d_in, d_out, std=0.3)}
    if case.get("bias"):
        tensors["bias"] = draw.normal(d_out)
    if case.get("residual"):
        tensors["residual"] = draw.normal(rows, d_out)
    return Inputs(
        tensors,
        {"activation": case.get("activation"), "precision": case.get("precision", "ieee")},
    )


def _linear_real(activations: dict[str, Any]) -> Inputs:
    tensors = {"x": activations["normed"], "weight": activations["w_up"]}
    tensors["bias"] = activations["b_up"]
    return Inputs(tensors, {"activation": "gelu", "precision": "ieee"})


def _linear_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    rows, d_in, d_out = case["rows"], case["d_in"], case["d_out"]
    x, weight, y = rows * d_in, d_in * d_out, rows * d_out
    product = 2 * rows * d_in * d_out
    bias = {"bias": d_out} if case.get("bias") else {}
    residual = {"residual": y} if case.get("residual") else {}
    saved = {"saved": y} if case.get("activation") else {}  # The activation was taken of u.
    d_bias = {f"d_{name}": size for name, size in bias.items()}  # d_residual is d_y itself.
    return (
        Cost(
            product,
            floats(itemsize, x=x, weight=weight, **bias, **residual),
            floats(itemsize, y=y),
        ),
        Cost(
            2 * product,
            floats(itemsize, x=x, weight=weight, d_y=y, **saved),
            floats(itemsize, d_x=x, d_weight=weight, **d_bias),
        ),
    )


_CONTRACTS = {
    "matmul_kernel": """
        a[n_rows, n_inner]; b[n_inner, n_columns]; bias[n_columns]; residual[n_rows, n_columns]
        result_ptr[n_rows, n_columns]; pre_activation_ptr[n_rows, n_columns]
        grid[cdiv(n_rows, BLOCK_M) * cdiv(n_columns, BLOCK_N)]
        n_rows <= MOST_COUNTED; n_columns <= MOST_COUNTED; n_inner <= MOST_COUNTED
    """,
    "linear_backward_activation_kernel": """
        d_y[n_rows, n_columns]; pre_activation_ptr[n_rows, n_columns]; d_u_ptr[n_rows, n_columns]
        d_bias_partial_ptr[cdiv(n_rows, ROWS_PER_PROGRAM), n_columns]
        grid[cdiv(n_columns, BLOCK_COLUMNS), cdiv(n_rows, ROWS_PER_PROGRAM)]
    """,
    "column_sum_kernel": """
        x[n_rows, n_columns]; sums_ptr[max(1, cdiv(n_rows, ROWS_PER_PROGRAM)), n_columns]
        grid[cdiv(n_columns, BLOCK_COLUMNS), max(1, cdiv(n_rows, ROWS_PER_PROGRAM))]
    """,
}

linear = Twin(
    name="linear",
    forward=_linear_forward,
    backward=core_linear.linear_backward,
    kernel=triton_linear.linear,
    eager=triton_linear.linear_eager,
    arguments=("x", "weight", "bias", "residual"),
    results=("y",),
    cases=st.fixed_dictionaries(
        {
            "rows": sizes((0, 3), (1, 70), (120, 300)),
            "d_in": sizes((1, 3), (1, 70), (100, 200)),
            "d_out": sizes((1, 3), (1, 70), (100, 200)),
            "bias": st.booleans(),
            "activation": st.sampled_from([None, "gelu"]),
            "residual": st.booleans(),
            "precision": st.sampled_from(triton_linear.PRECISIONS),
            **any_tensors,
        }
    ),
    corners=(
        # more rows than one program sums for d_bias, with and without an activation before it
        {"rows": 300, "d_in": 70, "d_out": 130, "bias": True, "residual": True},
        {"rows": 270, "d_in": 65, "d_out": 17, "bias": True, "activation": "gelu"},
        # Ten rows of tiles: a mutant survived that got the second group of eight wrong.
        {"rows": 578, "d_in": 3, "d_out": 40, "seed": 1},
    ),
    inputs=_linear_inputs,
    real=_linear_real,
    shapes={
        "gpt2 qkv": {"rows": 8192, "d_in": 768, "d_out": 2304, "bias": True},
        "gpt2 mlp up": {
            "rows": 8192, "d_in": 768, "d_out": 3072, "bias": True, "activation": "gelu",
        },
        "gpt2 mlp down, tf32": {
            "rows": 8192, "d_in": 3072, "d_out": 768, "bias": True, "residual": True,
            "precision": "tf32",
        },
    },
    cost=_linear_cost,
    contracts=_CONTRACTS,
    rows=Rows(dict.fromkeys(("x", "residual", "y"), 0)),
    studies=(
        # Nine rows of tiles are more than one group.
        {"rows": 576, "d_in": 40, "d_out": 64, "bias": True, "configuration": 2},
        {"rows": 40, "d_in": 33, "d_out": 50, "bias": True, "activation": "gelu",
         "residual": True},
        {"rows": 3, "d_in": 5, "d_out": 7, "residual": True},
    ),
    extremes=(
        {"rows": 3, "d_in": 2, "d_out": 4, "bias": True, "activation": "gelu"},
        {"rows": 3, "d_in": 2, "d_out": 4, "bias": True, "residual": True},
    ),
    axes=dict.fromkeys(("residual", "y"), "row d_out")
    | {"x": "row d_in", "weight": "d_in d_out", "bias": "d_out"},
    shared_kernels=(column_sum_kernel,),
)  # fmt: skip
