"""The twins that learn from preferences: the reward model's loss, and the averaged parameters."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...core.optimizer import ema as core_ema
from ...core.rlhf import reward_loss as core_reward_loss
from ...kernels.optimizer import ema as triton_ema
from ...kernels.rlhf import reward_loss as triton_reward_loss
from .strategies import any_inputs, sizes, tensor_shapes
from .twin import Case, Cost, Draw, Inputs, Twin, floats

# --- reward_loss ---------------------------------------------------------------------------------


def _reward_loss_inputs(case: Case, draw: Draw) -> Inputs:
    shape = (case["prompts"], case["completions"])
    scores = draw.normal(*shape, std=case.get("magnitude", 1.0))
    if case.get("coarse"):
        # Equal scores are 0, so that the rounding that measures noise keeps them equal.
        scores = scores * (abs(scores) > 0.7 * case.get("magnitude", 1.0))
    places = (
        draw.normal(*shape).argsort(-1).argsort(-1)
    )  # Each prompt has a permutation of 0, 1, ...
    # Neighbouring places tie, and some completions are not there.
    places = places // case.get("tied", 1)
    present = draw.mask(*shape, share=case.get("present", 1.0))
    options = {
        "ranks": (places + 1) * present - 1,
        "margin": case.get("margin", 0.0),
        "centring": case.get("centring", 0.0),
    }
    return Inputs({"scores": scores}, options)


def _few_wide_tiles(case: Case) -> Case:
    """Keep the prompts few where each takes a program: the interpreter runs one at a time."""
    return case if case["completions"] <= 17 else case | {"prompts": min(case["prompts"], 5)}


def _reward_loss_real(activations: dict[str, np.ndarray]) -> Inputs:
    """Nine completions a prompt: the residual stream's first numbers, ranked by the last ones."""
    states = activations["residual"][0]  # [time, d_model]
    ranks = states[:, -9:].argsort(-1).argsort(-1)
    return Inputs({"scores": states[:, :9]}, {"ranks": ranks, "centring": 0.01})


def _reward_loss_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = case["prompts"] * case["completions"]
    n_pairs = n * (case["completions"] - 1) // 2
    numbers = dict.fromkeys(("loss", "accuracy", "n_pairs", "mean_margin"), 4)
    bins = dict.fromkeys(("bin_pairs", "bin_right"), 4 * core_reward_loss.N_BINS)
    # a pair: difference, margin, exp, log (4), sum (2), counts (4); then σ (2) and two sums
    return (
        Cost(1 + 13 * n_pairs, floats(itemsize, scores=n) | {"ranks": 8 * n}, numbers | bins),
        # saved: the gradient, but for its factor, and a count
        Cost(1 + 9 * n_pairs, {"saved": 4 * n + 4, "d_loss": 4}, floats(itemsize, d_scores=n)),
    )


reward_loss = Twin(
    name="reward_loss",
    forward=core_reward_loss.reward_loss_forward,
    backward=core_reward_loss.reward_loss_backward,
    kernel=triton_reward_loss.reward_loss,
    eager=triton_reward_loss.reward_loss_eager,
    arguments=("scores",),
    results=core_reward_loss.RewardLoss._fields,
    statistics=core_reward_loss.RewardLoss._fields[1:],
    cases=st.fixed_dictionaries(
        {
            "prompts": sizes((0, 3), (1, 70)),
            "completions": sizes((0, 3), (2, 17), (18, 64)),
            "present": st.sampled_from([1.0, 0.7, 0.1]),
            "tied": st.sampled_from([1, 2, 64]),
            "coarse": st.booleans(),
            "margin": st.sampled_from([0.0, 0.5, 3.0]),
            "centring": st.sampled_from([0.0, 0.01, 1.0]),
            "magnitude": st.sampled_from([1.0, 0.01, 30.0, 1e6]),
            **any_inputs,
        }
    ).map(_few_wide_tiles),
    corners=(
        {"prompts": 9, "completions": 9, "present": 0.7, "tied": 2, "centring": 0.01, "seed": 1},
        {"prompts": 300, "completions": 2, "margin": 0.5, "coarse": True, "seed": 2},
        {
            "prompts": 67,
            "completions": 17,
            "present": 0.7,
            "seed": 3,
        },  # It takes more than 64 programs.
        {"prompts": 3, "completions": 64, "present": 0.7, "margin": 1.0, "seed": 4},
        {"prompts": 5, "completions": 4, "tied": 64, "seed": 5},  # There are ties alone.
        # One bin has more pairs than float16 counts: a mutant that counted so survived.
        {"prompts": 5, "completions": 64, "magnitude": 0.01, "seed": 7},
    ),
    inputs=_reward_loss_inputs,
    real=_reward_loss_real,
    shapes={
        "64 prompts, K = 4": {"prompts": 64, "completions": 4},
        "64 prompts, K = 9": {"prompts": 64, "completions": 9, "centring": 0.01},
        "512 comparisons": {"prompts": 512, "completions": 2, "centring": 0.01},
        "512 prompts, K = 17": {"prompts": 512, "completions": 17, "centring": 0.01},
        "512 prompts, K = 64": {"prompts": 512, "completions": 64, "centring": 0.01},
    },
    cost=_reward_loss_cost,
    studies=(
        {"prompts": 40, "completions": 9, "centring": 0.01},
        {"prompts": 70, "completions": 2, "margin": 0.5},
        {"prompts": 2, "completions": 20},
    ),
    extremes=(
        {"prompts": 3, "completions": 4, "present": 0.7, "centring": 0.1},
        {"prompts": 2, "completions": 18, "present": 0.7},
    ),
    axes=dict.fromkeys(("scores", "ranks"), "prompt completion")
    | dict.fromkeys(("bin_pairs", "bin_right"), "bin"),
    # Up to 2016 pairs of a prompt are summed, and the terms of the mean margin cancel.
    roundings=16.0,
    dtypes=("float32",),
)

# --- ema -----------------------------------------------------------------------------------------

_MOST_TENSORS = 5
_AVERAGES = tuple(f"average_{i}" for i in range(_MOST_TENSORS))
_PARAMETERS = tuple(f"parameter_{i}" for i in range(_MOST_TENSORS))


def _of_lists(tensors: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Sort named tensors into averages and parameters."""
    averages, parameters = (
        [tensors[name] for name in names if name in tensors] for names in (_AVERAGES, _PARAMETERS)
    )
    return averages, parameters


def _ema_forward(decay: float, **tensors: np.ndarray) -> tuple[tuple[np.ndarray, ...], None]:
    return tuple(core_ema.ema(*_of_lists(tensors), decay)), None


def _in_float32(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the averages in float32, whatever the parameters' dtype (float64 stays)."""

    @functools.wraps(operation)
    def wrapped(decay: float, **tensors: Any) -> tuple[Any, ...]:
        averages, parameters = _of_lists(tensors)
        narrow = [a.is_floating_point() and a.element_size() < 4 for a in averages]
        wide = [
            a.float() if is_narrow else a for a, is_narrow in zip(averages, narrow, strict=True)
        ]
        return tuple(operation(wide, parameters, decay))

    return wrapped


def _ema_inputs(case: Case, draw: Draw) -> Inputs:
    tensors = {}
    for i, shape in enumerate(case["shapes"]):
        std = case.get("magnitude", 1.0)
        tensors[_AVERAGES[i]] = draw.normal(*shape, std=std)
        tensors[_PARAMETERS[i]] = draw.normal(*shape, std=std)
    return Inputs(tensors, {"decay": case.get("decay", 0.992)})


def _ema_real(activations: dict[str, np.ndarray]) -> Inputs:
    """The block's weights, and an average that lags behind by a part of each."""
    names = ("token_table", "w_qkv", "norm_bias")
    tensors = {_PARAMETERS[i]: activations[name] for i, name in enumerate(names)}
    lagging = {_AVERAGES[i]: activations[name] * 0.9 for i, name in enumerate(names)}
    return Inputs(lagging | tensors, {"decay": 0.992})


def _ema_cost(case: Case, itemsize: int) -> tuple[Cost, None]:
    sizes = [math.prod(shape) for shape in case["shapes"]]
    averages = {name: 4 * n for name, n in zip(_AVERAGES, sizes, strict=False)}  # float32
    parameters = {name: itemsize * n for name, n in zip(_PARAMETERS, sizes, strict=False)}
    # subtract, multiply, add
    return Cost(1 + 3 * sum(sizes), averages | parameters, averages), None


_EMA_BLOCK = triton_ema.BLOCK
# Some of GPT-2's: the token table, two matrices, a bias and a norm's weight.
_GPT2_SHAPES: list[list[int]] = [[50257, 768], [768, 2304], [2304], [768, 3072], [768]]

ema = Twin(
    name="ema",
    forward=_ema_forward,
    backward=None,
    kernel=_in_float32(triton_ema.ema),
    eager=_in_float32(triton_ema.ema_eager),
    arguments=(*_AVERAGES, *_PARAMETERS),
    results=_AVERAGES,
    statistics=_AVERAGES,
    cases=st.fixed_dictionaries(
        {
            "shapes": tensor_shapes(_EMA_BLOCK, _MOST_TENSORS, st.integers(1, 3 * _EMA_BLOCK)),
            "decay": st.sampled_from([0.992, 0.0, 0.3, 0.5, 0.9999, 1.0]),
            "magnitude": st.sampled_from([1.0, 0.001, 1000.0]),
            **any_inputs,
        }
    ),
    corners=(
        {"shapes": [[3, 5], [0], [1], [_EMA_BLOCK + 1], [2, _EMA_BLOCK]], "seed": 1},
        {"shapes": [[2 * _EMA_BLOCK]], "decay": 0.3, "seed": 2},
    ),
    inputs=_ema_inputs,
    real=_ema_real,
    shapes={"gpt2, one of each": {"shapes": _GPT2_SHAPES}, "one": {"shapes": [[768, 768]]}},
    cost=_ema_cost,
    studies=(
        {"shapes": [[3, 5], [2, _EMA_BLOCK]]},
        {"shapes": [[_EMA_BLOCK + 1], [0], [1]]},
        {"shapes": [[4, 3, 2]], "decay": 0.5},
    ),
    extremes=tuple({"shapes": [[3], [2, 2]], "decay": decay} for decay in (0.9, 0.0, 1.0)),
    axes=dict.fromkeys((*_AVERAGES, *_PARAMETERS), "row column"),
)

TWINS = (reward_loss, ema)
