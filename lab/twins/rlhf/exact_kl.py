"""The twin of the KL divergence over the whole vocabulary."""

import numpy as np
from hypothesis import strategies as st

from ....core.rlhf import exact_kl as core_exact_kl
from ....kernels.rlhf import exact_kl as triton_exact_kl
from ..strategies import any_tensors, sizes
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats
from .rollout import shares


def _exact_kl_inputs(case: Case, draw: Draw) -> Inputs:
    rows, vocab = case["rows"], case["vocab"]
    x = draw.normal(rows, vocab, std=case.get("magnitude", 1.0), mean=case.get("offset", 0.0))
    y = draw.normal(rows, vocab, std=case.get("magnitude", 1.0))
    if case.get("minus_inf"):  # The reference has few, for each makes its row infinite.
        x = draw.sparse_minus_inf(x, share=0.4)
        y = draw.sparse_minus_inf(y, share=0.02)
    if case.get("nan") and isinstance(x, np.ndarray):
        x = np.where(np.arange(vocab) == vocab // 2, np.nan, x)
    return Inputs(
        {"logits": x, "reference_logits": y},
        {"mask": draw.mask(rows, share=case.get("share", 0.8))},
    )


def _exact_kl_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n, rows = case["rows"] * case["vocab"], case["rows"]
    logits = floats(itemsize, logits=n, reference_logits=n)
    gradients = floats(itemsize, d_logits=n, d_reference_logits=n)
    # forward, a token: 2 maxima, 3 subtractions, 2 exponentials, 1 product, 3 sums
    return (
        Cost(11 * n, logits | {"mask": rows}, {"kl": 4 * rows}),
        # saved: two maxima, two sums and the divergence of each row
        Cost(12 * n, logits | {"saved": 20 * rows, "d_kl": 4 * rows}, gradients),
    )


_VOCAB_BLOCK = triton_exact_kl.MAX_BLOCK

_CONTRACTS = {
    "exact_kl_forward_kernel": """
        x[n_rows, n_keys]; y[n_rows, n_keys]; mask_ptr[n_rows]; kl_ptr[n_rows]; kept_ptr[n_rows, 5]
        grid[cdiv(n_rows, cdiv(TILE, BLOCK_KEYS))]; 1 <= n_keys <= MOST_COUNTED
    """,
    "exact_kl_backward_kernel": """
        x[n_rows, n_keys]; y[n_rows, n_keys]; kept_ptr[n_rows, 5]; d_kl_ptr[n_rows]
        d_x_ptr[n_rows, n_keys]; d_y_ptr[n_rows, n_keys]
        grid[cdiv(n_rows, cdiv(TILE, BLOCK_KEYS)), cdiv(n_keys, BLOCK_KEYS)]
    """,
}

exact_kl = Twin(
    name="exact_kl",
    forward=core_exact_kl.exact_kl_forward,
    backward=core_exact_kl.exact_kl_backward,
    kernel=triton_exact_kl.exact_kl,
    eager=triton_exact_kl.exact_kl_eager,
    arguments=("logits", "reference_logits"),
    results=("kl",),
    cases=st.fixed_dictionaries(
        {
            "rows": st.integers(0, 5),
            "vocab": sizes((1, 40), (41, 600), (_VOCAB_BLOCK - 1, 2 * _VOCAB_BLOCK + 100)),
            "magnitude": st.sampled_from([1.0, 0.01, 30.0]),
            "offset": st.sampled_from([0.0, 100.0]),
            "minus_inf": st.booleans(),
            "share": shares,
            **any_tensors,
        }
    ),
    corners=(
        {"rows": 37, "vocab": 77, "minus_inf": True, "seed": 1},
        # impossible tokens of which the policy's probability underflows
        {"rows": 80, "vocab": 9, "minus_inf": True, "magnitude": 100.0, "seed": 3},
        {"rows": 40, "vocab": 50, "minus_inf": True, "nan": True, "seed": 4},
        {"rows": 3, "vocab": 2 * _VOCAB_BLOCK + 1, "share": 1.0, "magnitude": 3.0, "seed": 2},
    ),
    inputs=_exact_kl_inputs,
    real=lambda a: Inputs(
        {"logits": a["up"], "reference_logits": 0.8 * a["up"] + 0.2},
        {"mask": np.arange(a["up"].shape[1])[None] >= 8},
    ),
    shapes={
        "gpt2 vocabulary": {"rows": 8192, "vocab": 50257},
        "byte vocabulary": {"rows": 65536, "vocab": 256},
    },
    cost=_exact_kl_cost,
    contracts=_CONTRACTS,
    rows=Rows(dict.fromkeys(("logits", "reference_logits", "mask", "kl"), 0)),
    studies=(
        {"rows": 40, "vocab": 60, "share": 1.0},
        {"rows": 2, "vocab": 2 * _VOCAB_BLOCK + 1, "share": 1.0},
        {"rows": 1, "vocab": 3, "share": 1.0},
    ),
    extremes=({"rows": 4, "vocab": 3, "share": 0.6, "seed": 1},),
    axes=dict.fromkeys(("logits", "reference_logits"), "row token") | {"mask": "row", "kl": "row"},
)
