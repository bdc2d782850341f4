"""The twin of softmax, over the last axis."""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.layers import softmax as core_softmax
from ....kernels.layers import softmax as triton_softmax
from ..strategies import any_tensors, sizes
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats


def _softmax_inputs(case: Case, draw: Draw) -> Inputs:
    x = draw.normal(*case["shape"], std=case.get("magnitude", 1.0))
    if case.get("minus_inf"):
        x = draw.sparse_minus_inf(x, share=0.4)
    options: dict[str, Any] = {"scale": case.get("scale", 1.0), "causal": case.get("causal", False)}
    if case.get("key_mask"):
        share = case.get("share", 0.6)
        options["key_mask"] = draw.mask(case["shape"][0], case["shape"][-1], share=share)
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

_CONTRACTS = {
    "softmax_forward_kernel": """
        scores[n_rows, n_keys]; probabilities_ptr[n_rows, n_keys]; masks.key_mask[n_batch, n_keys]
        grid[cdiv(n_rows, cdiv(TILE, BLOCK_KEYS))]
        1 <= n_keys <= BLOCK_KEYS; n_rows == n_batch * masks.rows_per_batch
        masks.rows_per_batch >= 1; 1 <= masks.n_queries
    """,
    "softmax_forward_wide_kernel": """
        scores[n_rows, n_keys]; probabilities_ptr[n_rows, n_keys]; masks.key_mask[n_batch, n_keys]
        grid[n_rows]
        1 <= n_keys <= MOST_COUNTED; n_rows == n_batch * masks.rows_per_batch
        masks.rows_per_batch >= 1; 1 <= masks.n_queries
    """,
    "softmax_backward_kernel": """
        probabilities_ptr[n_rows, n_keys]; d_probabilities[n_rows, n_keys]; d_x_ptr[n_rows, n_keys]
        grid[cdiv(n_rows, cdiv(TILE, BLOCK_KEYS))]
        1 <= n_keys <= BLOCK_KEYS
    """,
    "softmax_backward_wide_kernel": """
        probabilities_ptr[n_rows, n_keys]; d_probabilities[n_rows, n_keys]; d_x_ptr[n_rows, n_keys]
        grid[n_rows]
        1 <= n_keys <= MOST_COUNTED
    """,
}

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
        {
            "shape": [1, 1, 1, _BLOCK + 1], "magnitude": 3.0, "layout": "every_other",
            "d_layout": "every_other", "seed": 4,
        },
        # No key is seen: a mutant survived that divided by the sum, 0.
        {"shape": [1, 1, 1, _BLOCK + 1], "key_mask": True, "share": 0.0, "seed": 5},
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
    contracts=_CONTRACTS,
    rows=Rows(dict.fromkeys(("x", "key_mask", "probabilities"), 0)),
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
)  # fmt: skip
