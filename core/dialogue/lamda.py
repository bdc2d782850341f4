"""LaMDA: one model that says something, rates what it said, and keeps what is safe and good.

    <context> RESPONSE <response>                            loss on the response
    <context> RESPONSE <response> <attribute> <rating>       loss on the rating alone

The attributes are sensible, specific, interesting and unsafe; a rating is the token 0 or 1. To
answer, several responses are sampled, those with P(safe) below a threshold are dropped, and of the
others the one of the highest 3·P(sensible) + P(specific) + P(interesting) is said.

Source: Thoppilan et al. 2022, arXiv 2201.08239, sections 4 to 6. Not stated there, and decided
here: how a rating's probability is read (`rating`), whether the threshold keeps who is at it (it
does), and what is said when nobody is left (`choose`).
"""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np

from ..checks import expect_shape, refuse

WEIGHTS = (3.0, 1.0, 1.0)  # of sensible, specific and interesting
TIED = 1e-6  # qualities closer than this are equal: 3·.85 + .6 + .3 is 3.45 but for rounding
WHEN_NONE = ("refuse", "safest")


def rating(logits: np.ndarray, zero: int, one: int) -> tuple[np.ndarray, np.ndarray]:
    """Read P(rating = 1) where a rating token is due.

    The two ratings share the whole: P = p₁ / (p₀ + p₁) = σ(z₁ − z₀). What the model gives to other
    tokens is told, since a rating of a model that would say something else means little.

    Parameters
    ----------
    logits : numpy.ndarray [..., vocab]
        At the attribute's token.
    zero, one : int
        Ids of the two rating tokens.

    Returns
    -------
    p_one : numpy.ndarray [...]
        Of rating 1, against rating 0.
    elsewhere : numpy.ndarray [...]
        The probability of every other token together.
    """
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    p_one = 1 / (1 + np.exp(z[..., zero] - z[..., one]))
    return p_one, 1 - p[..., zero] - p[..., one]


def quality(ratings: np.ndarray) -> np.ndarray:
    """Weigh ratings [..., 3]: 3·P(sensible) + P(specific) + P(interesting), shape [...]."""
    ratings = np.asarray(ratings)
    expect_shape("ratings", ratings, (*ratings.shape[:-1], 3))
    return ratings @ np.array(WEIGHTS)


def choose(
    ratings: np.ndarray, safe: np.ndarray, threshold: float, when_none: str = "refuse"
) -> int | None:
    """Choose what to say.

    Parameters
    ----------
    ratings : numpy.ndarray [candidate, 3]
        P(sensible), P(specific), P(interesting).
    safe : numpy.ndarray [candidate]
        P(rating of unsafe is 0).
    threshold : float
        A candidate is kept if P(safe) is at least this: 0 keeps all, and above 1 none is.
    when_none : str
        If none is kept: "refuse", or "safest" for that of the highest P(safe).

    Returns
    -------
    int or None
        Its index, of equal ones the first; None to refuse.
    """
    if when_none not in WHEN_NONE:
        refuse("when_none", f"one of {', '.join(WHEN_NONE)}", repr(when_none))
    kept = np.flatnonzero(np.asarray(safe) >= threshold)
    if len(kept):
        return _first_best(quality(ratings), kept)
    return None if when_none == "refuse" else _first_best(safe, np.arange(len(safe)))


def _first_best(values: np.ndarray, among: np.ndarray) -> int | None:
    """Return the first index among some whose value is highest, but for rounding."""
    if not len(among):
        return None
    best = np.asarray(values)[among]
    return int(among[np.flatnonzero(best >= best.max() - TIED)[0]])


# --- labels --------------------------------------------------------------------------------------


def consistent(sensible: int, specific: int, interesting: int) -> tuple[int, int, int]:
    """Return labels as LaMDA's raters give them: what makes no sense is not specific, and so on.

    Source: section 5. A rater's "maybe" is a 0.
    """
    specific &= sensible
    return sensible, specific, interesting & specific


def majority(votes: Sequence[int], needed: int) -> int:
    """Return 1 if at least so many votes are 1: 3 of 5 for quality, 2 of 3 for each objective."""
    return int(sum(votes) >= needed)


def safe_label(no_harm: Sequence[Sequence[int]], needed: int = 2) -> int:
    """Return 1 if enough raters say "no harm" for every objective.

    Parameters
    ----------
    no_harm : sequence of sequence of int
        For each objective each rater's vote, 1 for no harm. No objective: nothing to break.
    needed : int
        Votes for each objective.
    """
    return int(all(majority(votes, needed) for votes in no_harm))


def majority_right(n: int, needed: int, error: float) -> float:
    """Return how likely `needed` of `n` independent raters are right, each wrong with `error`."""
    return sum(
        comb(n, right) * (1 - error) ** right * error ** (n - right)
        for right in range(needed, n + 1)
    )


def ssi(labels: np.ndarray) -> float:
    """Return the mean of sensible, specific and interesting, labels [..., 3] of 0 or 1."""
    labels = np.asarray(labels)
    expect_shape("labels", labels, (*labels.shape[:-1], 3))
    return float(labels.mean())


# --- what a filter does --------------------------------------------------------------------------


class Filtered(NamedTuple):
    """What a filter leaves of independent candidates.

    Attributes
    ----------
    unsafe : float
        Share of the kept that are unsafe.
    none_kept : float
        Chance that all n candidates are dropped.
    all_unsafe : float
        Chance that all n candidates are unsafe: no filter can then say anything.
    """

    unsafe: float
    none_kept: float
    all_unsafe: float


def filtered(unsafe: float, caught: float, false_alarm: float, n: int) -> Filtered:
    """Predict what a filter does to a model of which the rate of unsafe candidates is known.

    Parameters
    ----------
    unsafe : float
        Share of the model's candidates that are unsafe.
    caught : float
        P(dropped | unsafe).
    false_alarm : float
        P(dropped | safe).
    n : int
        Candidates.

    Returns
    -------
    Filtered
        `unsafe` is 0 where nothing is ever kept.
    """
    passed = unsafe * (1 - caught)
    kept = passed + (1 - unsafe) * (1 - false_alarm)
    return Filtered(passed / kept if kept else 0.0, (1 - kept) ** n, unsafe**n)


# --- what is backed by a source ------------------------------------------------------------------


class Grounding(NamedTuple):
    """How much of what a model claims of the world is backed by a source; None: nothing to count.

    Attributes
    ----------
    grounded : float or None
        Answers whose claims are supported, of those that claim something.
    informative : float or None
        The same, of all answers: who claims nothing is grounded, and says nothing.
    citation : float or None
        Answers with a right address, of those whose claims are no common knowledge.
    """

    grounded: float | None
    informative: float | None
    citation: float | None


def grounding(
    answers: int, claiming: int, supported: int, uncommon: int = 0, cited: int = 0
) -> Grounding:
    """Measure groundedness, informativeness and the accuracy of citations.

    Parameters
    ----------
    answers : int
        All of them.
    claiming : int
        Those that claim something of the world.
    supported : int
        Those whose claims a source supports.
    uncommon : int
        Those whose claims are no common knowledge.
    cited : int
        Those of them that name the right address.

    Returns
    -------
    Grounding
    """
    if not (0 <= supported <= claiming <= answers and 0 <= cited <= uncommon <= claiming):
        got = f"{answers}, {claiming}, {supported}, {uncommon}, {cited}"
        refuse("counts", "supported and uncommon within claiming within answers", got)

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return Grounding(share(supported, claiming), share(supported, answers), share(cited, uncommon))
