"""The twin of generalised advantage estimation."""

import math

import numpy as np
from hypothesis import strategies as st

from ....core.rlhf import gae as core_gae
from ....kernels.rlhf import gae as triton_gae
from ..strategies import any_tensors
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats
from .rollout import ROLLOUT, batches, shares


def _gae_inputs(case: Case, draw: Draw) -> Inputs:
    std = case.get("magnitude", 1.0)
    return Inputs(
        {
            "rewards": draw.normal(*case["shape"], std=std),
            "values": draw.normal(*case["shape"], std=std),
        },
        {
            "mask": draw.mask(*case["shape"], share=case.get("share", 0.7)),
            "gamma": case.get("gamma", 1.0),
            "lam": case.get("lam", 0.95),
        },
    )


def _gae_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = math.prod(case["shape"])
    mask = {"mask": n}
    d_results = floats(itemsize, d_advantages=n, d_returns=n) | mask
    # δ (3), the recurrence (2), the returns (1); its transpose and two gradients
    return (
        Cost(
            6 * n,
            floats(itemsize, rewards=n, values=n) | mask,
            floats(itemsize, advantages=n, returns=n),
        ),
        Cost(7 * n, d_results, floats(itemsize, d_rewards=n, d_values=n)),
    )


_GAE_BLOCK = triton_gae.MAX_BLOCK

_CONTRACTS = {
    "gae_forward_kernel": """
        rewards_ptr[n_batch, n_time]; values_ptr[n_batch, n_time]; mask_ptr[n_batch, n_time]
        advantages_ptr[n_batch, n_time]; returns_ptr[n_batch, n_time]
        grid[n_batch]; 1 <= n_time <= MOST_COUNTED
    """,
    "gae_backward_kernel": """
        mask_ptr[n_batch, n_time]; d_advantages_ptr[n_batch, n_time]; d_returns_ptr[n_batch, n_time]
        d_rewards_ptr[n_batch, n_time]; d_values_ptr[n_batch, n_time]
        grid[n_batch]; 1 <= n_time <= MOST_COUNTED
    """,
}

gae = Twin(
    name="gae",
    forward=core_gae.gae_forward,
    backward=core_gae.gae_backward,
    kernel=triton_gae.gae,
    eager=triton_gae.gae_eager,
    arguments=("rewards", "values"),
    results=("advantages", "returns"),
    cases=st.fixed_dictionaries(
        {
            # Rows of several blocks are slow in eager, so only the corners have them.
            "shape": batches((0, 3), (1, 70), (100, 300)),
            "magnitude": st.sampled_from([1.0, 1e-3, 1e6]),
            "share": shares,
            "gamma": st.sampled_from([1.0, 0.99, 0.0]),
            "lam": st.sampled_from([0.95, 1.0, 0.0, 0.5]),
            **any_tensors,
        }
    ),
    corners=(
        {"shape": [3, 2 * _GAE_BLOCK + 5], "gamma": 0.99, "seed": 1},
        # Tokens are so rare that whole blocks are masked.
        {"shape": [4, 2 * _GAE_BLOCK + 1], "share": 0.001, "seed": 2},
        {"shape": [2, _GAE_BLOCK + 1], "share": 1.0, "lam": 1.0, "seed": 3},
    ),
    inputs=_gae_inputs,
    real=lambda a: Inputs(
        {"rewards": a["projected"][0].T[:8], "values": a["embedded"][0].T[:8]},
        {"mask": np.arange(a["embedded"].shape[1])[None] >= 5 * np.arange(8)[:, None]},
    ),
    shapes={
        "rollout": {"shape": ROLLOUT},
        "long episodes": {"shape": [64, 8192], "gamma": 0.99},
        "wide and short": {"shape": [4096, 128]},
    },
    cost=_gae_cost,
    contracts=_CONTRACTS,
    rows=Rows(dict.fromkeys(("rewards", "values", "mask", "advantages", "returns"), 0)),
    studies=tuple(
        {"shape": shape, "share": 1.0} for shape in ([2, 2 * _GAE_BLOCK + 5], [3, 20], [1, 1])
    ),
    extremes=tuple({"shape": [2, 5], "lam": lam, "gamma": g} for lam, g in ((0.9, 0.9), (0, 1))),
    axes=dict.fromkeys(("rewards", "values", "mask", "advantages", "returns"), "batch time"),
    dtypes=("float32",),
)
