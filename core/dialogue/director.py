"""DIRECTOR: what is spoken with a second head, what trains it, and a world in which both are exact.

A hidden state feeds two heads over one vocabulary: the generator's g and the classifier's c. Spoken
is log_softmax(log_softmax(g) + γ_infer·log σ(c)), which core/language/director_scores.py computes
from the states. Trained is, for each example (an utterance, its label shared by all its tokens),

    ( Σ_LM −log softmax(g)[y]  +  γ_train·Σ_labelled [BCE(c[y], label) + ν·N(c, y)] )
    ────────────────────────────────────────────────────────────────────────────────
                   number of LM tokens + number of labelled tokens

summed over the batch. The classifier is asked of the one word y that was said; of the others N
says that nobody knows: N(c, y) = mean over v ≠ y of (σ(c[v]) − ½)², with the coefficient ν.

That is a mean for each example, as ParlAI has it: a short utterance weighs as much as a long one.
`per="token"` divides by the tokens of the whole batch instead, each kind by its own number, as
every other loss of gptwin does.

Edge semantics: an example in which nothing is trained contributes 0 (ParlAI gives 0/0); an empty
answer has its end token alone; a token that is trained both as language and as a good utterance
counts twice in the denominator, so each of its two weights halves.

Source: Arora et al. 2022, arXiv 2206.07694; ParlAI, projects/director/director_agent.py.
"""

from typing import NamedTuple

import numpy as np

from ..checks import refuse
from ..language.director_scores import expect_guide, guided, log_sigmoid, sigmoid
from ..language.token_scores import log_softmax
from ..rlhf.enumerable import all_sequences, kl_divergence, log_probs_forward, prefix_rows

GOOD, BAD, UNLABELLED = 1, 0, -1


def spoken(g: np.ndarray, c: np.ndarray, gamma: float) -> np.ndarray:
    """Return the log-probabilities that are spoken, [..., vocab], of both heads' logits.

    Parameters
    ----------
    g, c : numpy.ndarray [..., vocab]
    gamma : float
        γ_infer, at least 0; 0: the generator alone.

    Returns
    -------
    numpy.ndarray [..., vocab]
    """
    expect_guide("gamma", gamma)
    return log_softmax(guided(g, c, gamma))


def class_loss(c: np.ndarray, targets: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return −log of the chance that σ(c[y]) gives to the label, [token]; 0 where there is none.

    `c` is [token, vocab]; `targets` and `labels` (1 good, 0 bad, −1 none) are [token].
    """
    said = np.take_along_axis(c, targets[..., None], -1)[..., 0]
    losses = -log_sigmoid(np.where(labels == GOOD, said, -said))
    return np.where(labels == UNLABELLED, 0.0, losses)


def neutrality(c: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return N: how far the words that nobody said are from ½, [token]; 0 for one word alone."""
    apart = (sigmoid(c) - 0.5) ** 2  # [token, vocab]
    of_target = np.take_along_axis(apart, targets[..., None], -1)[..., 0]
    return (apart.sum(-1) - of_target) / max(c.shape[-1] - 1, 1)


def director_loss(
    g: np.ndarray,
    c: np.ndarray,
    targets: np.ndarray,
    language: np.ndarray,
    labels: np.ndarray,
    *,
    gamma: float = 0.5,
    neutral: float = 0.0,
    per: str = "example",
) -> float:
    """Compute DIRECTOR's loss of a batch.

    Parameters
    ----------
    g, c : numpy.ndarray [example, time, vocab]
        Both heads' logits.
    targets : numpy.ndarray of int [example, time]
        The words that were said; any id where nothing is trained.
    language : numpy.ndarray of bool [example, time]
        True where the generator learns to say the target.
    labels : numpy.ndarray of int [example, time]
        1: part of a good utterance, 0: of a bad one, −1: of none.
    gamma : float
        γ_train.
    neutral : float
        ν, the coefficient of the label normalisation; 0: none.
    per : str
        "example", as published, or "token".

    Returns
    -------
    float
    """
    if per not in ("example", "token"):
        refuse("per", "'example' or 'token'", repr(per))
    expect_guide("gamma", gamma)
    expect_guide("neutral", neutral)
    log_p = np.take_along_axis(log_softmax(g), targets[..., None], -1)[..., 0]
    of_language = np.where(language, -log_p, 0.0)  # [example, time]
    labelled = labels != UNLABELLED
    of_class = class_loss(c, targets, labels)
    of_class = of_class + neutral * np.where(labelled, neutrality(c, targets), 0.0)
    if per == "token":
        n_language, n_labelled = max(language.sum(), 1), max(labelled.sum(), 1)
        return float(of_language.sum() / n_language + gamma * of_class.sum() / n_labelled)
    counted = language.sum(-1) + labelled.sum(-1)  # [example]
    summed = of_language.sum(-1) + gamma * of_class.sum(-1)
    return float((summed / np.maximum(counted, 1)).sum())


# --- a world in which everything can be listed ----------------------------------------------------


class Spoken(NamedTuple):
    """What a guide does to a language model, exactly.

    Attributes
    ----------
    word : float
        The probability of the forbidden word in each place.
    violation : float
        That a sequence has it anywhere.
    kl : float
        KL(spoken ‖ generator) of whole sequences, in nats.
    """

    word: float
    violation: float
    kl: float


def guided_world(
    gamma: float, *, forbidden: int = 4, sure: float = 2.0, generator: np.ndarray | None = None
) -> Spoken:
    """Guide the enumerable language model away from one word, and list all 125 sequences.

    The classifier says +`sure` of every word but the forbidden one, of which it says −`sure`.

    Parameters
    ----------
    gamma : float
        γ_infer.
    forbidden : int
        A word, 0 to 4.
    sure : float
        The size of the classifier's logits.
    generator : numpy.ndarray [prefix, word], optional
        A table of logits, as in core/rlhf/enumerable.py; all words alike by default.

    Returns
    -------
    Spoken
    """
    expect_guide("gamma", gamma)
    table = np.zeros((31, 5)) if generator is None else generator
    opinion = np.full_like(table, sure)
    opinion[:, forbidden] = -sure
    sequences = all_sequences()
    logits = guided(table, opinion, gamma)
    p, q = (np.exp(log_probs_forward(x, sequences)[0].sum(1)) for x in (logits, table))
    broken = (sequences == forbidden).any(axis=1)
    first = prefix_rows(sequences)[0, 0]
    word = np.exp(log_softmax(logits[first])[forbidden])
    return Spoken(float(word), float(p[broken].sum()), kl_divergence(p, q))
