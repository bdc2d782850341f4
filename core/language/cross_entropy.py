"""Cross-entropy straight from hidden states and the output matrix: a language model's loss.

    log π, H = the targets' log-probabilities and the entropies of softmax(hidden W)     [token]
    loss     = mean over counted tokens of −log π

The first line is core/language/token_scores.py. `cross_entropy` is the definition, which holds the
logits [token, vocab] whole; `cross_entropy_tiled` gets the same from tiles of them, forward and
backward, as the kernels do.

A uniform model's loss is log(vocab), whatever the targets. With reduction "mean" the gradient of a
counted token's logits is (p − 1[target]) / n_counted, and that of the target's own column is
p − 1: near 0 for a token that is known well, and computed where no bit of it is lost, before any
rounding to half precision.

Edge semantics, the same in both twins: a token whose target is `ignore_index` is never looked at,
whatever its hidden state holds: loss, log-probability, entropy and gradient are 0 there. Every
token ignored, or none there: loss 0 and zero gradients (torch.nn.functional.cross_entropy says
NaN). `ignore_index` may itself be a token of the vocabulary, such as the padding token: it is
ignored then.
"""

import operator
from typing import Any

import numpy as np

from ..checks import expect_finite, expect_shape, refuse, signed
from ..masking import scatter, scatter_rows
from ..operation import at_least_float32, value_of
from .token_scores import (
    backward_tiled,
    check_targets,
    check_token_scores,
    log_softmax,
    logits_gradient,
    score_tiled,
)

REDUCTIONS = ("mean", "sum", "none")

Results = tuple[np.ndarray, np.ndarray, np.ndarray]
Saved = tuple[Any, ...]


@at_least_float32
def cross_entropy_forward(
    hidden: np.ndarray,
    weight: np.ndarray,
    targets: np.ndarray,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[Results, Saved]:
    """Compute the cross-entropy of the next tokens: the definition.

    Parameters
    ----------
    hidden : numpy.ndarray [token, d_model]
        Final hidden states, each at the position that predicts its target.
    weight : numpy.ndarray [d_model, vocab]
        The output matrix; of a tied head, the transposed token table.
    targets : numpy.ndarray of int [token]
        The tokens that followed: 0 to vocab − 1, or `ignore_index`.
    ignore_index : int
        Label of a token that does not count.
    reduction : str
        "mean" over the counted tokens, their "sum", or "none".

    Returns
    -------
    loss : numpy.ndarray [], or [token] without a reduction
        In nats a token.
    log_prob : numpy.ndarray [token]
        Of each target, at most 0; 0 where ignored.
    entropy : numpy.ndarray [token]
        Of each predicted distribution, in nats; 0 where ignored.
    saved : tuple
        For `cross_entropy_backward`.

    Raises
    ------
    ValueError
        If a shape, dtype, target or option is wrong, or a number that counts is not finite.
    """
    check_cross_entropy(hidden, weight, targets, ignore_index, reduction)
    targets = signed(targets)
    counted = targets != ignore_index
    check_targets(targets, counted, weight.shape[1])
    expect_finite("hidden", hidden, counted)
    expect_finite("weight", weight)
    rows, wanted = hidden[counted], targets[counted]  # [token, d_model] -> [counted, d_model]
    log_p = log_softmax(rows @ weight)  # [counted, vocab]
    log_prob = log_p[np.arange(len(wanted)), wanted]  # [counted]
    entropy = -(np.exp(log_p) * log_p).sum(axis=-1)
    loss = reduce(scatter(counted, 0 - log_prob), counted, reduction)
    saved = (rows, weight, wanted, counted, log_p, entropy, reduction)
    return (loss, scatter(counted, log_prob), scatter(counted, entropy)), saved


cross_entropy = value_of(cross_entropy_forward)


@at_least_float32
def cross_entropy_backward(
    saved: Saved, d_loss: np.ndarray, d_log_prob: np.ndarray, d_entropy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Carry the gradients of all three results back to the hidden states and the output matrix.

    Parameters
    ----------
    saved : tuple
        From `cross_entropy_forward`.
    d_loss, d_log_prob, d_entropy : numpy.ndarray
        Gradients with respect to the results, shaped like them.

    Returns
    -------
    d_hidden : numpy.ndarray [token, d_model]
        0 where ignored.
    d_weight : numpy.ndarray [d_model, vocab]

    Raises
    ------
    ValueError
        If a gradient is not shaped like its result.
    """
    rows, weight, wanted, counted, log_p, entropy, reduction = saved
    d_token = log_prob_gradient(counted, reduction, d_loss, d_log_prob)
    expect_shape("d_entropy", d_entropy, counted.shape)
    d_logits = logits_gradient(log_p, entropy, wanted, d_token[counted], d_entropy[counted])
    d_hidden = scatter_rows(counted, d_logits @ weight.T)
    return d_hidden, rows.T @ d_logits


@at_least_float32
def cross_entropy_tiled(
    hidden: np.ndarray,
    weight: np.ndarray,
    targets: np.ndarray,
    d_results: Results,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    block: int = 64,
    span: int = 256,
) -> tuple[Results, tuple[np.ndarray, np.ndarray]]:
    """Compute results and gradients from tiles of the logits: the kernels' passes.

    `d_results` are the gradients that `cross_entropy_backward` takes, `block` and `span` those of
    `score_tiled`; backward holds the logits of `span` columns at a time. Returns what
    `cross_entropy` and `cross_entropy_backward` return.
    """
    check_cross_entropy(hidden, weight, targets, ignore_index, reduction)
    targets = signed(targets)
    counted = targets != ignore_index
    check_targets(targets, counted, weight.shape[1])
    rows, wanted = hidden[counted], targets[counted]
    scores = score_tiled(rows, weight, wanted, 1.0, block, span)
    log_prob, entropy = scatter(counted, scores[0]), scatter(counted, scores[1])
    loss = reduce(0 - log_prob, counted, reduction)
    d_loss, d_log_prob, d_entropy = d_results
    d_token = log_prob_gradient(counted, reduction, d_loss, d_log_prob)[counted]
    d_rows, d_weight = backward_tiled(
        rows, weight, wanted, 1.0, span, scores, d_token, d_entropy[counted]
    )
    return (loss, log_prob, entropy), (scatter_rows(counted, d_rows), d_weight)


def reduce(losses: np.ndarray, counted: np.ndarray, reduction: str) -> np.ndarray:
    """Reduce the tokens' losses [token], which are 0 where not counted."""
    if reduction == "none":
        return losses
    total = losses.sum()
    return np.asarray(total / max(int(counted.sum()), 1) if reduction == "mean" else total)


def log_prob_gradient(
    counted: np.ndarray, reduction: str, d_loss: np.ndarray, d_log_prob: np.ndarray
) -> np.ndarray:
    """Add the loss's gradient to that of the log-probabilities it was reduced from."""
    expect_shape("d_loss", d_loss, counted.shape if reduction == "none" else ())
    expect_shape("d_log_prob", d_log_prob, counted.shape)
    n = max(int(counted.sum()), 1) if reduction == "mean" else 1
    return d_log_prob - d_loss / n


def check_cross_entropy(
    hidden: Any, weight: Any, targets: Any, ignore_index: int, reduction: str
) -> None:
    """Refuse arguments that `cross_entropy` has no meaning for."""
    check_token_scores(hidden, weight, targets)
    try:
        operator.index(ignore_index)
    except TypeError:
        refuse("ignore_index", "an integer", repr(ignore_index), "a label read as a float")
    if reduction not in REDUCTIONS:
        refuse("reduction", "'mean', 'sum' or 'none'", repr(reduction))
