"""Self-consistency: many answers to one question, and the one that most of them agree on.

Wang et al. 2022 (arXiv 2203.11171). Of answers that are given equally often, the one that was seen
first wins: draws are in no particular order, so this is the same as choosing among them by lot, and
`majority_accuracy` says exactly what voting is worth.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...core.checks import expect_positive, refuse


def majority(answers: Sequence[str]) -> str:
    """Return the answer that is given most often, of equals the first.

    Parameters
    ----------
    answers : sequence of str
        An empty one has no vote.

    Returns
    -------
    str
        Empty if nobody has a vote.
    """
    counts = Counter(answer for answer in answers if answer)
    return counts.most_common(1)[0][0] if counts else ""


def weighted_majority(answers: Sequence[str], log_probs: Sequence[float]) -> str:
    """Return the answer whose replies are likeliest together, of equals the first.

    Parameters
    ----------
    answers : sequence of str
        An empty one has no vote.
    log_probs : sequence of float
        Of each reply; its probability is the weight of its vote.

    Returns
    -------
    str
        Empty if nobody has a vote.
    """
    weights = log_weights(answers, log_probs)
    return max(weights, key=weights.__getitem__, default="")


def log_weights(answers: Sequence[str], log_probs: Sequence[float]) -> dict[str, float]:
    """Return the logarithm of each answer's summed probabilities; log, so that none becomes 0."""
    found: dict[str, float] = {}
    for answer, log_prob in zip(answers, log_probs, strict=True):
        if answer:
            found[answer] = float(np.logaddexp(found.get(answer, -math.inf), log_prob))
    return found


def majority_accuracy(right: float, wrong: Sequence[float], n: int) -> float:
    """Return how likely the majority of `n` independent answers is right.

    Voting pays where the right answer is likelier than each wrong one, be it below ½, and costs
    where a wrong one is likelier.

    Parameters
    ----------
    right : float
        Probability of the right answer.
    wrong : sequence of float
        Of each wrong one; all of them sum to 1.
    n : int
        Answers; ties are broken by lot.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the probabilities are none.
    """
    expect_positive("n", n)
    if min([right, *wrong]) < 0 or abs(right + sum(wrong) - 1) > 1e-9:
        expected = "probabilities of 0 or more, that sum to 1 with the right one's"
        refuse("wrong", expected, f"{right} and {list(wrong)}")
    return sum(
        _binomial(n, right)[most] * _chance_to_win(wrong, n - most, most, 1 - right)
        for most in range(1, n + 1)
    )


def _chance_to_win(wrong: Sequence[float], left: int, most: int, mass: float) -> float:
    """Return the chance that `most` votes win, `left` others being among the wrong answers.

    The votes are dealt out to one wrong answer after the other: `state[m, t]` is the chance that m
    are left, no answer has more than `most`, and t have as many.
    """
    state = np.zeros((left + 1, len(wrong) + 1))
    state[left, 0] = 1.0
    for chance in wrong:
        share = min(chance / mass, 1.0) if mass > 0 else 1.0
        dealt = np.zeros_like(state)
        for m in range(left + 1):
            for votes, p in enumerate(_binomial(m, share)[: most + 1]):
                if votes == most:
                    dealt[m - votes, 1:] += p * state[m, :-1]
                else:
                    dealt[m - votes] += p * state[m]
        state, mass = dealt, mass - chance
    return float((state[0] / np.arange(1, state.shape[1] + 1)).sum())


def _binomial(n: int, p: float) -> list[float]:
    """Return the chance of 0, 1, ..., n successes."""
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
