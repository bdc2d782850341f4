"""Few-shot learning against the exact ceiling: `python -m gptwin.rl.studies.measured in_context`.

Three sizes of model are pretrained on documents whose labels mean something else in each, and one
of them on documents in which they always mean the same. Each is asked with K = 0, 1, 2, 4, 8
examples, with right labels and under the three controls (prompting/episodes.py).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..configuration import PretrainSettings
from ..judging.intervals import wilson
from ..judging.plots import plt, saved
from ..prompting.episodes import (
    CONTROLS,
    FIXED_STEPS,
    SETTINGS,
    SIZES,
    Episode,
    ceiling,
    count_right,
    held_out,
    pretrained,
)

SHOTS = (0, 1, 2, 4, 8)
ASKED = 1000
MAPS = {"random": False, "fixed": True}
FIXED_SIZE = "3 layers, width 64"


def measure(
    seed: int, asked: int = ASKED, settings: PretrainSettings = SETTINGS
) -> list[dict[str, Any]]:
    """Pretrain every model of a seed, and count its right answers.

    Parameters
    ----------
    seed : int
        Of parameters and training documents; all are asked the same.
    asked : int
        Queries at each K.
    settings : PretrainSettings

    Returns
    -------
    list of dict
        Of each map, size, control and K: `right` of `n`.
    """
    found = []
    for labels, fixed in MAPS.items():
        episodes = held_out(asked, fixed=fixed)
        for size, config in SIZES.items():
            if fixed and size != FIXED_SIZE:
                continue
            steps = min(FIXED_STEPS, settings.steps) if fixed else settings.steps
            model = pretrained(
                config, seed, fixed=fixed, settings=dataclasses.replace(settings, steps=steps)
            )
            found += [
                {"seed": seed, "map": labels, "size": size} | counted
                for counted in _counts(model, episodes)
            ]
    return found


def _counts(model: Any, episodes: Sequence[Episode]) -> list[dict[str, Any]]:
    return [
        {"control": control, "k": k, "right": count_right(model, episodes, k, control),
         "n": len(episodes)}
        for control in CONTROLS for k in SHOTS
        if k or control == "right"
    ]  # fmt: skip


def exact(labels: str, control: str, k: int) -> float:
    """Return what can be reached: the ceiling; with wrong labels, what is left to who reads them.

    Parameters
    ----------
    labels : str
        A key of `MAPS`.
    control : str
    k : int

    Returns
    -------
    float
    """
    if labels == "fixed":
        return 1.0
    reached = {"right": ceiling(k), "wrong": 1 - ceiling(k)}
    return reached.get(control, ceiling(0))


def pooled(rows: Sequence[Mapping[str, Any]], **which: Any) -> tuple[int, int]:
    """Add up the counts of all seeds: right, and how many there were."""
    chosen = [row for row in rows if all(row[key] == value for key, value in which.items())]
    return sum(row["right"] for row in chosen), sum(row["n"] for row in chosen)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw accuracy over K: the sizes beside the ceiling, and the controls of either map."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), sharey=True)
    for size in SIZES:
        _line(axes[0], rows, size, map="random", size=size, control="right")
    axes[0].plot(SHOTS, [ceiling(k) for k in SHOTS], "k--", linewidth=1, label="ceiling")
    axes[0].set_title("a new map in every document", fontsize=9)
    for axis, labels in zip(axes[1:], MAPS, strict=True):
        for control in CONTROLS:
            _line(axis, rows, f"{control} labels" if control != "format" else "format alone",
                  map=labels, size=FIXED_SIZE, control=control)  # fmt: skip
            levels = [exact(labels, control, k) for k in SHOTS if k or control == "right"]
            axis.plot(SHOTS[len(SHOTS) - len(levels) :], levels, "k--", linewidth=0.7)
        axis.set_title(f"{labels} map, {FIXED_SIZE}; dashed: exact", fontsize=9)
    for axis in axes:
        axis.set_xlabel("examples K", fontsize=8)
        axis.set_xticks(SHOTS)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7, loc=(0.5, 0.55) if axis is axes[1] else "lower left")
    axes[0].set_ylabel("accuracy", fontsize=8)
    saved(figure, path)


def _line(axis: Any, rows: Sequence[Mapping[str, Any]], label: str, **which: Any) -> None:
    """Draw the pooled accuracy over K, with its interval."""
    shots = [k for k in SHOTS if pooled(rows, k=k, **which)[1]]
    counts = [pooled(rows, k=k, **which) for k in shots]
    shares = [right / n for right, n in counts]
    ends = [wilson(right, n) for right, n in counts]
    below = [s - low for s, (low, _) in zip(shares, ends, strict=True)]
    above = [high - s for s, (_, high) in zip(shares, ends, strict=True)]
    axis.errorbar(shots, shares, [below, above], marker=".", linewidth=1, capsize=2, label=label)
