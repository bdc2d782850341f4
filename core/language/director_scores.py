"""DIRECTOR: a generator that a classifier of next words guides, scored from hidden states.

One hidden state feeds two heads over the same vocabulary: the generator's g says how a text goes
on, the classifier's c[j] whether word j would be a good one (σ(c) is its probability of "good").
What is then spoken is, with γ ≥ 0 the guide's weight (Arora et al. 2022, arXiv 2206.07694, eq. 3):

    g = hidden W,   c = hidden W_c                               [token, vocab]
    log p = log_softmax( log_softmax(g) + γ·log σ(c) )
    log π = log p[target],   H = −Σ_j p[j]·log p[j]              [token]

The inner log_softmax moves a row by one constant, which the outer one takes out again: with

    z = g + γ·log σ(c)

it is log p = log_softmax(z). So this is core/language/token_scores.py with other logits, and
climbs as that does: `director_scores_tiled` takes one pass over the vocabulary in tiles, and no
two matrices [token, vocab] are ever held.

γ = 0 is the generator alone; so is a classifier that says the same of all words, whatever γ.
log σ(c) = min(c, 0) − log(1 + e^(−|c|)), in which nothing can overflow.

Backward, with d the gradient of each log π (1[·] is the target's column):

    d_g[j] = (1[j = target] − p[j])·d
    d_c[j] = γ·σ(−c[j])·d_g[j]
    d_hidden = d_g Wᵀ + d_c W_cᵀ      d_W = hiddenᵀ d_g      d_W_c = hiddenᵀ d_c

H is a statistic (how far the guide narrows the choice) and has no gradient. γ has none either.

Edge semantics, the same in both twins: masked rows are never looked at, whatever they hold, score
0 and get gradient exactly 0; both matrices have no mask, and must be finite throughout; no token
at all gives empty results and zero gradients.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from ..checks import (
    expect_finite,
    expect_floats,
    expect_positive,
    expect_shape,
    refuse,
    signed,
)
from ..masking import expect_bool_mask, scatter, scatter_rows
from ..operation import at_least_float32, value_of
from .token_scores import (
    check_targets,
    check_token_scores,
    log_softmax,
    merge,
    score_tile,
)


class DirectorScores(NamedTuple):
    """What the guided distribution says of each token, each [token]; 0 where masked.

    Attributes
    ----------
    log_prob : numpy.ndarray, or torch.Tensor in the twin
        log π of the target, in nats, at most 0.
    entropy : the same
        H of the whole distribution, in nats; a statistic.
    """

    log_prob: Any
    entropy: Any


Saved = tuple[Any, ...]


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    """Return log σ(x) = min(x, 0) − log(1 + e^(−|x|)): exact at both ends, never above 0."""
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return σ(x) = 1 / (1 + e^(−x)), of which no power can overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def guided(g: np.ndarray, c: np.ndarray, gamma: float) -> np.ndarray:
    """Return z = g + γ·log σ(c), the logits of the guided distribution, of both heads' logits."""
    return g + gamma * log_sigmoid(c)


@at_least_float32
def director_scores_forward(
    hidden: np.ndarray,
    weight: np.ndarray,
    class_weight: np.ndarray,
    targets: np.ndarray,
    mask: np.ndarray,
    *,
    gamma: float = 1.0,
) -> tuple[DirectorScores, Saved]:
    """Score tokens under a generator and the classifier that guides it: the definition.

    Parameters
    ----------
    hidden : numpy.ndarray [token, d_model]
        Final hidden states, each at the position that scores its target.
    weight : numpy.ndarray [d_model, vocab]
        The generator's head, W.
    class_weight : numpy.ndarray [d_model, vocab]
        The classifier's head, W_c: column j gives word j's logit of being good.
    targets : numpy.ndarray of int [token]
        The tokens to score; 0 to vocab − 1 where unmasked.
    mask : numpy.ndarray of bool [token]
        True for a token that counts.
    gamma : float
        γ, the guide's weight; not below 0. 0 leaves the generator alone.

    Returns
    -------
    results : DirectorScores
    saved : tuple
        For `director_scores_backward`.

    Raises
    ------
    ValueError
        If a shape, dtype, target or γ is wrong, or an unmasked number not finite.

    Notes
    -----
    DIRECTOR: Arora, Shuster, Sukhbaatar, Weston 2022, arXiv 2206.07694, eq. 3.
    """
    check_director_scores(hidden, weight, class_weight, targets, mask, gamma)
    targets, gamma = signed(targets), float(gamma)
    check_targets(targets, mask, weight.shape[1])
    expect_finite("hidden", hidden, mask)
    expect_finite("weight", weight)
    expect_finite("class_weight", class_weight)
    rows, wanted = hidden[mask], targets[mask]  # [token, d_model] -> [counted, d_model]
    c = rows @ class_weight  # [counted, vocab]
    log_p = log_softmax(guided(rows @ weight, c, gamma))
    log_prob = log_p[np.arange(len(wanted)), wanted]
    entropy = -(np.exp(log_p) * log_p).sum(axis=-1)
    results = DirectorScores(scatter(mask, log_prob), scatter(mask, entropy))
    return results, (rows, weight, class_weight, wanted, mask, log_p, c, gamma)


director_scores = value_of(director_scores_forward)


@at_least_float32
def director_scores_backward(
    saved: Saved, d_log_prob: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Carry the gradient from the log-probabilities back to hidden states and both heads.

    Parameters
    ----------
    saved : tuple
        From `director_scores_forward`.
    d_log_prob : numpy.ndarray [token]
        Gradient with respect to `log_prob`; not looked at where masked.

    Returns
    -------
    d_hidden : numpy.ndarray [token, d_model]
        Rows are 0 where masked.
    d_weight, d_class_weight : numpy.ndarray [d_model, vocab]

    Raises
    ------
    ValueError
        If `d_log_prob` has another shape.
    """
    rows, weight, class_weight, wanted, mask, log_p, c, gamma = saved
    expect_shape("d_log_prob", d_log_prob, mask.shape, "one for each token")
    d_g, d_c = heads_gradient(log_p, c, wanted, d_log_prob[mask], gamma)
    d_hidden = d_g @ weight.T + d_c @ class_weight.T
    return scatter_rows(mask, d_hidden), rows.T @ d_g, rows.T @ d_c


def heads_gradient(
    log_p: np.ndarray, c: np.ndarray, columns: np.ndarray, d_log_prob: np.ndarray, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return d_g and d_c in a tile of columns, or in all of them: each [token, column].

    `columns` [token] says where in the tile each token's target is; it lies outside if the target
    is in another tile.
    """
    is_target = np.arange(log_p.shape[1]) == columns[:, None]
    d_g = (is_target - np.exp(log_p)) * d_log_prob[:, None]
    return d_g, gamma * sigmoid(-c) * d_g


def director_scores_tiled(
    hidden: np.ndarray,
    weight: np.ndarray,
    class_weight: np.ndarray,
    targets: np.ndarray,
    gamma: float,
    block: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score every token in one pass over the vocabulary, `block` columns of both heads at a time.

    Returns, each [token], log π, H and the log-sum-exp of z.
    """
    expect_positive("block", block)
    vocab = weight.shape[1]

    def tile(start: int) -> Any:
        some = slice(start, start + block)
        z = guided(hidden @ weight[:, some], hidden @ class_weight[:, some], gamma)
        return score_tile(z, targets - start)  # z: [token, block]

    maximum, total, weighted, wanted = functools.reduce(merge, map(tile, range(0, vocab, block)))
    log_total = np.log(total)
    log_prob = np.minimum(wanted - maximum - log_total, 0)
    return log_prob, np.maximum(log_total - weighted / total, 0), maximum + log_total


def director_scores_backward_tiled(
    hidden: np.ndarray,
    weight: np.ndarray,
    class_weight: np.ndarray,
    targets: np.ndarray,
    gamma: float,
    chunk: int,
    lse: np.ndarray,
    d_log_prob: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Carry gradients back `chunk` columns at a time, whose logits are computed a second time.

    `lse` is what `director_scores_tiled` returned. Returns d_hidden, d_weight and d_class_weight.
    """
    expect_positive("chunk", chunk)
    d_hidden = np.zeros_like(hidden)
    d_weight, d_class_weight = np.zeros_like(weight), np.zeros_like(class_weight)
    for start in range(0, weight.shape[1], chunk):
        some = slice(start, start + chunk)
        c = hidden @ class_weight[:, some]
        log_p = guided(hidden @ weight[:, some], c, gamma) - lse[:, None]  # [token, chunk]
        d_g, d_c = heads_gradient(log_p, c, targets - start, d_log_prob, gamma)
        d_hidden += d_g @ weight[:, some].T + d_c @ class_weight[:, some].T
        d_weight[:, some], d_class_weight[:, some] = hidden.T @ d_g, hidden.T @ d_c
    return d_hidden, d_weight, d_class_weight


def check_director_scores(
    hidden: Any, weight: Any, class_weight: Any, targets: Any, mask: Any, gamma: float
) -> None:
    """Refuse bad arguments; takes arrays and tensors."""
    check_token_scores(hidden, weight, targets)
    expect_class_weight(class_weight, weight)
    expect_shape("mask", mask, hidden.shape[:1], "one for each row of hidden")
    expect_bool_mask(mask)
    expect_guide("gamma", gamma)


def expect_class_weight(class_weight: Any, weight: Any) -> None:
    """Refuse a classifier's head that is not like the generator's."""
    expect_floats(class_weight=class_weight)
    expect_shape(
        "class_weight", class_weight, tuple(weight.shape), "one column for each word, as weight's"
    )


def expect_guide(name: str, gamma: float) -> None:
    """Refuse a weight of the guide that is not a finite number of at least 0."""
    if not (math.isfinite(gamma) and gamma >= 0):
        refuse(name, "a finite number of at least 0", repr(gamma), "a sign: a guide is followed")
