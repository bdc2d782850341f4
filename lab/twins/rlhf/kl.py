"""The twin of the estimated KL divergence of sampled tokens."""

import math
from typing import Any

from hypothesis import strategies as st

from ....core.rlhf import kl as core_kl
from ....kernels.rlhf import kl as triton_kl
from ..strategies import any_tensors
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats
from .rollout import ROLLOUT, batches, estimators, log_probs, real_log_probs, shares


def _kl_inputs(case: Case, draw: Draw) -> Inputs:
    log_prob, reference = log_probs(case, draw)
    return Inputs(
        {"log_prob": log_prob, "reference_log_prob": reference},
        {
            "mask": draw.mask(*case["shape"], share=case.get("share", 0.7)),
            "estimator": case.get("estimator", "k1"),
        },
    )


def _kl_real(a: dict[str, Any]) -> Inputs:
    log_prob, reference, mask = real_log_probs(a)
    return Inputs(
        {"log_prob": log_prob, "reference_log_prob": reference}, {"mask": mask, "estimator": "k3"}
    )


def kl_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    """Count the estimate of each token, response or not."""
    n = math.prod(case["shape"])
    flops = {"k1": 1, "k2": 3, "k3": 4}[case.get("estimator", "k1")]
    reads = floats(itemsize, log_prob=n, reference_log_prob=n) | {"mask": n}
    gradients = floats(itemsize, d_log_prob=n, d_reference_log_prob=n)
    return (
        Cost(flops * n, reads, floats(itemsize, kl=n)),
        Cost((flops + 1) * n, reads | floats(itemsize, d_kl=n), gradients),
    )


_CONTRACTS = {
    "kl_forward_kernel": """
        log_prob_ptr[n_elements]; reference_ptr[n_elements]; mask_ptr[n_elements]
        kl_ptr[n_elements]; grid[cdiv(n_elements, BLOCK)]
    """,
    "kl_backward_kernel": """
        log_prob_ptr[n_elements]; reference_ptr[n_elements]; mask_ptr[n_elements]
        d_kl_ptr[n_elements]; d_log_prob_ptr[n_elements]; d_reference_ptr[n_elements]
        grid[cdiv(n_elements, BLOCK)]
    """,
}

kl = Twin(
    name="kl",
    forward=core_kl.kl_forward,
    backward=core_kl.kl_backward,
    kernel=triton_kl.kl,
    eager=triton_kl.kl_eager,
    arguments=("log_prob", "reference_log_prob"),
    results=("kl",),
    cases=st.fixed_dictionaries(
        {
            "shape": batches((0, 40), (1000, 1500)),
            "gap": st.sampled_from([1.0, 1e-4, 0.1, 10.0]),
            "share": shares,
            "estimator": estimators,
            **any_tensors,
        }
    ),
    corners=(
        *(
            {"shape": [3, 1500], "estimator": e, "gap": gap, "seed": 1}
            for e in core_kl.ESTIMATORS
            for gap in (1.0, 1e-4)
        ),
        # The last terms of k3's series count here alone: mutants of them survived.
        {"shape": [3, 1500], "estimator": "k3", "gap": 0.15, "certain": True, "seed": 2},
    ),
    inputs=_kl_inputs,
    real=_kl_real,
    shapes={
        "rollout, k1": {"shape": ROLLOUT},
        "rollout, k3": {"shape": ROLLOUT, "estimator": "k3"},
        "minibatch, k2": {"shape": [64, 1024], "estimator": "k2"},
    },
    cost=kl_cost,
    contracts=_CONTRACTS,
    rows=Rows(dict.fromkeys(("log_prob", "reference_log_prob", "mask", "kl"), 0)),
    studies=(
        {"shape": [3, 900], "share": 1.0},
        {"shape": [2, 30], "share": 1.0, "estimator": "k2"},
        {"shape": [1, 1], "share": 1.0, "estimator": "k3"},
    ),
    extremes=tuple({"shape": [2, 4], "estimator": e} for e in core_kl.ESTIMATORS),
    axes=dict.fromkeys(("log_prob", "reference_log_prob", "mask", "kl"), "batch time"),
    dtypes=("float32",),
)
