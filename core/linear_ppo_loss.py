"""The PPO loss straight from hidden states and the output matrix.

    x = hidden W / T                     logits            [token, vocab]
    log p = x − logsumexp(x)
    log π = log p[target],  H = −Σ_j p[j]·log p[j]         [token]
    loss  = ppo_loss(log π, …, H, mask)                    core/ppo_loss.py

Backward, with g = d_log_prob and h = d_entropy of each token (1[·] is the target's column):

    d_x[j] = (1[j = target] − p[j])·g − p[j]·(log p[j] + H)·h
    d_hidden = d_x Wᵀ / T        d_W = hiddenᵀ d_x / T

The logits are by far the largest array of the update: at GPT-2's vocabulary 65 times the hidden
states. The file climbs: `linear_ppo_loss` is the definition, which holds them all; `score_tiled`
and `backward_tiled` get the same from tiles, as the kernels do, one pass over the vocabulary with
a running maximum m, and sums relative to it, S = Σ e^(x − m) and E = Σ e^(x − m)·(x − m):

    log π = x[target] − m − log S        H = log S − E / S

Both terms of log π are ≤ 0 in any rounding (the maximum contributes exactly 1 to S): a token's
log-probability never exceeds 0.

Edge semantics, the same in both twins: masked rows are never looked at, whatever their hidden
state, target or any other entry holds, and get gradient exactly 0; the output matrix has no mask,
and must be finite throughout; the rest as in ppo_loss.py.
"""

import math
from typing import Any

import numpy as np

from .checks import expect_finite, expect_ndim, expect_positive, expect_shape, refuse
from .ppo_loss import (
    PPOResults,
    expect_bool_mask,
    ppo_loss_backward,
    ppo_loss_forward,
    scatter,
)

Saved = tuple[Any, ...]


def linear_ppo_loss(
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
    **coefficients: float,
) -> PPOResults:
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
    **coefficients : float
        clip, value_clip, value_coefficient, entropy_coefficient as in `ppo_loss`.

    Returns
    -------
    PPOResults

    Raises
    ------
    ValueError
        If a shape, dtype, target, coefficient or the temperature is wrong, or an unmasked number
        not finite.
    """
    return linear_ppo_loss_forward(
        hidden,
        weight,
        targets,
        old_log_prob,
        advantages,
        values,
        old_values,
        returns,
        mask,
        temperature=temperature,
        **coefficients,
    )[0]


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
    **coefficients: float,
) -> tuple[PPOResults, Saved]:
    """Compute `linear_ppo_loss` and keep what its backward pass needs.

    Parameters
    ----------
    hidden, weight, targets, old_log_prob, advantages, values, old_values, returns, mask
        As in `linear_ppo_loss`.
    temperature, **coefficients
        As in `linear_ppo_loss`.

    Returns
    -------
    results : PPOResults
        As in `linear_ppo_loss`.
    saved : tuple
        For `linear_ppo_loss_backward`.

    Raises
    ------
    ValueError
        As in `linear_ppo_loss`.
    """
    check_linear_ppo_loss(hidden, weight, targets, mask, temperature)
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
        **coefficients,
    )
    return results, (rows, weight, wanted, mask, log_p, entropy, float(temperature), loss_saved)


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


def logits_gradient(
    log_p: np.ndarray,
    entropy: np.ndarray,
    columns: np.ndarray,
    d_log_prob: np.ndarray,
    d_entropy: np.ndarray,
) -> np.ndarray:
    """Return the gradient of the logits in a tile of columns, or all of them.

    Parameters
    ----------
    log_p : numpy.ndarray [token, column]
        Log-probabilities of the tile.
    entropy, d_log_prob, d_entropy : numpy.ndarray [token]
    columns : numpy.ndarray of int [token]
        Where in the tile each token's target is; outside it if it is in another tile.

    Returns
    -------
    numpy.ndarray [token, column]
    """
    p = np.exp(log_p)
    is_target = np.arange(log_p.shape[1]) == columns[:, None]
    wants = (is_target - p) * d_log_prob[:, None] - p * (log_p + entropy[:, None]) * d_entropy[
        :, None
    ]
    return wants.astype(log_p.dtype, copy=False)


def score_tiled(
    hidden: np.ndarray, weight: np.ndarray, targets: np.ndarray, temperature: float, block: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score the targets with one pass over the vocabulary in blocks: the kernel's loop.

    Parameters
    ----------
    hidden : numpy.ndarray [token, d_model]
    weight : numpy.ndarray [d_model, vocab]
    targets : numpy.ndarray of int [token]
    temperature : float
        As in `linear_ppo_loss`.
    block : int
        Columns per tile, at least 1.

    Returns
    -------
    log_prob, entropy, lse : numpy.ndarray [token]
        Of each target; of each distribution; and the logits' log-sum-exp.

    Raises
    ------
    ValueError
        If `block` or `temperature` is not above 0.
    """
    expect_positive("block", block)
    expect_positive("temperature", temperature)
    running_max = np.full(len(hidden), -math.inf, hidden.dtype)
    total, weighted, wanted = (np.zeros(len(hidden), hidden.dtype) for _ in range(3))
    for start in range(0, weight.shape[1], block):
        x = hidden @ weight[:, start : start + block] / temperature  # [token, block]
        new_max = np.maximum(running_max, x.max(axis=-1))
        # What was summed relative to the old maximum, relative to the new one. No sum before the
        # first block: its maximum, −inf, must not be multiplied with anything.
        fell = np.where(np.isneginf(running_max), 0, running_max - new_max)
        weighted = (weighted + fell * total) * np.exp(fell)
        total = total * np.exp(fell)
        away = x - new_max[:, None]
        total = total + np.exp(away).sum(axis=-1)
        weighted = weighted + (np.exp(away) * away).sum(axis=-1)
        is_target = np.arange(start, start + x.shape[1]) == targets[:, None]
        wanted = wanted + np.where(is_target, x, 0).sum(axis=-1)
        running_max = new_max

    log_prob = np.minimum(wanted - running_max - np.log(total), 0)
    return log_prob, np.log(total) - weighted / total, running_max + np.log(total)


def backward_tiled(
    hidden: np.ndarray,
    weight: np.ndarray,
    targets: np.ndarray,
    temperature: float,
    chunk: int,
    scores: tuple[np.ndarray, np.ndarray, np.ndarray],
    d_log_prob: np.ndarray,
    d_entropy: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Carry gradients back in chunks of tokens, whose logits are computed a second time.

    Parameters
    ----------
    hidden, weight, targets, temperature
        As in `score_tiled`.
    chunk : int
        Tokens whose [chunk, vocab] logits are held at a time, at least 1.
    scores : tuple
        What `score_tiled` returned.
    d_log_prob, d_entropy : numpy.ndarray [token]

    Returns
    -------
    d_hidden : numpy.ndarray [token, d_model]
    d_weight : numpy.ndarray [d_model, vocab]

    Raises
    ------
    ValueError
        If `chunk` is not above 0.
    """
    expect_positive("chunk", chunk)
    _, entropy, lse = scores
    d_hidden, d_weight = np.zeros_like(hidden), np.zeros_like(weight)
    for start in range(0, len(hidden), chunk):
        some = slice(start, start + chunk)
        log_p = hidden[some] @ weight / temperature - lse[some, None]
        d_logits = logits_gradient(
            log_p, entropy[some], targets[some], d_log_prob[some], d_entropy[some]
        )
        d_hidden[some] = d_logits @ weight.T / temperature
        d_weight += hidden[some].T @ d_logits / temperature
    return d_hidden, d_weight


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax over the last axis, never above 0.

    Parameters
    ----------
    x : numpy.ndarray [..., vocab]

    Returns
    -------
    numpy.ndarray [..., vocab]
    """
    away = x - x.max(axis=-1, keepdims=True)
    return away - np.log(np.exp(away).sum(axis=-1, keepdims=True))


def scatter_rows(mask: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Put the rows of the unmasked tokens back in their places, and 0 elsewhere.

    Parameters
    ----------
    mask : numpy.ndarray of bool [token]
    rows : numpy.ndarray [counted, d_model]

    Returns
    -------
    numpy.ndarray [token, d_model]
    """
    result = np.zeros((len(mask), rows.shape[1]), rows.dtype)
    result[mask] = rows
    return result


def check_linear_ppo_loss(
    hidden: Any, weight: Any, targets: Any, mask: Any, temperature: float
) -> None:
    """Refuse arguments that the scoring half of `linear_ppo_loss` has no meaning for.

    Parameters
    ----------
    hidden, weight, targets, mask, temperature
        As in `linear_ppo_loss`; arrays or tensors. `check_ppo_loss` sees to the others.

    Raises
    ------
    ValueError
        Naming the argument.
    """
    for name, matrix, meaning in (
        ("hidden", hidden, "[token, d_model]"),
        ("weight", weight, "[d_model, vocab]"),
    ):
        expect_ndim(name, matrix, 2, meaning)
        if len(matrix.shape) > 2:
            refuse(name, f"2 dimensions {meaning}", f"shape {tuple(matrix.shape)}", "a batch axis")
    if weight.shape[0] != hidden.shape[1]:
        refuse(
            "weight",
            f"shape [{hidden.shape[1]}, vocab], as hidden's d_model",
            f"shape {tuple(weight.shape)}",
            "torch.nn.Linear and tied embeddings store the transpose",
        )
    if weight.shape[1] == 0:
        refuse("weight", "a vocabulary of at least 1", f"shape {tuple(weight.shape)}")
    expect_shape("targets", targets, hidden.shape[:1], "one target for each row of hidden")
    if not str(targets.dtype).endswith(("int64", "int32")):
        refuse("targets", "dtype int64 or int32", f"dtype {targets.dtype}", "ids read as floats")
    expect_shape("mask", mask, hidden.shape[:1], "one for each row of hidden")
    expect_bool_mask(mask)
    expect_positive("temperature", temperature)


def check_targets(targets: Any, mask: Any, vocab: int) -> None:
    """Refuse unmasked targets outside the vocabulary. Reads the values: on a GPU, that waits.

    Parameters
    ----------
    targets, mask
        As in `linear_ppo_loss`; arrays, or tensors on the CPU.
    vocab : int
        Columns of the output matrix.

    Raises
    ------
    ValueError
        Naming the first one that is out of range.
    """
    wrong = mask & ((targets < 0) | (targets >= vocab))
    if wrong.any():
        at = int(wrong.nonzero()[0][0])
        refuse(
            "targets",
            f"0 to {vocab - 1} where unmasked",
            f"{int(targets[at])} at {at}",
            "an ignore label that the mask should cover, or another tokenizer",
        )
