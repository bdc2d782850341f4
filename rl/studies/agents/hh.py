"""Anthropic's HH: eight claims on three seeds, and their pictures. What is measured: hh_claims.py.

python -m gptwin.rl.studies.agents hh
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....core.dialogue.elo import Ratings, fit_ratings
from ...judging.intervals import wilson
from ...judging.plots import plt, saved
from . import hh_claims as claims

Rows = Sequence[Mapping[str, Any]]
CLAIMS: dict[str, Callable[[int, str], Any]] = {
    "frontier": claims.frontier,
    "parting": claims.parting,
    "accuracy": claims.accuracy,
    "mixing": claims.mixing,
    "distillation": claims.distillation,
    "online": claims.online,
    "votes": claims.votes,
    "strangers": claims.strangers,
}
FOLDER = "runs/agents/base"  # of the models that agents begin from, shared with them
NEAR = 1.0  # nats: up to here reward over √KL is fitted


def run(seed: int) -> list[dict[str, Any]]:
    """Measure every claim on a seed.

    Parameters
    ----------
    seed : int
        Of models, data and people.

    Returns
    -------
    list of dict
        Each row with the name of its claim and the seed.
    """
    return [
        {"claim": name, "seed": seed, **row}
        for name, measure in CLAIMS.items()
        for row in measure(seed, FOLDER)
    ]


def chosen(rows: Rows, claim: str, **which: Any) -> list[Mapping[str, Any]]:
    """Return the rows of a claim that have certain entries."""
    return [
        row for row in rows
        if row.get("claim") == claim and all(row.get(k) == v for k, v in which.items())
    ]  # fmt: skip


def pooled(rows: Rows) -> tuple[float, float, float, int]:
    """Add up counts of all seeds: share, both ends of Wilson's interval, n."""
    right, n = sum(row["right"] for row in rows), sum(row["n"] for row in rows)
    return right / n, *wilson(right, n), n


def linear_in_root(rows: Rows) -> tuple[float, float]:
    """Fit gain = a·√KL through the origin.

    Parameters
    ----------
    rows : sequence of dict
        With `kl` and `gain`; two at least whose gains differ.

    Returns
    -------
    a, r_squared : float
    """
    root = np.sqrt([row["kl"] for row in rows])
    gain = np.array([row["gain"] for row in rows])
    a = float(root @ gain / (root @ root))
    left = ((gain - a * root) ** 2).sum() / ((gain - gain.mean()) ** 2).sum()
    return a, float(1 - left)


def rated(rows: Rows) -> tuple[list[str], Ratings]:
    """Rate the policies of all seeds' tournaments together, the first at 0."""
    tables = chosen(rows, "online", part="wins")
    wins = np.sum([row["wins"] for row in tables], axis=0)
    return list(tables[0]["players"]), fit_ratings(wins, fixed=0)


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw the curves.

    Parameters
    ----------
    rows : sequence of dict
        From `run`, of several seeds; a claim that is not there is left out.
    folder : pathlib.Path
        Of the pictures.

    Returns
    -------
    list of pathlib.Path
    """
    pictures = {
        "frontier": _frontier, "parting": _parting, "accuracy": _accuracies,
    }  # fmt: skip
    return [
        saved(figure(rows), folder / f"agents-hh-{name}.png")
        for name, figure in pictures.items()
        if chosen(rows, name)
    ]


def _frontier(rows: Rows) -> Any:
    """Reward over √KL, a world each."""
    seeds = sorted({row["seed"] for row in chosen(rows, "frontier")})
    figure, axes = plt.subplots(1, len(seeds), figsize=(3.4 * len(seeds), 3.0), squeeze=False)
    for axis, seed in zip(axes[0], seeds, strict=True):
        for by, style in (("tilted", "-"), ("best of n", "s"), ("PPO", ".")):
            part = chosen(rows, "frontier", seed=seed, by=by)
            root = [math.sqrt(row["kl"]) for row in part]
            axis.plot(root, [row["gain"] for row in part], style, markersize=4, label=by)
        most = max(math.sqrt(row["kl"]) for row in chosen(rows, "frontier", seed=seed))
        limit = part[0]["limit"]
        axis.plot([0, most], [0, limit * most], "k:", linewidth=1, label="√(2·Var)·√KL")
        _frame(axis, f"enumerable world {seed}, exact", "√KL from the reference")
    axes[0][0].set_ylabel("reward gained", fontsize=8)
    axes[0][0].legend(fontsize=7)
    return figure


def _parting(rows: Rows) -> Any:
    """What both judges and gold gain over √KL: best-of-n above, PPO below."""
    halves = sorted({row["half"] for row in chosen(rows, "parting")})
    figure, axes = plt.subplots(2, len(halves), figsize=(4.4 * len(halves), 5.6), squeeze=False)
    for (i, by), (j, half) in itertools.product(enumerate(("best of n", "PPO")), enumerate(halves)):
        axis, part = axes[i][j], chosen(rows, "parting", by=by, half=half)
        step = "n" if by == "best of n" else "iteration"
        for name, colour in (("train", "C0"), ("test", "C1"), ("gold", "C2")):
            for k, seed in enumerate(sorted({row["seed"] for row in part})):
                of_seed = [row for row in part if row["seed"] == seed]
                root = [math.sqrt(row["kl"]) for row in of_seed]
                label = {"train": "the judge that is followed", "test": "the other half's judge",
                         "gold": "gold"}[name] if k == 0 else None  # fmt: skip
                axis.plot(root, [row[f"{name}_gain"] for row in of_seed], ".-", color=colour,
                          linewidth=0.8, markersize=4, label=label)  # fmt: skip
        axis.axhline(0, color="grey", linewidth=0.5)
        most = max(row[step] for row in part)
        _frame(axis, f"{by} (to {most}), {half} comparisons a half", "√KL from the base")
    axes[0][0].legend(fontsize=7)
    axes[0][0].set_ylabel("gain", fontsize=8)
    axes[1][0].set_ylabel("gain", fontsize=8)
    return figure


def _accuracies(rows: Rows) -> Any:
    """Accuracy over comparisons, over λ, and Elo by round."""
    figure, axes = plt.subplots(1, 4, figsize=(13.5, 3.1))
    for size in sorted({row["size"] for row in chosen(rows, "accuracy")}):
        _accuracy_over(axes[0], rows, "accuracy", f"width {size}", size=size)
    _frame(axes[0], "accuracy over data, by width", "comparisons")
    for arm in dict.fromkeys(row["arm"] for row in chosen(rows, "votes")):
        _accuracy_over(axes[1], rows, "votes", arm, arm=arm)
    _frame(axes[1], "pretrained on votes, or not", "comparisons")
    arms = list(dict.fromkeys(row["arm"] for row in chosen(rows, "mixing")))
    for kind in ("helpful", "harmless"):
        found = [pooled(chosen(rows, "mixing", arm=arm, on=kind)) for arm in arms]
        _errorbar(axes[2], range(len(arms)), found, kind)
    if arms:
        axes[2].set_xticks(range(len(arms)), [a.replace("both, ", "") for a in arms], rotation=20)
        axes[2].axhline(0.5, linestyle=":", color="grey", linewidth=1)
    _frame(axes[2], "helpful against harmless", "")
    if chosen(rows, "online", part="wins"):
        players, ratings = rated(rows)
        axes[3].errorbar(range(len(players)), ratings.elo, 1.96 * ratings.elo_errors, fmt="o",
                         markersize=4, capsize=2)  # fmt: skip
        axes[3].set_xticks(range(len(players)), players, rotation=20)
    _frame(axes[3], "Elo, the base at 0", "")
    axes[0].set_ylabel("accuracy", fontsize=8)
    for axis in axes[:3]:
        axis.legend(fontsize=7)
    return figure


def _accuracy_over(axis: Any, rows: Rows, claim: str, label: str, **which: Any) -> None:
    places = sorted({row["pairs"] for row in chosen(rows, claim, **which)})
    found = [pooled(chosen(rows, claim, pairs=n, **which)) for n in places]
    _errorbar(axis, places, found, label)
    ceilings = [row["ceiling"] for row in chosen(rows, claim, **which)]
    axis.axhline(sum(ceilings) / len(ceilings), color="grey", linestyle="--", linewidth=0.7)
    axis.set_xscale("symlog", linthresh=20)
    axis.set_xticks(places, [str(n) for n in places])
    axis.minorticks_off()


def _errorbar(axis: Any, places: Any, found: Any, label: str) -> None:
    shares = [share for share, *_ in found]
    below = [share - low for share, low, _, _ in found]
    above = [high - share for share, _, high, _ in found]
    axis.errorbar(places, shares, [below, above], marker=".", linewidth=1, capsize=2, label=label)


def _frame(axis: Any, title: str, below: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(below, fontsize=8)
    axis.tick_params(labelsize=7)
