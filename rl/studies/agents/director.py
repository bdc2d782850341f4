"""Claim 1: DIRECTOR cuts violations at an equal loss of the generator; what its rivals do.

    lm             the base as it is
    director       γ from 0 to 5; 0 is its generator alone
    rerank         of 8 answers of the base the one that a judge of whole answers likes best
    unlikelihood   the base trained on the same labels; bad tokens weigh α = 1, as published
    cringe         likewise

All learn from the same answers of the base, each labelled harmless or not by the program. What
could have been seen: of the same 8 answers, the first one that the program finds harmless.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from ...agents.blenderbot.director import Director
from ...agents.blenderbot.judge import Judge, Judged, train_judge
from ...agents.blenderbot.objectives import objective
from ...agents.blenderbot.training import Example
from ...agents.blenderbot.training import answer as encoded
from ...agents.world.measures import Answer, measure_all
from ...agents.world.probes import benign, probes
from ...agents.world.rules import HOUSE, harm
from ...data.tasks import Exercise
from ...judging.plots import saved
from .labelled import (
    OTHERS,
    PROBES,
    SETTINGS,
    Row,
    Said,
    answer,
    measured,
    said_by_base,
    start,
    trained,
)

LABELS = 2000
GAMMAS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
CANDIDATES = 8
RIVALS = ("unlikelihood", "cringe")


def run(seed: int) -> list[Row]:
    """Train every arm on the same labels, and measure it."""
    said = said_by_base(seed, LABELS)
    template = start().template
    labels = [
        Example(encoded(template, s.exercise.messages, s.reply), int(not s.harmful)) for s in said
    ]
    rows: list[Row] = []

    def note(arm: str, found: Row, **more: float) -> None:
        rows.append({"claim": 1, "seed": seed, "arm": arm, "labels": len(said)} | more | found)

    note("lm", measured(start().model, seed))
    director = trained(Director(start().model), objective("director"), labels, seed)
    for gamma in GAMMAS:
        note("director", measured(director, seed, gamma), gamma=gamma)
    for rival in RIVALS:
        note(rival, measured(trained(start().model, objective(rival), labels, seed), seed))
    for chooser, found in reranked(said, seed).items():
        note(chooser, found)
    return rows


def reranked(said: Sequence[Said], seed: int) -> dict[str, Row]:
    """Let a judge of whole answers choose among 8; and the program, which bounds what it can do."""
    b = start()
    about = [Judged(s.exercise.messages, s.reply) for s in said]
    judge = train_judge(
        b.model, b.template, about, [int(not s.harmful) for s in said], SETTINGS, seed
    )
    tempting = list(itertools.islice(probes(seed, held_out=True), PROBES))
    others = list(itertools.islice(benign(seed, held_out=True), OTHERS))
    kept: dict[tuple[Exercise, ...], list[list[Answer]]] = {}

    def candidates(asked: Sequence[Exercise]) -> list[list[Answer]]:
        """Sample them once for both choosers."""
        if tuple(asked) not in kept:
            repeated = [e for e in asked for _ in range(CANDIDATES)]
            found = answer(b.model, repeated, seed)
            kept[tuple(asked)] = [
                found[i : i + CANDIDATES] for i in range(0, len(found), CANDIDATES)
            ]
        return kept[tuple(asked)]

    choosers: dict[str, Callable[[Exercise, list[Answer]], int]] = {
        "rerank": lambda e, found: _first_best(judge, e, found),
        "rerank by the program": lambda e, found: next(
            (i for i, a in enumerate(found) if not harm(HOUSE, e.messages, a.text)), 0
        ),
    }

    def measured_with(choose: Callable[[Exercise, list[Answer]], int]) -> Row:
        def chosen(asked: Sequence[Exercise]) -> list[Answer]:
            given = zip(asked, candidates(asked), strict=True)
            return [found[choose(e, found)] for e, found in given]

        return measure_all(chosen, tempting, others).record()

    return {name: measured_with(choose) for name, choose in choosers.items()}


def _first_best(judge: Judge, exercise: Exercise, found: Sequence[Answer]) -> int:
    scores = judge.good([Judged(exercise.messages, a.text) for a in found])
    return max(range(len(scores)), key=scores.__getitem__)


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw violations and gold over γ, the rivals beside."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.3))
    curves = [r for r in rows if r["arm"] == "director"]
    others = [r for r in rows if r["arm"] != "director"]
    names = list(dict.fromkeys(r["arm"] for r in others))
    for axis, title, value in (
        (axes[0], "violations, of probes", lambda r: r["violations"]["share"]),
        (axes[1], "gold, of benign questions", lambda r: r["gold"]),
    ):
        for seed in sorted({r["seed"] for r in curves}):
            part = [r for r in curves if r["seed"] == seed]
            axis.plot([r["gamma"] for r in part], [value(r) for r in part], ".-", color="C0")
        for place, name in enumerate(names):
            found = [value(r) for r in others if r["arm"] == name]
            axis.plot([5.6 + 0.5 * place] * len(found), found, "o", markersize=4, label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("γ of DIRECTOR (line); rivals on the right", fontsize=8)
        axis.set_ylim(0, None)
    for place, name in enumerate(["director", *names]):
        part = [r for r in rows if r["arm"] == name]
        axes[2].plot(
            [r["violations"]["share"] for r in part], [r["gold"] for r in part], "o",
            markersize=4, label=name, color="C0" if name == "director" else f"C{place - 1}",
            fillstyle="none" if name == "director" else "full",
        )  # fmt: skip
    axes[2].set_title("gold over violations", fontsize=9)
    axes[2].set_xlabel("violations", fontsize=8)
    axes[2].legend(fontsize=7)
    for axis in axes:
        axis.tick_params(labelsize=7)
    return [saved(figure, folder / "agents-director.png")]
