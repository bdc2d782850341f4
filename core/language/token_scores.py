"""What one vocabulary's logits say of each token: log-probability, entropy, log-sum-exp.

    x = hidden W / T                     logits            [token, vocab]
    log p = x − logsumexp(x)
    log π = log p[target],  H = −Σ_j p[j]·log p[j]         [token]

`cross_entropy` and `linear_ppo_loss` are both built on these two numbers a token. Backward, with
g = d_log_prob and h = d_entropy of each token (1[·] is the target's column):

    d_x[j] = (1[j = target] − p[j])·g − p[j]·(log p[j] + H)·h
    d_hidden = d_x Wᵀ / T        d_W = hiddenᵀ d_x / T

The logits are by far the largest array of a training step: at GPT-2's vocabulary 65 times the
hidden states. Nobody needs them whole. The file climbs from their definition to the kernels' loops:

`score_tiled` takes one pass over the vocabulary in tiles, with a running maximum m, and sums
relative to it, S = Σ e^(x − m) and E = Σ e^(x − m)·(x − m):

    log π = x[target] − m − log S        H = log S − E / S

Both terms of log π are ≤ 0 in any rounding (the maximum contributes exactly 1 to S): a token's
log-probability never exceeds 0. `merge` joins what was found in two parts of the
vocabulary; since it matters little in which order, the parts can be scored side by side.

`backward_tiled` computes the logits again, some columns of all tokens at a time: these columns of
d_W are then complete, and d_hidden is a sum over the tiles.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from ..checks import (
    all_below,
    expect_floats,
    expect_integers,
    expect_ndim,
    expect_positive,
    expect_shape,
    refuse,
)


class Partial(NamedTuple):
    """What a pass over a part of the vocabulary leaves, each [token].

    Attributes
    ----------
    maximum : numpy.ndarray
        m, the part's largest logit.
    total : numpy.ndarray
        S = Σ e^(x − m).
    weighted : numpy.ndarray
        E = Σ e^(x − m)·(x − m).
    wanted : numpy.ndarray
        The target's logit; 0 if it is in another part.
    """

    maximum: np.ndarray
    total: np.ndarray
    weighted: np.ndarray
    wanted: np.ndarray


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax over the last axis, never above 0."""
    away = x - x.max(axis=-1, keepdims=True)
    return away - np.log(np.exp(away).sum(axis=-1, keepdims=True))


def logits_gradient(
    log_p: np.ndarray,
    entropy: np.ndarray,
    columns: np.ndarray,
    d_log_prob: np.ndarray,
    d_entropy: np.ndarray,
) -> np.ndarray:
    """Return the gradient of the logits in a tile of columns, or in all of them: [token, column].

    `log_p` [token, column] are the tile's log-probabilities. `columns` [token] says where in the
    tile each token's target is; it lies outside if the target is in another tile.
    """
    p = np.exp(log_p)
    is_target = np.arange(log_p.shape[1]) == columns[:, None]
    by_log_prob = (is_target - p) * d_log_prob[:, None]
    by_entropy = p * (log_p + entropy[:, None]) * d_entropy[:, None]
    return by_log_prob - by_entropy


def score_tile(x: np.ndarray, columns: np.ndarray) -> Partial:
    """Score one tile of logits, [token, column], of at least one column.

    `columns` [token] says where in the tile each target is; outside if it is in another tile.
    """
    maximum = x.max(axis=-1)
    away = x - maximum[:, None]
    e = np.exp(away)
    is_target = np.arange(x.shape[1]) == columns[:, None]
    return Partial(maximum, e.sum(-1), (e * away).sum(-1), np.where(is_target, x, 0).sum(-1))


def merge(a: Partial, b: Partial) -> Partial:
    """Join the scores of two parts of the vocabulary.

    Every term of S and E was taken relative to its part's maximum: one factor for each part,
    e^(m_part − m), makes them relative to the larger, and Σ e^(x − m)·(x − m) gains
    (m_part − m)·S besides.
    """
    maximum = np.maximum(a.maximum, b.maximum)
    total, weighted = np.zeros_like(maximum), np.zeros_like(maximum)
    for part in (a, b):
        fell = part.maximum - maximum  # ≤ 0
        total += part.total * np.exp(fell)
        weighted += (part.weighted + fell * part.total) * np.exp(fell)
    return Partial(maximum, total, weighted, a.wanted + b.wanted)


def score_tiled(
    hidden: np.ndarray,
    weight: np.ndarray,
    targets: np.ndarray,
    temperature: float,
    block: int,
    span: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score the targets in spans of the vocabulary, each with one pass in blocks, as the kernels.

    `block` and `span` are columns per tile and per pass. Returns, each [token], the targets'
    log-probabilities, the distributions' entropies, and the logits' log-sum-exp.
    """
    expect_positive("block", block)
    expect_positive("span", span)
    expect_positive("temperature", temperature)
    vocab = weight.shape[1]

    def tile(start: int, stop: int) -> Partial:
        x = hidden @ weight[:, start:stop] / temperature  # [token, block]
        return score_tile(x, targets - start)

    spans = [
        functools.reduce(
            merge,
            (
                tile(start, min(start + block, first + span, vocab))
                for start in range(first, min(first + span, vocab), block)
            ),
        )
        for first in range(0, vocab, span)
    ]
    maximum, total, weighted, wanted = functools.reduce(merge, spans)
    log_total = np.log(total)
    log_prob = np.minimum(wanted - maximum - log_total, 0)
    return log_prob, np.maximum(log_total - weighted / total, 0), maximum + log_total


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
    """Carry gradients back in chunks of the vocabulary, whose logits are computed a second time.

    `chunk` is how many columns' logits are held at a time, `scores` what `score_tiled` returned.
    Returns d_hidden [token, d_model] and d_weight [d_model, vocab].
    """
    expect_positive("chunk", chunk)
    _, entropy, lse = scores
    d_hidden, d_weight = np.zeros_like(hidden), np.zeros_like(weight)
    for start in range(0, weight.shape[1], chunk):
        some = slice(start, start + chunk)
        log_p = hidden @ weight[:, some] / temperature - lse[:, None]  # [token, chunk]
        d_logits = logits_gradient(log_p, entropy, targets - start, d_log_prob, d_entropy)
        d_logits = d_logits / temperature
        d_hidden += d_logits @ weight[:, some].T
        d_weight[:, some] = hidden.T @ d_logits
    return d_hidden, d_weight


def check_token_scores(hidden: Any, weight: Any, targets: Any) -> None:
    """Refuse hidden states, an output matrix and targets that do not fit together."""
    expect_floats(hidden=hidden, weight=weight)
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
    expect_integers(targets=targets)


def check_targets(targets: Any, mask: Any, vocab: int) -> None:
    """Refuse unmasked targets outside the vocabulary. Reads the values: on a GPU, that waits."""
    if all_below(targets, vocab):
        return
    wrong = mask & ((targets < 0) | (targets >= vocab))
    if wrong.any():
        at = int(wrong.nonzero()[0][0])
        refuse(
            "targets",
            f"0 to {vocab - 1} where unmasked",
            f"{int(targets[at])} at {at}",
            "an ignore label that the mask should cover, or another tokenizer",
        )
