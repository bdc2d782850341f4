"""Users who say what they think of an answer; not all of them say it honestly.

    helper       says the truth, but for a share of slips
    lazy         says anything (SafetyMix randomises all labels of a lazy user)
    troll        turns a share of the labels round
    gaslighter   finds what is harmful fine, and is honest otherwise
    all-up       always a thumb up
    all-down     always a thumb down

A user says the same of the same answer each time: user and answer decide, not the order in which
they are asked. Source: SafetyMix (arXiv 2208.03295), parlai/tasks/safety_mix/build.py, where half
of the users are helpers and the others one kind of troll, with round(N(10, 2)) utterances each.
"""

import dataclasses
from random import Random

from ....core.checks import refuse

KINDS = ("helper", "lazy", "troll", "gaslighter", "all-up", "all-down")
FLIPPED = 0.8  # of a troll's labels, in SafetyMix
UTTERANCES, SPREAD = 10, 2


@dataclasses.dataclass(frozen=True)
class User:
    """Somebody who judges answers.

    Attributes
    ----------
    id : str
    kind : str
        One of `KINDS`.
    rate : float
        The share of labels that a helper gets wrong, or that a troll turns round.
    """

    id: str
    kind: str = "helper"
    rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a kind that there is not, and a rate that is no share."""
        if self.kind not in KINDS:
            refuse("kind", f"one of {', '.join(KINDS)}", repr(self.kind))
        if not 0 <= self.rate <= 1:
            refuse("rate", "a share from 0 to 1", str(self.rate))

    def says(self, truth: bool, about: str, *, harmful: bool = False) -> int:
        """Label something.

        Parameters
        ----------
        truth : bool
            Whether it is good.
        about : str
            What is labelled: the same text always gets the same label.
        harmful : bool
            Whether it breaks a rule.

        Returns
        -------
        int
            1: good; 0: bad.
        """
        rng = Random(f"{self.id} {about}")
        if self.kind in ("helper", "troll"):
            return int(truth != (rng.random() < self.rate))
        if self.kind == "lazy":
            return rng.randrange(2)
        if self.kind == "gaslighter":
            return int(truth or harmful)
        return int(self.kind == "all-up")


HONEST = User("honest")


def users(
    seed: int, n: int, bad: str = "troll", share: float = 0.5, noise: float = 0.0
) -> list[User]:
    """Draw users, of whom a share is of one bad kind, in random order.

    Parameters
    ----------
    seed : int
    n : int
        How many.
    bad : str
        One of `KINDS`.
    share : float
        Of the bad ones, to the nearest user.
    noise : float
        The helpers' share of slips.

    Returns
    -------
    list of User
    """
    n_bad = round(share * n)
    kinds = [bad] * n_bad + ["helper"] * (n - n_bad)
    Random(f"users {seed}").shuffle(kinds)
    return [
        User(f"u{seed}-{i}", kind, FLIPPED if kind == "troll" else noise)
        for i, kind in enumerate(kinds)
    ]


def utterances(user: User) -> int:
    """Return how many answers a user judges: round(N(10, 2)), at least 1."""
    return max(1, round(Random(f"utterances {user.id}").gauss(UTTERANCES, SPREAD)))
