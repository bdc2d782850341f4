"""LaMDA's groundedness: what it claims of facts that no weight can know, with and without tools.

The same model answers the same questions: with its tools, at most 4 rounds; with one round; with
tools that say nothing; and at once. Every question comes with facts of its own.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from ...agents.lamda.tools import (
    KINDS,
    ROUNDS,
    Facts,
    begin,
    count_claims,
    draw_questions,
    grounded,
    research,
)
from ...agents.lamda.training import TOOLED
from ...judging.intervals import Accuracy, accuracy
from ...judging.plots import saved
from .lamda import trained

ASKED = 200
HELD_OUT = 10_000  # seeds of questions that no training drew
Rows = list[dict[str, Any]]
ARMS: dict[str, tuple[int, Callable[[Facts], Facts]]] = {
    "tools": (ROUNDS, lambda facts: facts),
    "one round": (1, lambda facts: facts),
    "silent lookup": (ROUNDS, lambda facts: {}),
    "at once": (0, lambda facts: facts),
}


def run(seed: int) -> Rows:
    """Ask one seed's model.

    Parameters
    ----------
    seed : int

    Returns
    -------
    list of dict
        For each arm: right answers, groundedness, informativeness, citations, each with n.
    """
    training = trained(seed, TOOLED)
    model, template = training.left(TOOLED), training.begun.template
    questions = list(itertools.islice(draw_questions(HELD_OUT + seed), ASKED))
    rows = []
    for arm, (rounds, told) in ARMS.items():
        asked = [(begin(template, q.text), told(q.facts)) for q in questions]
        found = research(model, template, asked, rounds=rounds)
        answers = [r.answer for r in found]
        right = [a.strip() == q.answer for q, a in zip(questions, answers, strict=True)]
        claims = count_claims(questions, answers)
        shares = {
            "grounded": (claims.supported, claims.claiming),
            "informative": (claims.supported, len(answers)),
            "citation": (claims.cited, claims.uncommon),
        }
        rows.append(
            {
                "seed": seed, "arm": arm, "right": accuracy(right).record(),
                **grounded(questions, answers)._asdict(),
                "counts": {n: Accuracy(*c).record() for n, c in shares.items() if c[1]},
                "right_by_kind": {
                    kind: accuracy(
                        [r for q, r in zip(questions, right, strict=True) if q.kind == kind]
                    ).record()
                    for kind in KINDS
                },
                "rounds": sum(len(r.asked) for r in found) / len(found),
                "forced": sum(r.forced for r in found),
            }
        )  # fmt: skip
    return rows


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw groundedness, informativeness and citations of each arm, the mean over seeds.

    Parameters
    ----------
    rows : list of dict
        From `run`.
    folder : pathlib.Path

    Returns
    -------
    list of pathlib.Path
    """
    figure, axis = plt.subplots(figsize=(6, 3.2))
    names = ("grounded", "informative", "citation")
    for i, arm in enumerate(ARMS):
        means = []
        for name in names:
            found = [r[name] for r in rows if r["arm"] == arm and r[name] is not None]
            means.append(sum(found) / len(found) if found else 0.0)
        axis.bar([k + 0.2 * i for k in range(len(names))], means, 0.2, label=arm)
    axis.set_xticks([k + 0.3 for k in range(len(names))], names, fontsize=8)
    axis.set_ylim(0, 1)
    axis.legend(fontsize=7)
    axis.tick_params(labelsize=7)
    return [saved(figure, folder / "agents-lamda_tools.png")]
