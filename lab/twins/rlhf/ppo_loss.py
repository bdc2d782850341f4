"""The twins of the PPO update; part of the list in `twins/catalogue.py`."""

import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from ...core.language.token_scores import log_softmax
from ...core.rlhf import linear_ppo_loss as core_linear_ppo_loss
from ...core.rlhf import ppo_loss as core_ppo_loss
from ...kernels.rlhf import linear_ppo_loss as triton_linear_ppo_loss
from ...kernels.rlhf import ppo_loss as triton_ppo_loss
from ...kernels.rlhf.ppo_statistics import ppo_loss_statistics_kernel
from .strategies import any_tensors, sizes
from .training import SCORING_KERNELS
from .twin import Case, Cost, Draw, Inputs, Twin, floats


def _sign(draw: Draw, *shape: int) -> Any:
    """Draw −1 and 1."""
    return draw.mask(*shape, share=0.5) * 2.0 - 1.0


def _one_of(draw: Draw, shape: list[int], low: float, high: float) -> Any:
    """Draw ±low and ±high, about as often each."""
    return _sign(draw, *shape) * (low + (high - low) * draw.mask(*shape, share=0.5))


def _rollout(case: Case, draw: Draw, shape: list[int]) -> tuple[Any, dict[str, Any]]:
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


def _coefficients(case: Case) -> dict[str, float]:
    return {
        name: case.get(name, default)
        for name, default in (
            ("clip", 0.2),
            ("value_clip", 0.2),
            ("value_coefficient", 0.1),
            ("entropy_coefficient", 0.01),
        )
    }


_coefficient_cases = {
    "magnitude": st.sampled_from([1.0, 0.001, 100.0, 1e4]),
    "share": st.sampled_from([0.0, 0.05, 0.6, 1.0]),
    "clip": st.sampled_from([0.2, 0.1]),
    "value_clip": st.sampled_from([0.2, 0.3]),
    "value_coefficient": st.sampled_from([0.1, 0.0, 1.0]),
    "entropy_coefficient": st.sampled_from([0.0, 0.01, 1.0]),
    **any_tensors,
}

_RESULTS = dict.fromkeys(core_ppo_loss.PPOResults._fields, 4)
_TOKENS = ("log_prob", "values", "entropy", "old_log_prob", "advantages", "old_values", "returns")

# --- ppo_loss ------------------------------------------------------------------------------------


def _ppo_loss_inputs(case: Case, draw: Draw) -> Inputs:
    shape = case["shape"]
    log_ratio, rest = _rollout(case, draw, shape)
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
    return Inputs(tensors, options | _coefficients(case))


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
        Cost(32 * n + 1, floats(itemsize, **dict.fromkeys(_TOKENS, n)) | {"mask": n}, _RESULTS),
        Cost(
            3 * n + 1,
            # saved: two gradients, but for their factor
            floats(itemsize, saved=2 * n) | {"mask": n, "n_tokens": 4, "d_loss": 4},
            floats(itemsize, d_log_prob=n, d_values=n, d_entropy=n),
        ),
    )


ppo_loss = Twin(
    name="ppo_loss",
    forward=core_ppo_loss.ppo_loss_forward,
    backward=core_ppo_loss.ppo_loss_backward,
    kernel=triton_ppo_loss.ppo_loss,
    eager=triton_ppo_loss.ppo_loss_eager,
    arguments=("log_prob", "values", "entropy"),
    results=core_ppo_loss.PPOResults._fields,
    cases=st.fixed_dictionaries(
        {
            "shape": st.tuples(
                sizes((0, 0), (1, 5), (1, 5)),
                sizes((0, 40), (41, 1500)),
            ).map(list),
            "poison": st.booleans(),
            **_coefficient_cases,
        }
    ),
    corners=(
        {"shape": [3, 700], "seed": 1},
        {"shape": [2, 50], "share": 0.0, "poison": True, "seed": 2},
        {"shape": [3, 70], "magnitude": 100.0, "poison": True, "seed": 3},  # Some |Δ| are above 20.
    ),
    inputs=_ppo_loss_inputs,
    real=_ppo_loss_real,
    shapes={
        "instructgpt minibatch": {"shape": [64, 1024]},
        "instructgpt batch": {"shape": [512, 1024]},
    },
    cost=_ppo_loss_cost,
    studies=tuple({"shape": shape, "share": 1.0} for shape in ([3, 900], [2, 40], [1, 1])),
    extremes=({"shape": [2, 4], "seed": 2},),
    axes=dict.fromkeys((*_TOKENS, "mask"), "batch time"),
    # exp is computed as 2^(Δ·log₂e). The exponent is rounded at its own size, up to 29, and each
    # bit of its integer part costs ρ roundings: 14 at |Δ| = 20.
    roundings=16.0,
    dtypes=("float32",),
    shared_kernels=(ppo_loss_statistics_kernel,),
    statistics=core_ppo_loss.PPOResults._fields[1:],
)

# --- linear_ppo_loss -----------------------------------------------------------------------------


def _linear_ppo_loss_inputs(case: Case, draw: Draw) -> Inputs:
    n_tokens, d_model, vocab = case["tokens"], case["d_model"], case["vocab"]
    # States and weights are small: a step of 1e-3 in each must not carry Δ across a kink.
    hidden = draw.normal(n_tokens, d_model, std=0.5)
    weight = draw.normal(d_model, vocab, std=case.get("logit_scale", 1.0) / d_model**0.5)
    log_ratio, rest = _rollout(case, draw, [n_tokens])
    wanted = abs(draw.normal(n_tokens, std=1e4))
    if isinstance(hidden, np.ndarray):
        targets = wanted.astype(np.int64) % vocab
        log_p = log_softmax(hidden @ weight / case.get("temperature", 1.0))
        log_prob = np.take_along_axis(log_p, targets[:, None], -1)[:, 0]
    else:
        # Logits as small as these give about that.
        targets, log_prob = wanted.long() % vocab, 0 * wanted - math.log(vocab)
    tensors = {"hidden": hidden, "weight": weight, "values": rest.pop("values")}
    options = {"targets": targets, "old_log_prob": log_prob - log_ratio, **rest}
    mask = options["mask"]
    if case.get("poison") and isinstance(mask, np.ndarray):
        tensors["hidden"] = np.where(mask[:, None], hidden, np.nan)
        tensors["values"] = np.where(mask, tensors["values"], np.nan)
        options["targets"] = np.where(mask, targets, -100)
        options["old_log_prob"] = np.where(mask, options["old_log_prob"], np.inf)
    options["temperature"] = case.get("temperature", 1.0)
    return Inputs(tensors, options | _coefficients(case))


def _linear_ppo_loss_real(activations: dict[str, Any]) -> Inputs:
    """Score the next byte with the block's token table, tied."""
    hidden, table = activations["residual"][0, :-1], activations["token_table"]
    targets = activations["tokens"][0, 1:]
    weight = table.T / hidden.shape[-1] ** 0.5  # [d_model, vocab]
    log_p = log_softmax(hidden @ weight)
    values, returns = activations["embedded"][0, 1:, 0], activations["residual"][0, 1:, 0]
    return Inputs(
        {"hidden": hidden, "weight": weight, "values": values},
        {
            "targets": targets,
            "old_log_prob": np.take_along_axis(0.95 * log_p, targets[:, None], -1)[:, 0],
            "advantages": returns - values,
            "old_values": values - 0.3 * activations["projected"][0, 1:, 0],
            "returns": returns,
            "mask": np.arange(len(values)) >= 16,
            "entropy_coefficient": 0.01,
        },
    )


def _linear_ppo_loss_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n_tokens, d_model, vocab = case["tokens"], case["d_model"], case["vocab"]
    product = 2 * n_tokens * d_model * vocab
    hidden, weight = n_tokens * d_model, d_model * vocab
    arguments = floats(itemsize, hidden=hidden, weight=weight)
    labels = {"targets": 8 * n_tokens, "mask": n_tokens}
    others = dict.fromkeys(("values", *_TOKENS[3:]), 4 * n_tokens)
    gradients = floats(itemsize, d_hidden=hidden, d_weight=weight) | {"d_values": 4 * n_tokens}
    # saved: lse, entropy, and two gradients but for their factor, of each token
    saved = {"saved": 16 * n_tokens}
    # Backward: d_hidden and d_W, from logits that exist; computing them again is not counted.
    return (
        Cost(product + 8 * n_tokens * vocab, arguments | labels | others, _RESULTS),
        Cost(
            2 * product + 7 * n_tokens * vocab,
            arguments | labels | saved | {"n_tokens": 4, "d_loss": 4},
            gradients,
        ),
    )


def _with_float32_tokens(operation: Any) -> Any:
    """Hand per-token floats over as float32: check.py casts all floats to the row's dtype."""

    def wrapped(*, hidden: Any, weight: Any, targets: Any, **others: Any) -> Any:
        half = (torch.float16, torch.bfloat16)
        others = {
            name: x.float() if isinstance(x, torch.Tensor) and x.dtype in half else x
            for name, x in others.items()
        }
        return operation(hidden=hidden, weight=weight, targets=targets, **others)

    wrapped.__module__ = operation.__module__  # Twin.kernels() looks there.
    return wrapped


linear_ppo_loss = Twin(
    name="linear_ppo_loss",
    forward=core_linear_ppo_loss.linear_ppo_loss_forward,
    backward=core_linear_ppo_loss.linear_ppo_loss_backward,
    kernel=_with_float32_tokens(triton_linear_ppo_loss.linear_ppo_loss),
    eager=_with_float32_tokens(triton_linear_ppo_loss.linear_ppo_loss_eager),
    arguments=("hidden", "weight", "values"),
    results=core_ppo_loss.PPOResults._fields,
    cases=st.fixed_dictionaries(
        {
            "tokens": sizes((0, 3), (1, 100)),
            "d_model": sizes((1, 3), (4, 40)),
            "vocab": sizes((1, 3), (4, 300)),
            "temperature": st.sampled_from([1.0, 0.7]),
            "poison": st.booleans(),
            **_coefficient_cases,
            "clip": st.sampled_from([0.2, 0.3]),
            "magnitude": st.sampled_from([1.0, 0.001, 100.0]),  # float16 ends at 65504.
        }
    ),
    corners=(
        {"tokens": 150, "d_model": 70, "vocab": 300, "temperature": 0.7, "seed": 1},
        {"tokens": 40, "d_model": 20, "vocab": 50, "poison": True, "logit_scale": 30.0, "seed": 2},
        {"tokens": 5, "d_model": 3, "vocab": 4, "share": 0.0, "poison": True, "seed": 3},
    ),
    inputs=_linear_ppo_loss_inputs,
    real=_linear_ppo_loss_real,
    shapes={
        # Backward takes several chunks, whose products add to one another.
        "gpt2 minibatch": {"tokens": 4096, "d_model": 768, "vocab": 50257},
    },
    cost=_linear_ppo_loss_cost,
    studies=(
        {"tokens": 70, "d_model": 40, "vocab": 130, "share": 1.0},
        {"tokens": 10, "d_model": 8, "vocab": 20, "share": 1.0, "temperature": 0.7},
        {"tokens": 1, "d_model": 3, "vocab": 2, "share": 1.0},
    ),
    extremes=({"tokens": 4, "d_model": 2, "vocab": 3, "seed": 2},),
    axes=dict.fromkeys((*_TOKENS, "mask", "targets"), "token")
    | {"hidden": "token d_model", "weight": "d_model vocab"},
    # log π is rounded at its own size, some ten times the logits' own where they are small, and
    # Δ, the difference of two such numbers, inherits that: ρ and Δ² are no more exact than Δ.
    roundings=64.0,
    shared_kernels=(
        *SCORING_KERNELS,
        triton_ppo_loss.ppo_loss_kernel,
        triton_ppo_loss.ppo_loss_scale_kernel,
        ppo_loss_statistics_kernel,
    ),
    statistics=core_ppo_loss.PPOResults._fields[1:],
)

TWINS = (ppo_loss, linear_ppo_loss)
