"""The twins of a block's layers, position by position: softmax, layer norm, GELU, linear."""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...core.layers import gelu as core_gelu
from ...core.layers import layer_norm as core_layer_norm
from ...core.layers import linear as core_linear
from ...core.layers import softmax as core_softmax
from ...kernels.common.column_sum import column_sum_kernel
from ...kernels.layers import gelu as triton_gelu
from ...kernels.layers import layer_norm as triton_layer_norm
from ...kernels.layers import linear as triton_linear
from ...kernels.layers import softmax as triton_softmax
from .strategies import any_tensors, sizes
from .twin import Case, Cost, Draw, Inputs, Twin, floats

# --- softmax -------------------------------------------------------------------------------------


def _softmax_inputs(case: Case, draw: Draw) -> Inputs:
    x = draw.normal(*case["shape"], std=case.get("magnitude", 1.0))
    if case.get("minus_inf"):
        x = draw.sparse_minus_inf(x, share=0.4)
    options: dict[str, Any] = {"scale": case.get("scale", 1.0), "causal": case.get("causal", False)}
    if case.get("key_mask"):
        options["key_mask"] = draw.mask(case["shape"][0], case["shape"][-1], share=0.6)
    return Inputs({"x": x}, options)


def _softmax_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    *leading, n_keys = case["shape"]
    n = seen = math.prod(case["shape"])
    if case.get("causal"):
        n_queries = leading.pop()
        last_seen = np.arange(n_queries) + n_keys - n_queries
        seen = math.prod(leading) * int((last_seen + 1).clip(0).sum())
    mask = {"key_mask": case["shape"][0] * n_keys} if case.get("key_mask") else {}
    reads = floats(itemsize, probabilities=n, d_probabilities=n)
    # forward: subtract, scale, exp, sum, divide; backward: multiply, sum, subtract, 2 multiply
    return (
        Cost(5 * n, floats(itemsize, x=seen) | mask, floats(itemsize, probabilities=n)),
        Cost(5 * n, reads, floats(itemsize, d_x=n)),
    )


_BLOCK = triton_softmax.MAX_BLOCK

softmax = Twin(
    name="softmax",
    forward=core_softmax.softmax_forward,
    backward=core_softmax.softmax_backward,
    kernel=triton_softmax.softmax,
    eager=triton_softmax.softmax_eager,
    arguments=("x",),
    results=("probabilities",),
    cases=st.fixed_dictionaries(
        {
            "shape": st.tuples(
                sizes((0, 0), (1, 3), (1, 3)),
                st.integers(1, 2),
                st.integers(1, 6),
                sizes((0, 40), (41, 1200), (_BLOCK - 1, 2 * _BLOCK + 100)),
            ).map(list),
            "scale": st.sampled_from([1.0, 0.125, 3.0]),
            "causal": st.booleans(),
            "key_mask": st.booleans(),
            "minus_inf": st.booleans(),
            "magnitude": st.sampled_from([1.0, 0.001, 100.0, 10000.0]),
            **any_tensors,
        }
    ),
    corners=(
        {"shape": [2, 2, 5, 77], "causal": True, "key_mask": True, "seed": 1},
        {"shape": [1, 1, 2, _BLOCK + 1], "causal": True, "key_mask": True, "seed": 2},
        # Mutants survived without rows of one key, and without a wide row whose last key counts.
        {"shape": [2, 1, 2, 1], "seed": 3},
        {"shape": [1, 1, 1, _BLOCK + 1], "magnitude": 3.0, "seed": 4},
    ),
    inputs=_softmax_inputs,
    real=lambda activations: Inputs(
        {"x": activations["scores"]}, {"scale": activations["scale"].item(), "causal": True}
    ),
    shapes={
        "gpt2 attention scores": {"shape": [8, 12, 1024, 1024], "causal": True, "scale": 0.125},
        "padded batch": {"shape": [8, 12, 1000, 1000], "causal": True, "key_mask": True},
        "widest narrow row": {"shape": [4096, _BLOCK]},
        "gpt2 vocabulary": {"shape": [8192, 50257]},
    },
    cost=_softmax_cost,
    studies=(
        {"shape": [2, 40, 40], "causal": True},
        {"shape": [2, _BLOCK + 100]},
        {"shape": [3, 1, 70], "scale": 0.125},
    ),
    extremes=(
        {"shape": [2, 1, 3, 5], "causal": True, "key_mask": True, "seed": 1},
        {"shape": [1, 1, 2, _BLOCK + 2], "causal": True},
    ),
    axes=dict.fromkeys(("x", "probabilities"), "batch query key") | {"key_mask": "batch key"},
)

# --- layer_norm ----------------------------------------------------------------------------------


def _layer_norm_inputs(case: Case, draw: Draw) -> Inputs:
    shape, std = case["shape"], case.get("magnitude", 1.0)
    # A sum with a mean of many deviations loses its digits when it is stored, in eager PyTorch
    # as here, and the gradient's error is then luck. So only x without a residual has an offset.
    offset = 0.0 if case.get("residual") else case.get("offset", 0.0)
    tensors = {
        "x": draw.normal(*shape, std=std, mean=offset * std),
        "weight": draw.normal(shape[-1], std=0.5, mean=1.0),
        "bias": draw.normal(shape[-1]),
    }
    if case.get("residual"):
        tensors["residual"] = draw.normal(*shape, std=std)
    return Inputs(tensors, {"eps": case.get("eps", 1e-5)})


def _layer_norm_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = math.prod(case["shape"])
    d_model = case["shape"][-1]
    fused = 1 if case.get("residual") else 0
    sum_of = {"residual": n} if fused else {}
    summed = {"summed": n} if fused else {}
    # saved: a mean of two float32 numbers and rstd, for each row
    saved = {"saved": 12 * math.prod(case["shape"][:-1])}
    kept = summed or {"x": n}  # It was normalised; d_residual is d_x itself.
    d_summed = {f"d_{name}": size for name, size in summed.items()}
    # forward: mean, subtract, square, sum, scale, weight, bias (and the residual's addition)
    # backward: x̂ (2), d_y·weight, two means (3), d_x (4), d_weight (2), d_bias (and d_summed's)
    return (
        Cost(
            (7 + fused) * n,
            floats(itemsize, x=n, weight=d_model, bias=d_model, **sum_of),
            floats(itemsize, y=n, **summed),
        ),
        Cost(
            (13 + fused) * n,
            floats(itemsize, weight=d_model, d_y=n, **kept, **d_summed) | saved,
            floats(itemsize, d_x=n, d_weight=d_model, d_bias=d_model),
        ),
    )


_LAYER_NORM_BLOCK = triton_layer_norm.MAX_BLOCK

layer_norm = Twin(
    name="layer_norm",
    forward=core_layer_norm.layer_norm_forward,
    backward=core_layer_norm.layer_norm_backward,
    kernel=triton_layer_norm.layer_norm,
    eager=triton_layer_norm.layer_norm_eager,
    arguments=("x", "weight", "bias", "residual"),
    results=("y", "summed"),
    cases=st.fixed_dictionaries(
        {
            "shape": st.tuples(
                sizes((0, 0), (1, 3), (1, 3)),
                sizes((1, 6), (7, 40)),
                sizes((1, 40), (41, 1200), (_LAYER_NORM_BLOCK - 1, 2 * _LAYER_NORM_BLOCK + 100)),
            )
            # Wide rows are slow in the interpreter, so there are few of them.
            .map(lambda s: [s[0], s[1] if s[2] <= 1200 else min(s[1], 3), s[2]]),
            "residual": st.booleans(),
            "eps": st.sampled_from([1e-5, 1e-3, 1e-8]),
            "magnitude": st.sampled_from([1.0, 0.001, 100.0]),
            "offset": st.sampled_from([0.0, 3.0, 1000.0]),
            **any_tensors,
        }
    ),
    corners=(
        {"shape": [2, 17, 77], "residual": True, "seed": 1},
        # In few features a wrong variance stands out from half precision's rounding.
        {"shape": [40, 5], "seed": 6},
        {"shape": [33, 300], "offset": 1000.0, "seed": 2},
        {"shape": [7, _LAYER_NORM_BLOCK], "residual": True, "seed": 3},
        {"shape": [2, _LAYER_NORM_BLOCK + 1], "residual": True, "seed": 4},
        {"shape": [35, _LAYER_NORM_BLOCK + 8], "seed": 5},
        # The squares are beyond float32.
        {"shape": [4, 20], "magnitude": 1e25, "residual": True, "seed": 7},
        {"shape": [1, _LAYER_NORM_BLOCK + 1], "magnitude": 1e25, "seed": 8},
    ),
    inputs=_layer_norm_inputs,
    real=lambda activations: Inputs(
        {
            "x": activations["embedded"],
            "weight": activations["norm_weight"],
            "bias": activations["norm_bias"],
            "residual": activations["projected"],
        }
    ),
    shapes={
        "gpt2 block": {"shape": [8, 1024, 768], "residual": True},
        "gpt2 final": {"shape": [8, 1024, 768]},
        "d_model 4096": {"shape": [4096, 4096]},
        "d_model 8192": {"shape": [4096, 8192], "residual": True},
        "wide rows": {"shape": [4096, 16384]},
        "odd width": {"shape": [4096, 1111], "residual": True},
    },
    cost=_layer_norm_cost,
    studies=(
        {"shape": [2, 40, 40], "residual": True},
        {"shape": [2, _LAYER_NORM_BLOCK + 100], "residual": True},
        {"shape": [5, 33]},
    ),
    extremes=(
        {"shape": [3, 5]},
        {"shape": [2, 3], "residual": True},
        {"shape": [1, _LAYER_NORM_BLOCK + 1], "values": ["nan"]},
    ),
    axes=dict.fromkeys(("x", "residual", "y", "summed"), "batch time d_model")
    | dict.fromkeys(("weight", "bias"), "d_model"),
    shared_kernels=(column_sum_kernel,),
)

# --- gelu ----------------------------------------------------------------------------------------


def _gelu_inputs(case: Case, draw: Draw) -> Inputs:
    x = draw.normal(*case["shape"], std=case.get("magnitude", 1.0))
    return Inputs({"x": x}, {"approximate": case.get("approximate", "tanh")})


def _gelu_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = math.prod(case["shape"])
    return (
        Cost(10 * n, floats(itemsize, x=n), floats(itemsize, result=n)),
        Cost(18 * n, floats(itemsize, x=n, d_result=n), floats(itemsize, d_x=n)),
    )


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
    studies=({"shape": [4, 750]}, {"shape": [7]}, {"shape": [2, 3, 5], "approximate": "erf"}),
    extremes=tuple({"shape": [3], "approximate": a} for a in core_gelu.APPROXIMATIONS),
    axes=dict.fromkeys(("x", "result"), "batch time feature"),
)

# --- linear --------------------------------------------------------------------------------------


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

TWINS = (softmax, layer_norm, gelu, linear)
