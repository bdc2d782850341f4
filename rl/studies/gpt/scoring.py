"""Which score of a choice is right how often, and what calibration does to the luck of an order.

First, choices of unequal lengths, without examples: each score's accuracy. Second, K = 4 examples
in several orders before the same questions between two words: what came last leans a model one way,
so accuracy depends on the order; calibration takes away what the examples alone make likely.
"""

import itertools
import statistics
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from ...data.tasks import Exercise, opposite
from ...evaluation.asking import Shot
from ...evaluation.choices import SCORES, Asked, score_choices
from ...evaluation.multiple_choice import answer_choices
from ...judging.intervals import accuracy
from ...judging.plots import saved
from . import world

N_ITEMS, N_COMPARED, N_ORDERS, K = 300, 60, 10, 4
Rows = list[dict[str, Any]]


def run(seeds: tuple[int, ...] = world.SEEDS) -> Rows:
    """Measure both.

    Parameters
    ----------
    seeds : tuple of int

    Returns
    -------
    list of dict
        `part` is "scores" (an accuracy for each score) or "orders" (one for each order and score).
    """
    rows: Rows = []
    for seed in seeds:
        model = world.decoder(seed)
        items = world.choice_items(N_ITEMS, seed, held_out=True)
        answers = answer_choices(model, world.asking(), items)
        for method in SCORES:
            found = accuracy([answer.is_right(method) for answer in answers])
            rows.append({"part": "scores", "score": method, "seed": seed, **found.record()})
        compared = _opposites(N_COMPARED, True)
        shots = [Shot(world.question(e), e.answer) for e in _opposites(K, False)]
        orders = Random(seed).sample(list(itertools.permutations(shots)), N_ORDERS)
        for number, order in enumerate(orders):
            rng, asked, right = Random(seed), [], []
            for e in compared:
                words = [e.answer, *world.wrong_answers(e, rng, 1)]
                rng.shuffle(words)
                asked.append(Asked(world.question(e), words, order))
                right.append(words.index(e.answer))
            scored = score_choices(model, world.asking(), asked, methods=("sum", "calibrated"))
            for method in ("sum", "calibrated"):
                picks = [s.pick(method) == r for s, r in zip(scored, right, strict=True)]
                row = {"part": "orders", "score": method, "order": number, "seed": seed}
                rows.append({**row, **accuracy(picks).record()})
    return rows


def _opposites(n: int, held_out: bool) -> list[Exercise]:
    """Return questions for the opposite of a word, each once."""
    rng = Random(f"opposites {held_out}")
    found: dict[str, Exercise] = {}
    while len(found) < n:
        e = opposite(rng)
        if e.is_held_out() == held_out:
            found[world.question(e)] = e
    return list(found.values())


def spread(rows: Rows, score: str, seed: int) -> float:
    """Return the standard deviation of accuracy over the orders of one seed."""
    return statistics.stdev(
        r["accuracy"] for r in rows
        if r["part"] == "orders" and r["score"] == score and r["seed"] == seed
    )  # fmt: skip


def draw(rows: Rows, path: Path) -> Path:
    """Draw each score's accuracy, and the accuracy of each order with and without calibration.

    Parameters
    ----------
    rows : list of dict
        From `run`.
    path : pathlib.Path
        Of the picture.

    Returns
    -------
    pathlib.Path
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    seeds = sorted({row["seed"] for row in rows})
    for shift, seed in enumerate(seeds):
        part = [row for row in rows if row["part"] == "scores" and row["seed"] == seed]
        places = np.arange(len(part)) + 0.2 * (shift - 1)
        low, high = np.array([row["interval"] for row in part]).T
        middle = np.array([row["accuracy"] for row in part])
        bars = [middle - low, high - middle]
        left.errorbar(places, middle, bars, fmt="o", markersize=3, label=f"seed {seed}")
    left.set_xticks(range(len(SCORES)), [score.replace("_", "\n") for score in SCORES])
    left.axhline(0.25, linestyle=":", color="grey", linewidth=1, label="a guess")
    left.set_title(f"{N_ITEMS} questions of 4 choices, no example", fontsize=9)
    ends = []
    for shift, (seed, score) in enumerate(itertools.product(seeds, ("sum", "calibrated"))):
        shares = [
            row["accuracy"] for row in rows
            if row["part"] == "orders" and row["score"] == score and row["seed"] == seed
        ]  # fmt: skip
        colour = "C0" if score == "sum" else "C1"
        right.plot([shift] * len(shares), shares, "o", color=colour, markersize=4, alpha=0.5)
        ends.append(f"{score}\nseed {seed}\nsd {spread(rows, score, seed):.3f}")
    right.set_xticks(range(len(ends)), ends)
    right.axhline(0.5, linestyle=":", color="grey", linewidth=1)
    right.set_title(f"{N_ORDERS} orders of the same {K} examples", fontsize=9)
    for axis in (left, right):
        axis.set_ylim(0, 1.03)
        axis.axhline(1, color="grey", linewidth=0.5)
        axis.tick_params(labelsize=7)
    left.legend(fontsize=7)
    return saved(figure, path)
