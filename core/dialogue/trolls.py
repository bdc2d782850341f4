"""Who lies? Mistrust of labels, example by example and user by user, and what each is worth.

A model that saw none of a label judges it; where the two disagree, the label is mistrusted. A
single disagreement may be the model's own mistake. But a user who is contradicted again and again
is one: ten judgements say more than one. Three ways to clean, and what is left, exactly:

    by example   drop the labels that the model contradicts
    by user      drop the users who are contradicted at least `most` times
    both         drop these users, and of the others the labels that are contradicted

With a the model's share of right judgements and f the share of a user's labels that is turned
round, a label is (wrong, contradicted) with chance f·a, (wrong, believed) f·(1 − a), (right,
contradicted) (1 − f)·(1 − a), (right, believed) (1 − f)·a: `Kept` sums over how often n labels are
contradicted. Soft PURR scores instead of deciding: a label's own mistrust, and α times that of the
same user's other labels. A user of one label has no others: the own mistrust is all there is.

Source: Ju et al. 2022, arXiv 2208.03295.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Kept(NamedTuple):
    """What is left after cleaning.

    Attributes
    ----------
    share : float
        Labels that stay.
    wrong : float
        The share of wrong labels among these.
    """

    share: float
    wrong: float


def contradicted(right: float, flipped: float) -> float:
    """Return the chance that a model, `right` so often, contradicts a label, so often turned."""
    return flipped * right + (1 - flipped) * (1 - right)


def chance_of_at_least(most: int, n: int, p: float) -> float:
    """Return P(X ≥ most) of a binomial X with n trials of chance p."""
    return sum(_binomial(k, n, p) for k in range(most, n + 1))


def _binomial(k: int, n: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def left_after(
    right: float,
    *,
    by_example: bool = False,
    by_user: bool = False,
    flipped: float = 0.8,
    trolls: float = 0.5,
    n: int = 10,
    most: int = 5,
) -> Kept:
    """Say what cleaning leaves of labels, some of whose users are trolls.

    Parameters
    ----------
    right : float
        a, the model's share of right judgements, each independent.
    by_example, by_user : bool
        What is dropped.
    flipped : float
        f, the share of a troll's labels that is turned round; a helper turns none.
    trolls : float
        Their share of the users.
    n : int
        Labels of each user.
    most : int
        A user who is contradicted so often is dropped.

    Returns
    -------
    Kept
    """
    kept = wrong = 0.0
    for share, f in ((1 - trolls, 0.0), (trolls, flipped)):
        against = contradicted(right, f)
        wrong_if_against = f * right / against if against else 0.0
        wrong_if_believed = f * (1 - right) / (1 - against) if against < 1 else 0.0
        for k in range(most if by_user else n + 1):
            chance = share * _binomial(k, n, against)
            stay = n - k if by_example else n
            kept += chance * stay
            wrong += chance * (n - k) * wrong_if_believed
            wrong += 0.0 if by_example else chance * k * wrong_if_against
    return Kept(kept / n, wrong / kept if kept else 0.0)


def purr(mistrust: np.ndarray, users: Sequence[str], alpha: float = 0.5) -> np.ndarray:
    """Return soft PURR's score of each label: its own mistrust, and α times its user's others'.

    Parameters
    ----------
    mistrust : numpy.ndarray [label]
        How much the model mistrusts each, such as −log of the chance that it gives to the label.
    users : sequence of str
        Whose each is.
    alpha : float

    Returns
    -------
    numpy.ndarray [label]
    """
    _, whose = np.unique(np.asarray(users), return_inverse=True)
    of_user = np.bincount(whose, weights=mistrust)[whose]
    return mistrust + alpha * (of_user - mistrust)


def mean_of_user(mistrust: np.ndarray, users: Sequence[str]) -> np.ndarray:
    """Return of each label the mean mistrust of its user's others; of a single label, its own."""
    _, whose = np.unique(np.asarray(users), return_inverse=True)
    summed, n = np.bincount(whose, weights=mistrust)[whose], np.bincount(whose)[whose]
    return np.where(n > 1, (summed - mistrust) / np.maximum(n - 1, 1), mistrust)
