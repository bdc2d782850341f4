"""How right a preference model can be, and what its pretraining learns from.

**The ceiling.** People who compare as Bradley and Terry say, with noise τ, prefer the better of two
answers with the probability σ(gap/τ), gap being the difference of what they are worth. Who knows
the worth agrees with them so often and no oftener; of two answers worth the same, half the time.

**The fit.** Bai et al. (arXiv 2204.05862, section 3.2 and A.3) give the accuracy of a preference
model with P parameters that has seen D comparisons:

    accuracy ≈ 0.72 + 0.007·ln(P/10¹¹) + 0.015·ln(D/(8·10⁴))

They do not say which logarithm; it is the natural one here. With the decimal one their smallest
model would be right 69.3% of the time at full data, instead of 65.7%.

**Pretraining** (Askell et al., arXiv 2112.00861, section 4). Answers to one question that the
public voted on make pairs, the better one first, by a score that any site's votes give:

    score = round(log2(1 + votes)), and 1 more if who asked accepted the answer;  −1 below 0 votes
"""

import math

import numpy as np

from ..checks import expect_positive, refuse, whole
from ..rlhf.reward_loss import sigmoid

NEGATIVE = -1


def ceiling(gaps: np.ndarray, noise: float) -> float:
    """Return the accuracy to be expected of who knows what every answer is worth.

    Parameters
    ----------
    gaps : numpy.ndarray [pair]
        Differences of worth, of either sign.
    noise : float
        τ, above 0.

    Returns
    -------
    float
        The mean of σ(|gap|/τ).

    Raises
    ------
    ValueError
        If there is no pair, or no noise.
    """
    expect_positive("noise", noise)
    gaps = np.abs(np.asarray(gaps, dtype=np.float64))
    if gaps.size == 0:
        refuse("gaps", "a pair at least", "none", "prompts whose answers are all alike")
    return float(sigmoid(gaps / noise).mean())


def fitted_accuracy(n_parameters: float, n_pairs: float) -> float:
    """Return Bai et al.'s accuracy for a size and a number of comparisons, both above 0."""
    expect_positive("n_parameters", n_parameters)
    expect_positive("n_pairs", n_pairs)
    return 0.72 + 0.007 * math.log(n_parameters / 1e11) + 0.015 * math.log(n_pairs / 8e4)


def vote_score(votes: int, *, accepted: bool = False) -> int:
    """Score an answer by its votes, as preference-model pretraining does.

    Parameters
    ----------
    votes : int
        Upvotes minus downvotes.
    accepted : bool
        Whether who asked accepted it. An answer voted below 0 stays at −1.

    Returns
    -------
    int
    """
    votes = whole("votes", votes)
    if votes < 0:
        return NEGATIVE
    return round(math.log2(1 + votes)) + int(accepted)
