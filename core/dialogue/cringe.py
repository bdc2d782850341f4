"""Learning from what should not be said: unlikelihood, and CRINGE, which says what to say instead.

Both look at a token y that a person found bad, under the model's logits g:

    unlikelihood     −log(1 − p(y)),  p = softmax(g)                        lower y, wherever to
    CRINGE           −log σ(s⁺ − s⁻) = log(1 + e^(s⁻ − s⁺)),  s⁻ = g[y]     lower y below s⁺

s⁺ is the logit of a word that the model would as well have said: of the k + 1 largest logits y is
left out (or the last, if y is none of them), and one of those k is drawn from their softmax. So
what was bad is compared with what is likely, and words that are unlikely anyway stay as they are.

Edge semantics: equal logits stand in the order of their ids; p(y) = 1 costs −log(10⁻²⁰), which is
finite; of an empty answer the end token alone is trained; a batch without a bad token costs 0.

Sources: Welleck et al. 2019, arXiv 1908.04319; Adolphs et al. 2022, arXiv 2211.05826, and ParlAI,
projects/cringe/cringe_loss.py.
"""

from typing import NamedTuple

import numpy as np

from ..checks import refuse
from ..language.director_scores import log_sigmoid
from ..language.token_scores import log_softmax

LEAST = 1e-20  # of 1 − p(y)


def unlikelihood(g: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return −log(1 − p(y)) of each token.

    Parameters
    ----------
    g : numpy.ndarray [token, vocab]
    targets : numpy.ndarray of int [token]
        What should not have been said.

    Returns
    -------
    numpy.ndarray [token]
    """
    p = np.exp(log_softmax(g))
    of_others = np.where(np.arange(g.shape[-1]) == targets[:, None], 0, p).sum(-1)
    return -np.log(np.maximum(of_others, LEAST))


class Alternatives(NamedTuple):
    """What could have been said instead, each [token, k].

    Attributes
    ----------
    logits : numpy.ndarray
        s⁺, the largest first.
    chances : numpy.ndarray
        Of being drawn.
    """

    logits: np.ndarray
    chances: np.ndarray


def alternatives(g: np.ndarray, targets: np.ndarray, k: int) -> Alternatives:
    """Return the k likeliest words other than the target.

    Parameters
    ----------
    g : numpy.ndarray [token, vocab]
    targets : numpy.ndarray of int [token]
    k : int
        At least 1, and below the vocabulary's size.

    Returns
    -------
    Alternatives
    """
    if not 1 <= k < g.shape[-1]:
        refuse("k", f"1 to {g.shape[-1] - 1}, the other words", str(k))
    order = np.argsort(-g, axis=-1, kind="stable")[:, : k + 1]  # [token, k + 1]
    is_target = order == targets[:, None]
    is_target[:, -1] |= ~is_target.any(axis=-1)  # the last, if the target is none of them
    kept = order[~is_target].reshape(len(g), k)
    logits = np.take_along_axis(g, kept, -1)
    return Alternatives(logits, np.exp(log_softmax(logits)))


def cringe(
    g: np.ndarray, targets: np.ndarray, k: int = 1, *, drawn: np.ndarray | None = None
) -> np.ndarray:
    """Return CRINGE's loss of each token.

    Parameters
    ----------
    g : numpy.ndarray [token, vocab]
    targets : numpy.ndarray of int [token]
        What should not have been said.
    k : int
        Of how many alternatives one is drawn.
    drawn : numpy.ndarray of float [token], optional
        Numbers from [0, 1) that decide which. Without them the loss is the mean over all draws.

    Returns
    -------
    numpy.ndarray [token]
    """
    instead = alternatives(g, targets, k)
    bad = np.take_along_axis(g, targets[:, None], -1)  # [token, 1]
    losses = -log_sigmoid(instead.logits - bad)  # [token, k]
    if drawn is None:
        return (instead.chances * losses).sum(-1)
    place = (instead.chances.cumsum(-1)[:, :-1] <= drawn[:, None]).sum(-1)
    return np.take_along_axis(losses, place[:, None], -1)[:, 0]
