"""Labels that are not to be trusted: k folds judge each other, and users answer for their labels.

A judge that is trained without a fold says of each of its labels how unlikely it is; that is the
label's mistrust, −log of the chance that the judge gives to what the user said. Folds go by the
text's own hash, so that the same answer is never on both sides. Four ways to clean:

    example     drop the labels that the judge contradicts
    user        drop the users whose labels it contradicts at least half the time
    both        drop these users, and of the others the labels that it contradicts
    soft-purr   drop as many labels as "both" would, those of the highest own mistrust and α times
                that of their user's others

Formulas, and what each would leave if the judge's errors were independent: core/dialogue/trolls.py.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ....core.checks import refuse
from ....core.dialogue.trolls import purr
from ....kernels.model.gpt import GPT
from ...data.dialogue import Template
from ...data.records import Label
from .judge import judged, train_judge
from .training import TrainSettings

WAYS = ("none", "example", "user", "both", "soft-purr")
FOLDS = 3
LEAST = 1e-6  # of a chance, before its logarithm


def fold(label: Label, folds: int = FOLDS) -> int:
    """Return a label's fold, by its text alone: sha256's first byte, modulo `folds`."""
    turns = [message.content for message in label.messages]
    return hashlib.sha256("\n".join([*turns, label.completion]).encode()).digest()[0] % folds


def chances(
    trunk: GPT,
    template: Template,
    labels: Sequence[Label],
    settings: TrainSettings,
    seed: int = 0,
    folds: int = FOLDS,
) -> list[float]:
    """Return of each label the chance that judges of the other folds give to "good".

    Parameters
    ----------
    trunk : GPT
        What each judge begins from.
    template : Template
    labels : sequence of Label
    settings : TrainSettings
    seed : int
    folds : int
        At least 2.

    Returns
    -------
    list of float
    """
    if folds < 2:
        refuse("folds", "at least 2", str(folds), "a judge must not have seen what it judges")
    found = [0.5] * len(labels)
    whose = [fold(label, folds) for label in labels]
    for held_out in range(folds):
        others = [label for label, f in zip(labels, whose, strict=True) if f != held_out]
        places = [i for i, f in enumerate(whose) if f == held_out]
        if not others or not places:
            continue
        judge = train_judge(
            trunk, template, judged(others), [x.label for x in others], settings, seed
        )
        scores = judge.good(judged([labels[i] for i in places]))
        for place, score in zip(places, scores, strict=True):
            found[place] = score
    return found


def mistrust(labels: Sequence[Label], good: Sequence[float]) -> np.ndarray:
    """Return −log of the chance of what each user said, [label]."""
    said = [p if x.label else 1 - p for x, p in zip(labels, good, strict=True)]
    return np.array([-math.log(max(p, LEAST)) for p in said])


def trusted(
    labels: Sequence[Label], good: Sequence[float], way: str, *, alpha: float = 0.5
) -> list[int]:
    """Say which labels stay.

    Parameters
    ----------
    labels : sequence of Label
    good : sequence of float
        From `chances`.
    way : str
        One of `WAYS`. A label without a user is judged by itself.
    alpha : float
        Of soft PURR.

    Returns
    -------
    list of int
        Their places, in order.
    """
    if way not in WAYS:
        refuse("way", f"one of {', '.join(WAYS)}", repr(way))
    against = [(p > 0.5) != bool(x.label) for x, p in zip(labels, good, strict=True)]
    users = [label.user or f"label {i}" for i, label in enumerate(labels)]
    said, contradicted = (
        Counter(users),
        Counter(u for u, a in zip(users, against, strict=True) if a),
    )
    honest = [2 * contradicted[user] < said[user] for user in users]
    keep: dict[str, Callable[[int], bool]] = {
        "none": lambda i: True,
        "example": lambda i: not against[i],
        "user": lambda i: honest[i],
        "both": lambda i: honest[i] and not against[i],
    }
    if way in keep:
        return [i for i in range(len(labels)) if keep[way](i)]
    score = purr(mistrust(labels, good), users, alpha)
    n = len(trusted(labels, good, "both"))
    return sorted(np.argsort(score, kind="stable")[:n].tolist())
