"""The twin of the rewards of tokens: the score at the end, KL all along."""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.rlhf import token_rewards as core_token_rewards
from ....kernels.rlhf import token_rewards as triton_token_rewards
from ..strategies import any_tensors
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats
from .kl import kl_cost
from .rollout import ROLLOUT, batches, estimators, log_probs, real_log_probs


def _token_rewards_inputs(case: Case, draw: Draw) -> Inputs:
    log_prob, reference = log_probs(case, draw)
    batch, rule = case["shape"][0], case.get("missing_end")
    options: dict[str, Any] = {
        "mask": draw.mask(*case["shape"], share=case.get("share", 0.7)),
        "beta": case.get("beta", 0.02),
        "estimator": case.get("estimator", "k1"),
        "missing_end": rule,
    }
    if rule:
        options["ended"] = draw.mask(batch, share=0.5)
    return Inputs(
        {
            "log_prob": log_prob,
            "reference_log_prob": reference,
            "scores": draw.normal(batch, std=3.0),
        },
        options,
    )


def _token_rewards_real(a: dict[str, Any]) -> Inputs:
    log_prob, reference, mask = real_log_probs(a)
    return Inputs(
        {
            "log_prob": log_prob,
            "reference_log_prob": reference,
            "scores": a["embedded"][:, -1, 0],
        },
        {"mask": mask, "beta": 0.02, "ended": np.array([False]), "missing_end": "penalise"},
    )


def _token_rewards_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    forward, backward = kl_cost(case, itemsize)
    n, batch = math.prod(case["shape"]), case["shape"][0]
    rule, ended = case.get("missing_end"), {"ended": batch}
    reads = floats(itemsize, log_prob=n, reference_log_prob=n) | {"mask": n}
    return (
        Cost(
            forward.flops + 2 * n,
            reads | floats(itemsize, scores=batch) | (ended if rule else {}),
            floats(itemsize, rewards=n),
        ),
        Cost(
            backward.flops + n,
            # Backward reads it only where the rule takes a score away.
            reads | floats(itemsize, d_rewards=n) | (ended if rule == "replace" else {}),
            backward.writes | floats(itemsize, d_scores=batch),
        ),
    )


_REWARDS_BLOCK = triton_token_rewards.MAX_BLOCK

_CONTRACTS = {
    "token_rewards_forward_kernel": """
        log_prob_ptr[n_batch, n_time]; reference_ptr[n_batch, n_time]; mask_ptr[n_batch, n_time]
        scores_ptr[n_batch]; ended_ptr[n_batch]; rewards_ptr[n_batch, n_time]
        grid[n_batch]; 1 <= n_time <= MOST_COUNTED
    """,
    "token_rewards_backward_kernel": """
        log_prob_ptr[n_batch, n_time]; reference_ptr[n_batch, n_time]; mask_ptr[n_batch, n_time]
        ended_ptr[n_batch]; d_rewards_ptr[n_batch, n_time]; d_scores_ptr[n_batch]
        d_log_prob_ptr[n_batch, n_time]; d_reference_ptr[n_batch, n_time]
        grid[n_batch]; 0 <= n_time <= MOST_COUNTED
    """,
}

token_rewards = Twin(
    name="token_rewards",
    forward=core_token_rewards.token_rewards_forward,
    backward=core_token_rewards.token_rewards_backward,
    kernel=triton_token_rewards.token_rewards,
    eager=triton_token_rewards.token_rewards_eager,
    arguments=("log_prob", "reference_log_prob", "scores"),
    results=("rewards",),
    cases=st.fixed_dictionaries(
        {
            "shape": batches((0, 3), (1, 70), (_REWARDS_BLOCK - 1, 2 * _REWARDS_BLOCK + 5)),
            "gap": st.sampled_from([1.0, 1e-3]),
            "share": st.sampled_from([0.0, 0.001, 0.5, 1.0]),
            "beta": st.sampled_from([0.02, 0.0, 1.0]),
            "estimator": estimators,
            "missing_end": st.sampled_from(core_token_rewards.MISSING_END_RULES),
            **any_tensors,
        }
    ),
    corners=(
        {"shape": [3, 2 * _REWARDS_BLOCK + 5], "missing_end": "replace", "seed": 1},
        # Most rows' last token lies in an earlier block than the row's end.
        {
            "shape": [5, 3 * _REWARDS_BLOCK], "share": 0.001, "missing_end": "penalise",
            "estimator": "k3", "seed": 2,
        },
        {"shape": [5, 20], "estimator": "k2", "seed": 3},
        {"shape": [9, 20], "missing_end": "replace", "seed": 4},  # Some ended, some did not.
    ),
    inputs=_token_rewards_inputs,
    real=_token_rewards_real,
    shapes={
        "rollout": {"shape": ROLLOUT, "missing_end": "replace"},
        "rollout, k3": {"shape": ROLLOUT, "estimator": "k3", "missing_end": "penalise"},
    },
    cost=_token_rewards_cost,
    contracts=_CONTRACTS,
    rows=Rows(
        dict.fromkeys(("log_prob", "reference_log_prob", "mask", "rewards"), 0)
        | dict.fromkeys(("scores", "ended"), 0)
    ),
    studies=(
        {"shape": [3, 40], "share": 1.0, "missing_end": "replace"},
        {"shape": [2, _REWARDS_BLOCK + 5], "share": 1.0, "estimator": "k3"},
        {"shape": [1, 1], "share": 1.0, "missing_end": "penalise"},
    ),
    extremes=(
        {"shape": [4, 3], "missing_end": "replace", "seed": 4},
        {"shape": [2, 3], "estimator": "k3", "missing_end": "penalise"},
    ),
    axes=dict.fromkeys(("log_prob", "reference_log_prob", "mask", "rewards"), "batch time")
    | {"scores": "batch", "ended": "batch"},
    dtypes=("float32",),
)  # fmt: skip
