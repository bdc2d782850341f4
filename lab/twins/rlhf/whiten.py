"""The twin of the whitening of advantages."""

import math

import numpy as np
from hypothesis import strategies as st

from ....core.rlhf import whiten as core_whiten
from ....kernels.common.column_sum import column_sum_kernel
from ....kernels.rlhf import whiten as triton_whiten
from ..strategies import any_tensors
from ..twin import Case, Cost, Draw, Inputs, Twin, floats
from .rollout import ROLLOUT, batches, shares


def _whiten_inputs(case: Case, draw: Draw) -> Inputs:
    std = case.get("magnitude", 1.0)
    x = draw.normal(*case["shape"], std=std, mean=case.get("offset", 0.0) * std)
    return Inputs(
        {"x": x},
        {
            "mask": draw.mask(*case["shape"], share=case.get("share", 0.7)),
            "shift_mean": case.get("shift_mean", True),
            "unbiased": case.get("unbiased", True),
        },
    )


def _whiten_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = math.prod(case["shape"])
    # forward: mean (1), centre, square, sum (3), apply (2); backward: two sums (5), apply (6)
    reads = floats(itemsize, x=n) | {"mask": n}
    saved = {"saved": 16}  # the mean and the deviation, in four numbers
    return (
        Cost(6 * n, reads, floats(itemsize, whitened=n)),
        Cost(11 * n, reads | saved | floats(itemsize, d_whitened=n), floats(itemsize, d_x=n)),
    )


_WHITEN_BLOCK = triton_whiten.BLOCK

_CONTRACTS = {
    "whiten_partials_kernel": """
        x_ptr[n_elements]; mask_ptr[n_elements]; grid[cdiv(n_elements, BLOCK)]
        partials_ptr[cdiv(n_elements, BLOCK), 3]
    """,
    "whiten_statistics_kernel": """
        partials_ptr[n_partials, 3]; statistics_ptr[4]; n_partials <= MOST_COUNTED
    """,
    "whiten_apply_kernel": """
        x_ptr[n_elements]; mask_ptr[n_elements]; grid[cdiv(n_elements, BLOCK)]
        statistics_ptr[4]; whitened_ptr[n_elements]
    """,
    "whiten_backward_partials_kernel": """
        x_ptr[n_elements]; mask_ptr[n_elements]; grid[cdiv(n_elements, BLOCK)]
        d_whitened_ptr[n_elements]; statistics_ptr[4]; partials_ptr[cdiv(n_elements, BLOCK), 2]
    """,
    "whiten_backward_apply_kernel": """
        x_ptr[n_elements]; mask_ptr[n_elements]; grid[cdiv(n_elements, BLOCK)]
        d_whitened_ptr[n_elements]; statistics_ptr[4]; sums_ptr[2]; d_x_ptr[n_elements]
    """,
}

whiten = Twin(
    name="whiten",
    forward=core_whiten.whiten_forward,
    backward=core_whiten.whiten_backward,
    kernel=triton_whiten.whiten,
    eager=triton_whiten.whiten_eager,
    arguments=("x",),
    results=("whitened",),
    cases=st.fixed_dictionaries(
        {
            "shape": batches((0, 3), (1, 70), (_WHITEN_BLOCK - 100, _WHITEN_BLOCK + 100)),
            "magnitude": st.sampled_from([1.0, 1e-3, 1e6]),
            "offset": st.sampled_from([0.0, 3.0, 100.0]),
            "share": shares,
            "shift_mean": st.booleans(),
            "unbiased": st.booleans(),
            **any_tensors,
        }
    ),
    corners=(
        {"shape": [3, 2 * _WHITEN_BLOCK + 3], "offset": 100.0, "seed": 1},
        {"shape": [2, _WHITEN_BLOCK], "shift_mean": False, "unbiased": False, "seed": 2},
        # They are so close together that ε counts.
        {"shape": [3, 50], "magnitude": 1e-3, "seed": 4},
        # more partial sums than one block of the merge holds, many of them of no element
        {"shape": [triton_whiten.MERGE_BLOCK + 2, _WHITEN_BLOCK], "share": 0.0003, "seed": 3},
    ),
    inputs=_whiten_inputs,
    real=lambda a: Inputs(
        {"x": a["embedded"][0].T},
        {"mask": np.broadcast_to(np.arange(48) >= 8, (a["embedded"].shape[2], 48))},
    ),
    shapes={
        "rollout": {"shape": ROLLOUT},
        "rollout, mean kept": {"shape": ROLLOUT, "shift_mean": False},
        "minibatch": {"shape": [64, 1024]},
    },
    cost=_whiten_cost,
    contracts=_CONTRACTS,
    studies=tuple(
        {"shape": shape, "share": 1.0} for shape in ([3, 900], [2, _WHITEN_BLOCK], [1, 2])
    ),
    extremes=({"shape": [2, 5], "seed": 1}, {"shape": [2, 5], "shift_mean": False}),
    rows="each number is whitened by the mean and deviation of the whole batch",
    axes=dict.fromkeys(("x", "mask", "whitened"), "batch time"),
    dtypes=("float32",),
    shared_kernels=(column_sum_kernel,),
)  # fmt: skip
