"""The twin of the decoder block, which is composed of the other twins' kernels.

Each kernel has a twin of its own with many cases; here few show that they are put together right.
"""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.model import decoder_block as core_decoder_block
from ....core.model.decoder_block import ARGUMENTS
from ....kernels.attention.qkv_attention import path as qkv_path
from ....kernels.common.column_sum import column_sum_kernel
from ....kernels.layers.layer_norm import layer_norm_backward_kernel, layer_norm_forward_kernel
from ....kernels.layers.linear import NARROW_KERNEL, linear_backward_activation_kernel
from ....kernels.model import decoder_block as triton_decoder_block
from ..attention.qkv_attention import qkv_attention
from ..strategies import seeds
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats

NAMES = ("x", *ARGUMENTS)
MASKS = ("window", "key_start", "cu_seqlens")


def _widths(case: Case) -> dict[str, tuple[int, ...]]:
    """Return the parameters' shapes."""
    c, a = case["d_model"], case["n_head"] * case["d_head"]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in (
        ("ln_1", (c,)),
        ("c_attn", (c, 3 * a)),
        ("attn_proj", (a, c)),
        ("ln_2", (c,)),
        ("c_fc", (c, 4 * c)),
        ("mlp_proj", (4 * c, c)),
    ):
        shapes[f"{name}_weight"] = shape
        if case.get("bias", True):
            shapes[f"{name}_bias"] = shape[-1:]
    return shapes


def _bounds(case: Case) -> dict[str, int]:
    """Return the mask that is given in numbers, if one is, and how many they are."""
    numbers = {"key_start": case["batch"], "cu_seqlens": 3}
    return {name: n for name, n in numbers.items() if name == case.get("mask")}


def _block_inputs(case: Case, draw: Draw) -> Inputs:
    batch, time = case["batch"], case["time"]
    tensors = {"x": draw.normal(batch, time, case["d_model"])}
    for name, shape in _widths(case).items():
        is_norm = name in ("ln_1_weight", "ln_2_weight")
        std = 1 / math.sqrt(shape[0]) if len(shape) == 2 else 0.3
        tensors[name] = draw.normal(*shape, std=std, mean=float(is_norm))
    options: dict[str, Any] = {"n_head": case["n_head"], "norm": case.get("norm", "pre")}
    options |= {
        name: None for name in NAMES if name not in tensors
    }  # Biases may be None but not left out.
    if case.get("mask") == "window":
        options["window"] = 3
    for mask, n in _bounds(case).items():
        numbers = np.arange(n) * time // (n + 1)
        drawn = draw.mask(n, share=0.0)  # It is an array or a tensor, on its device.
        options[mask] = numbers if isinstance(drawn, np.ndarray) else drawn.long()
    return Inputs(tensors, options)


def _block_real(a: dict[str, Any]) -> Inputs:
    norm = {"weight": a["norm_weight"], "bias": a["norm_bias"]}
    tensors = {"x": a["embedded"]}
    for name in ("ln_1", "ln_2"):
        tensors |= {f"{name}_{part}": array for part, array in norm.items()}
    for name, letter in (("c_attn", "qkv"), ("attn_proj", "out"), ("c_fc", "up")):
        tensors |= {f"{name}_weight": a[f"w_{letter}"], f"{name}_bias": a[f"b_{letter}"]}
    tensors |= {"mlp_proj_weight": a["w_up"].T / 2, "mlp_proj_bias": a["b_out"]}
    ordered = {name: tensors[name] for name in NAMES}
    return Inputs(ordered, {"n_head": a["query"].shape[1]})


def _block_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    """Count the products, with attention as if it were dense: masks hide nothing."""
    batch, time = case["batch"], case["time"]
    rows, a = batch * time, case["n_head"] * case["d_head"]
    sizes = {name: math.prod(shape) for name, shape in _widths(case).items()}
    matrices = sum(math.prod(shape) for shape in _widths(case).values() if len(shape) == 2)
    flops = 2 * rows * matrices + 4 * batch * time * time * a
    stream = rows * case["d_model"]
    arguments = floats(itemsize, x=stream, **sizes)
    gradients = {f"d_{name}": size for name, size in arguments.items()}
    bounds = {name: 8 * n for name, n in _bounds(case).items()}
    post = case.get("norm") == "post"
    single = qkv_path(time, case["n_head"], case["n_head"], case["d_head"],
                      documents="cu_seqlens" in bounds) == "single"  # fmt: skip
    # Only the first norm is computed again, and only where it stands before the projection; the
    # projection itself if it was no launch of its own.
    biases = ["ln_1_bias"] * (not post) + ["c_attn_bias"] * single
    read_again = {
        name: size
        for name, size in arguments.items()
        if name in biases or not name.endswith("_bias")
    }
    # saved: attention's output; the sum and the norm after it; u and its activation; in a post-norm
    # block the second sum; after a projection of its own, packed queries, keys and values
    saved = rows * ((1 if single else 4) * a + (11 if post else 10) * case["d_model"]) * itemsize
    # lse, and the norms' statistics
    saved += rows * (4 * case["n_head"] + 12 * (1 if single and not post else 2))
    if not post and not case.get("bias", True):
        saved += case["d_model"] * itemsize  # The norm's bias is zeros.
    # the bounds as int32: a start for each sequence, two ends for each query
    saved += 4 * batch * ("key_start" in bounds) + 8 * time * ("cu_seqlens" in bounds)
    return (
        Cost(flops, arguments | bounds, floats(itemsize, y=stream)),
        Cost(2 * flops, read_again | floats(itemsize, d_y=stream) | {"saved": saved}, gradients),
    )


_small = {"batch": 2, "time": 19, "d_model": 24, "n_head": 3, "d_head": 8}

decoder_block = Twin(
    name="decoder_block",
    forward=core_decoder_block.decoder_block_forward,
    backward=core_decoder_block.decoder_block_backward,
    kernel=triton_decoder_block.decoder_block,
    eager=triton_decoder_block.decoder_block_eager,
    arguments=NAMES,
    results=("y",),
    cases=st.fixed_dictionaries(
        {
            "batch": st.integers(1, 2),
            "time": st.integers(1, 20),
            "d_model": st.integers(8, 40),
            "n_head": st.integers(1, 3),
            "d_head": st.sampled_from([4, 8, 16]),
            "norm": st.sampled_from(core_decoder_block.NORMS),
            "bias": st.booleans(),
            "mask": st.sampled_from([None, *MASKS]),
            "seed": seeds,
        }
    ),
    corners=(
        # packed documents take the long path of qkv_attention, the others the short one
        _small | {"norm": "pre", "mask": "cu_seqlens", "seed": 1},
        _small | {"norm": "post", "mask": "window", "seed": 2},
    ),
    inputs=_block_inputs,
    real=_block_real,
    shapes={
        "gpt2 block": {"batch": 8, "time": 1024, "d_model": 768, "n_head": 12, "d_head": 64},
        "short context": {"batch": 256, "time": 64, "d_model": 768, "n_head": 12, "d_head": 64},
    },
    cost=_block_cost,
    rows=Rows(dict.fromkeys(("x", "key_start", "y"), 0)),
    studies=(
        {"batch": 1, "time": 150, "d_model": 40, "n_head": 2, "d_head": 16},
        _small | {"norm": "post"},
        {"batch": 2, "time": 3, "d_model": 8, "n_head": 1, "d_head": 4, "bias": False},
    ),
    extremes=(
        {
            "batch": 2,
            "time": 4,
            "d_model": 4,
            "n_head": 1,
            "d_head": 2,
            "mask": "key_start",
            "values": ["nan"],
        },
        {
            "batch": 1,
            "time": 3,
            "d_model": 4,
            "n_head": 1,
            "d_head": 2,
            "norm": "post",
            "mask": "cu_seqlens",
            "values": ["nan"],
        },
    ),  # Infinities meet zeros in so many products that little is promised of them.
    axes=dict.fromkeys(("x", "y"), "batch time d_model")
    | {name: "in out" if name.endswith("weight") else "out" for name in ARGUMENTS}
    | dict.fromkeys(("ln_1_weight", "ln_2_weight", "ln_1_bias", "ln_2_bias"), "d_model"),
    # x passes through five layers of rounding before it leaves the block.
    roundings=16.0,
    shared_kernels=(
        NARROW_KERNEL,  # its products have more to do than adding a bias
        linear_backward_activation_kernel,
        layer_norm_forward_kernel,
        layer_norm_backward_kernel,
        *qkv_attention.kernels().values(),
        column_sum_kernel,
    ),
)
