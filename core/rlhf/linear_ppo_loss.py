"""The PPO loss straight from hidden states and the output matrix.

    log π, H = the targets' log-probabilities and the entropies of softmax(hidden W / T)
    loss     = ppo_loss(log π, …, H, mask)

The first line is core/language/token_scores.py, which also climbs from these logits to tiles of
them; the second is core/rlhf/ppo_loss.py. This file joins the two.

Edge semantics, the same in both twins: masked rows are never looked at, whatever their hidden
state, target or any other entry holds, and get gradient exactly 0; the output matrix has no mask,
and must be finite throughout; the rest as in ppo_loss.py.
"""

from typing import Any

import numpy as np

from ..checks import expect_finite, expect_positive, expect_shape, signed
from ..language.token_scores import (
    check_targets,
    check_token_scores,
    log_softmax,
    logits_gradient,
)
from ..masking import expect_bool_mask, scatter, scatter_rows
from ..operation import at_least_float32, value_of
from .ppo_loss import (
    PPOResults,
    ppo_loss_backward,
    ppo_loss_forward,
)

Saved = tuple[Any, ...]


@at_least_float32
def linear_ppo_loss_forward(
    hidden: np.ndarray,
    weight: np.ndarray,
    targets: np.ndarray,
    old_log_prob: np.ndarray,
    advantages: np.ndarray,
    values: np.ndarray,
    old_values: np.ndarray,
    returns: np.ndarray,
    mask: np.ndarray,
    *,
    temperature: float = 1.0,
    clip: float = 0.2,
    value_clip: float = 0.2,
    value_coefficient: float = 0.1,
    entropy_coefficient: float = 0.0,
) -> tuple[PPOResults, Saved]:
    """Compute the PPO loss of a minibatch from its hidden states: the definition.

    Parameters
    ----------
    hidden : numpy.ndarray [token, d_model]
        Final hidden states, each at the position that scores its target.
    weight : numpy.ndarray [d_model, vocab]
        The output matrix.
    targets : numpy.ndarray of int [token]
        The sampled tokens; 0 to vocab − 1 where unmasked.
    old_log_prob, advantages, values, old_values, returns : numpy.ndarray [token]
        As in `ppo_loss`.
    mask : numpy.ndarray of bool [token]
        True for a response token that counts.
    temperature : float
        T of the rollout: divides the logits; above 0.
    clip, value_clip, value_coefficient, entropy_coefficient : float
        As in `ppo_loss`.

    Returns
    -------
    results : PPOResults
    saved : tuple
        For `linear_ppo_loss_backward`.

    Raises
    ------
    ValueError
        If a shape, dtype, target, coefficient or the temperature is wrong, or an unmasked number
        not finite.
    """
    check_linear_ppo_loss(hidden, weight, targets, mask, temperature)
    targets = signed(targets)
    check_targets(targets, mask, weight.shape[1])
    expect_finite("hidden", hidden, mask)
    expect_finite("weight", weight)
    rows, wanted = hidden[mask], targets[mask]  # [token, d_model] -> [counted, d_model]
    log_p = log_softmax(rows @ weight / float(temperature))  # [counted, vocab]
    log_prob = log_p[np.arange(len(wanted)), wanted]
    entropy = -(np.exp(log_p) * log_p).sum(axis=-1)
    results, loss_saved = ppo_loss_forward(
        scatter(mask, log_prob),
        old_log_prob,
        advantages,
        values,
        old_values,
        returns,
        scatter(mask, entropy),
        mask,
        clip=clip,
        value_clip=value_clip,
        value_coefficient=value_coefficient,
        entropy_coefficient=entropy_coefficient,
    )
    return results, (rows, weight, wanted, mask, log_p, entropy, float(temperature), loss_saved)


linear_ppo_loss = value_of(linear_ppo_loss_forward)


@at_least_float32
def linear_ppo_loss_backward(
    saved: Saved, d_loss: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Carry the gradient from the loss back to hidden states, output matrix and values.

    Parameters
    ----------
    saved : tuple
        From `linear_ppo_loss_forward`.
    d_loss : numpy.ndarray []
        Gradient with respect to `loss`.

    Returns
    -------
    d_hidden : numpy.ndarray [token, d_model]
    d_weight : numpy.ndarray [d_model, vocab]
    d_values : numpy.ndarray [token]
        Rows and values are 0 where masked.

    Raises
    ------
    ValueError
        If `d_loss` is not a scalar.
    """
    rows, weight, wanted, mask, log_p, entropy, temperature, loss_saved = saved
    d_log_prob, d_values, d_entropy = ppo_loss_backward(loss_saved, d_loss)
    d_logits = logits_gradient(log_p, entropy, wanted, d_log_prob[mask], d_entropy[mask])
    d_logits = d_logits / temperature
    return scatter_rows(mask, d_logits @ weight.T), rows.T @ d_logits, d_values


def check_linear_ppo_loss(
    hidden: Any, weight: Any, targets: Any, mask: Any, temperature: float
) -> None:
    """Refuse bad arguments of the scoring half; `check_ppo_loss` sees to the others."""
    check_token_scores(hidden, weight, targets)
    expect_shape("mask", mask, hidden.shape[:1], "one for each row of hidden")
    expect_bool_mask(mask)
    expect_positive("temperature", temperature)
