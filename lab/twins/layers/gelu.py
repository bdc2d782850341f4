"""The twin of GELU."""

import math

from hypothesis import strategies as st

from ....core.layers import gelu as core_gelu
from ....kernels.layers import gelu as triton_gelu
from ..strategies import any_tensors
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats


def _gelu_inputs(case: Case, draw: Draw) -> Inputs:
    x = draw.normal(*case["shape"], std=case.get("magnitude", 1.0))
    return Inputs({"x": x}, {"approximate": case.get("approximate", "tanh")})


def _gelu_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = math.prod(case["shape"])
    return (
        Cost(10 * n, floats(itemsize, x=n), floats(itemsize, result=n)),
        Cost(18 * n, floats(itemsize, x=n, d_result=n), floats(itemsize, d_x=n)),
    )


_CONTRACTS = {
    "gelu_forward_kernel": """
        x_ptr[n_elements]; result_ptr[n_elements]; grid[cdiv(n_elements, BLOCK)]
    """,
    "gelu_backward_kernel": """
        x_ptr[n_elements]; d_result_ptr[n_elements]; d_x_ptr[n_elements]
        grid[cdiv(n_elements, BLOCK)]
    """,
}

gelu = Twin(
    name="gelu",
    forward=core_gelu.gelu_forward,
    backward=core_gelu.gelu_backward,
    kernel=triton_gelu.gelu,
    eager=triton_gelu.gelu_eager,
    arguments=("x",),
    results=("result",),
    cases=st.fixed_dictionaries(
        {
            "shape": st.lists(st.integers(0, 40), min_size=1, max_size=3),
            "approximate": st.sampled_from(core_gelu.APPROXIMATIONS),
            "magnitude": st.sampled_from([1.0, 0.01, 10.0, 1000.0]),
            **any_tensors,
        }
    ),
    corners=tuple({"shape": [5000], "approximate": a} for a in core_gelu.APPROXIMATIONS),
    inputs=_gelu_inputs,
    real=lambda activations: Inputs({"x": activations["up"]}, {"approximate": "tanh"}),
    shapes={
        "gpt2 mlp": {"shape": [8, 1024, 3072]},
        "gpt2 mlp, erf": {"shape": [8, 1024, 3072], "approximate": "erf"},
    },
    cost=_gelu_cost,
    contracts=_CONTRACTS,
    rows=Rows(dict.fromkeys(("x", "result"), 0)),
    studies=({"shape": [4, 750]}, {"shape": [7]}, {"shape": [2, 3, 5], "approximate": "erf"}),
    extremes=tuple({"shape": [3], "approximate": a} for a in core_gelu.APPROXIMATIONS),
    axes=dict.fromkeys(("x", "result"), "batch time feature"),
)
