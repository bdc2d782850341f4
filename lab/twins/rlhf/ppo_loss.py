"""The twin of the PPO loss, and what the loss over the head's product draws alike."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.rlhf import ppo_loss as core_ppo_loss
from ....kernels.rlhf import ppo_loss as triton_ppo_loss
from ....kernels.rlhf.ppo_statistics import ppo_loss_statistics_kernel
from ..strategies import any_tensors, sizes
from ..twin import Case, Cost, Draw, Inputs, Twin, floats, with_constant


def _sign(draw: Draw, *shape: int) -> Any:
    """Draw −1 and 1."""
    return draw.mask(*shape, share=0.5) * 2.0 - 1.0


def _one_of(draw: Draw, shape: list[int], low: float, high: float) -> Any:
    """Draw ±low and ±high, about as often each."""
    return _sign(draw, *shape) * (low + (high - low) * draw.mask(*shape, share=0.5))


def draw_rollout(case: Case, draw: Draw, shape: list[int]) -> tuple[Any, dict[str, Any]]:
    """Draw Δ = log π − log π_old, and every argument that has nothing to do with it.

    At magnitude 1, where derivatives are also measured by small steps, everything keeps away from
    the kinks: Δ from log(1 ± clip) and ±20, V − V_old from ±value_clip, and the returns from the
    middle between V and V_clip. Elsewhere anything may happen, |Δ| > 20 included.
    """
    magnitude = case.get("magnitude", 1.0)
    values = draw.normal(*shape, std=magnitude)
    if magnitude == 1.0:
        log_ratio = _one_of(draw, shape, 0.02, 0.5)
        old_values = values - _one_of(draw, shape, 0.05, 0.5)
        returns = values + _sign(draw, *shape) * (0.5 + abs(draw.normal(*shape)))
    else:
        log_ratio = draw.normal(*shape, std=0.3) + 30 * draw.mask(*shape, share=0.05)
        log_ratio = log_ratio * _sign(draw, *shape)
        old_values = values - draw.normal(*shape, std=0.3)
        returns = values + draw.normal(*shape, std=magnitude)
    return log_ratio, {
        "advantages": draw.normal(*shape, std=magnitude),
        "values": values,
        "old_values": old_values,
        "returns": returns,
        "mask": draw.mask(*shape, share=case.get("share", 0.6)),
    }


def coefficients(case: Case) -> dict[str, float]:
    """Return the loss's numbers: a case's own, else what PPO is used with."""
    return {
        name: case.get(name, default)
        for name, default in (
            ("clip", 0.2),
            ("value_clip", 0.2),
            ("value_coefficient", 0.1),
            ("entropy_coefficient", 0.01),
        )
    }


coefficient_cases = {
    "magnitude": st.sampled_from([1.0, 0.001, 100.0, 1e4]),
    "share": st.sampled_from([0.0, 0.05, 0.6, 1.0]),
    "clip": st.sampled_from([0.2, 0.1]),
    "value_clip": st.sampled_from([0.2, 0.3]),
    "value_coefficient": st.sampled_from([0.1, 0.0, 1.0]),
    "entropy_coefficient": st.sampled_from([0.0, 0.01, 1.0]),
    **any_tensors,
}

RESULTS = dict.fromkeys(core_ppo_loss.PPOResults._fields, 4)
TOKENS = ("log_prob", "values", "entropy", "old_log_prob", "advantages", "old_values", "returns")


def _ppo_loss_inputs(case: Case, draw: Draw) -> Inputs:
    shape = case["shape"]
    log_ratio, rest = draw_rollout(case, draw, shape)
    likelier = -2 * abs(draw.normal(*shape))  # It is the larger of the two log-probabilities.
    entropy = abs(draw.normal(*shape, std=3.0))
    tensors = {
        "log_prob": likelier + (log_ratio - abs(log_ratio)) / 2,
        "values": rest.pop("values"),
        "entropy": entropy,
    }
    options = {"old_log_prob": likelier - (log_ratio + abs(log_ratio)) / 2, **rest}
    mask = options["mask"]
    if case.get("poison") and isinstance(mask, np.ndarray):
        for arrays in (tensors, options):
            for name in arrays.keys() - {"mask"}:
                arrays[name] = np.where(mask, arrays[name], np.nan)
    if "block" in case:
        options["block"] = case["block"]
    return Inputs(tensors, options | coefficients(case))


def _ppo_loss_real(activations: dict[str, Any]) -> Inputs:
    """Take the block's MLP units for a vocabulary and its residual stream for values."""
    logits = activations["up"]  # [1, time, vocab]
    targets = (activations["tokens"] % logits.shape[-1])[..., None]  # [1, time, 1]
    new, old = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (logits, 0.9 * logits))
    values = activations["embedded"][..., 0]
    returns = activations["residual"][..., 0]
    return Inputs(
        {
            "log_prob": np.take_along_axis(new, targets, -1)[..., 0],
            "values": values,
            "entropy": -(np.exp(new) * new).sum(-1),
        },
        {
            "old_log_prob": np.take_along_axis(old, targets, -1)[..., 0],
            "advantages": returns - values,
            "old_values": values - 0.3 * activations["projected"][..., 0],
            "returns": returns,
            "mask": np.arange(values.shape[1])[None] >= 16,
            "entropy_coefficient": 0.01,
        },
    )


def _ppo_loss_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = int(np.prod(case["shape"]))
    # forward: Δ, clamp (2), exp, product, clip (2), product, compare, select, and the values' ten,
    # and about a dozen sums. Backward: three products. Un-normalised gradients wait in between.
    return (
        Cost(32 * n + 1, floats(itemsize, **dict.fromkeys(TOKENS, n)) | {"mask": n}, RESULTS),
        Cost(
            3 * n + 1,
            # saved: two gradients, but for their factor
            floats(itemsize, saved=2 * n) | {"mask": n, "n_tokens": 4, "d_loss": 4},
            floats(itemsize, d_log_prob=n, d_values=n, d_entropy=n),
        ),
    )


_CONTRACTS = {
    "ppo_loss_kernel": """
        given.log_prob[n_tokens]; given.old_log_prob[n_tokens]; given.advantage[n_tokens]
        given.value[n_tokens]; given.old_value[n_tokens]; given.returns[n_tokens]
        given.entropy[n_tokens]; mask_ptr[n_tokens]
        d_log_prob_ptr[n_tokens]; d_values_ptr[n_tokens]
        sums[N_ROWS, sums.n_columns]; grid[sums.n_columns]
        sums.n_columns == max(1, cdiv(n_tokens, BLOCK))
    """,
    "ppo_loss_statistics_kernel": """
        sums[N_ROWS, sums.n_columns]; loss_ptr[1]; statistics_ptr[11]
        sums.n_columns <= MOST_COUNTED
    """,
    "ppo_loss_scale_kernel": """
        raw.log_prob[n_tokens]; raw.value[n_tokens]; mask_ptr[n_tokens]; d_loss_ptr[1]; count_ptr[1]
        scaled.log_prob[n_tokens]; scaled.value[n_tokens]; scaled.entropy[n_tokens]
        grid[cdiv(n_tokens, BLOCK)]
    """,
}

ppo_loss = Twin(
    name="ppo_loss",
    forward=with_constant(core_ppo_loss.ppo_loss_forward, None, "BLOCK"),
    backward=core_ppo_loss.ppo_loss_backward,
    kernel=with_constant(triton_ppo_loss.ppo_loss, triton_ppo_loss, "BLOCK"),
    eager=with_constant(triton_ppo_loss.ppo_loss_eager, None, "BLOCK"),
    arguments=("log_prob", "values", "entropy"),
    results=core_ppo_loss.PPOResults._fields,
    cases=st.fixed_dictionaries(
        {
            "shape": st.tuples(
                sizes((0, 0), (1, 5), (1, 5)),
                sizes((0, 40), (41, 1500)),
            ).map(list),
            "poison": st.booleans(),
            **coefficient_cases,
        }
    ),
    corners=(
        {"shape": [3, 700], "seed": 1},
        {"shape": [2, 50], "share": 0.0, "poison": True, "seed": 2},
        {"shape": [3, 70], "magnitude": 100.0, "poison": True, "seed": 3},  # Some |Δ| are above 20.
        # 19 blocks, 16 at a time: mutants survived that were wrong beyond a million tokens.
        {"shape": [3, 100], "block": 16, "seed": 4},
    ),
    inputs=_ppo_loss_inputs,
    real=_ppo_loss_real,
    shapes={
        "instructgpt minibatch": {"shape": [64, 1024]},
        "instructgpt batch": {"shape": [512, 1024]},
    },
    cost=_ppo_loss_cost,
    contracts=_CONTRACTS,
    studies=tuple({"shape": shape, "share": 1.0} for shape in ([3, 900], [2, 40], [1, 1])),
    extremes=({"shape": [2, 4], "seed": 2},),
    rows="the loss is a mean over the whole batch, and so is each gradient's share of it",
    axes=dict.fromkeys((*TOKENS, "mask"), "batch time"),
    # exp is computed as 2^(Δ·log₂e). The exponent is rounded at its own size, up to 29, and each
    # bit of its integer part costs ρ roundings: 14 at |Δ| = 20.
    roundings=16.0,
    dtypes=("float32",),
    shared_kernels=(ppo_loss_statistics_kernel,),
    statistics=core_ppo_loss.PPOResults._fields[1:],
)
