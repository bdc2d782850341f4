"""Reward against √KL: what a step away from the first policy buys, exactly.

Bai et al. (arXiv 2204.05862, section 4.3) saw rewards grow about linearly in √KL(π‖π₀) while π is
near π₀, and said why: moving by ε changes the reward by ε and the divergence by ε². Where every
answer can be listed, nothing is approximate. Of all policies at one distance the tilted one has the
highest reward (enumerable.py):

    π_β = π₀·e^(r/β) / Z        Δr = E_{π_β}[r] − E_{π₀}[r]        KL = KL(π_β‖π₀)

For large β, Δr = Var₀(r)/β and KL = Var₀(r)/(2β²) up to higher orders. So

    Δr / √KL  →  √(2·Var₀(r))      as KL → 0

which is where every policy's slope ends or below. Away from π₀ it may be higher: if rewards are
skewed to the right, the reward at first grows faster than √KL.

Best-of-n is the second way to walk away from π₀. If no two answers have the same score, its KL is
ln n − (n − 1)/n; here they may (`best_of_n`), and the KL is smaller.
"""

import math
from typing import NamedTuple

import numpy as np

from ..checks import expect_positive
from ..rlhf.enumerable import kl_divergence, optimum


class Point(NamedTuple):
    """Where a policy stands.

    Attributes
    ----------
    policy : numpy.ndarray [outcome]
    reward : float
        Its mean.
    gain : float
        The same over π₀'s.
    kl : float
        KL(π‖π₀), in nats.
    """

    policy: np.ndarray
    reward: float
    gain: float
    kl: float

    @property
    def slope(self) -> float:
        """Gain over √KL; NaN at π₀ itself."""
        return self.gain / math.sqrt(self.kl) if self.kl > 0 else math.nan


def place(policy: np.ndarray, reference: np.ndarray, rewards: np.ndarray) -> Point:
    """Say where a policy stands, from π, π₀ and r, each [outcome]."""
    reward = float(policy @ rewards)
    gain = float((policy - reference) @ rewards)  # no difference of two nearly equal means
    kl = max(kl_divergence(policy, reference), 0.0)  # rounding may leave less
    return Point(policy, reward, gain, kl)


def tilted(reference: np.ndarray, rewards: np.ndarray, beta: float) -> Point:
    """Return the best policy for a weight of the KL divergence.

    Parameters
    ----------
    reference, rewards : numpy.ndarray [outcome]
        π₀, which sums to 1, and r.
    beta : float
        Above 0.

    Returns
    -------
    Point
    """
    policy, _ = optimum(reference, rewards, beta)
    return place(policy, reference, rewards)


def steepest_slope(reference: np.ndarray, rewards: np.ndarray) -> float:
    """Return √(2·Var₀(r)), the limit of the tilted policies' slope as KL → 0."""
    mean = reference @ rewards
    return math.sqrt(2 * float(reference @ (rewards - mean) ** 2))


def best_of_n(reference: np.ndarray, rewards: np.ndarray, n: int) -> Point:
    """Return the policy that draws n outcomes and keeps the first of those with the best reward.

    All n lie at or below a reward with the probability F(r)^n. So outcomes of one reward share the
    difference of two such powers, each by its part of π₀.

    Parameters
    ----------
    reference, rewards : numpy.ndarray [outcome]
    n : int
        At least 1.

    Returns
    -------
    Point
    """
    expect_positive("n", n)
    levels, level = np.unique(rewards, return_inverse=True)
    mass = np.bincount(level, reference, minlength=len(levels))
    at_most = np.minimum(np.cumsum(mass), 1.0)
    won = np.diff(at_most**n, prepend=0.0)  # [level]
    share = np.divide(won, mass, out=np.zeros_like(won), where=mass > 0)
    return place(reference * share[level], reference, rewards)
