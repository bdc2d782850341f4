"""The twin of the PPO loss over the head's product."""

import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from ....core.language.token_scores import log_softmax
from ....core.rlhf import linear_ppo_loss as core_linear_ppo_loss
from ....core.rlhf import ppo_loss as core_ppo_loss
from ....kernels.rlhf import linear_ppo_loss as triton_linear_ppo_loss
from ....kernels.rlhf import ppo_loss as triton_ppo_loss
from ....kernels.rlhf.ppo_statistics import ppo_loss_statistics_kernel
from ..language.cross_entropy import SCORING_KERNELS
from ..strategies import sizes
from ..twin import Case, Cost, Draw, Inputs, Twin, floats
from .ppo_loss import RESULTS, TOKENS, coefficient_cases, coefficients, draw_rollout


def _linear_ppo_loss_inputs(case: Case, draw: Draw) -> Inputs:
    n_tokens, d_model, vocab = case["tokens"], case["d_model"], case["vocab"]
    # States and weights are small: a step of 1e-3 in each must not carry Δ across a kink.
    hidden = draw.normal(n_tokens, d_model, std=0.5)
    weight = draw.normal(d_model, vocab, std=case.get("logit_scale", 1.0) / d_model**0.5)
    log_ratio, rest = draw_rollout(case, draw, [n_tokens])
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
    return Inputs(tensors, options | coefficients(case))


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
    others = dict.fromkeys(("values", *TOKENS[3:]), 4 * n_tokens)
    gradients = floats(itemsize, d_hidden=hidden, d_weight=weight) | {"d_values": 4 * n_tokens}
    # saved: lse, entropy, and two gradients but for their factor, of each token
    saved = {"saved": 16 * n_tokens}
    # Backward: d_hidden and d_W, from logits that exist; computing them again is not counted.
    return (
        Cost(product + 8 * n_tokens * vocab, arguments | labels | others, RESULTS),
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
            **coefficient_cases,
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
    rows="the loss is a mean over the whole batch; its log-probabilities are cross_entropy's",
    axes=dict.fromkeys((*TOKENS, "mask", "targets"), "token")
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
