"""Plots of stored results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..theme import BAD, GOOD, INK, save, theme
from ..timing import LONGER, NATS

REACHED, MISSED, GOAL = GOOD, BAD, INK


def plot_cpu(parts: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the ratios against their goals, and the learning curves.

    Parameters
    ----------
    parts : dict
        As stored.
    path : Path
        PNG file to write; an SVG is put beside it.
    """
    measured = [
        (name, found)
        for name, part in parts.items()
        for found in part["findings"]
        if found["status"] == "measured" and found["goal"]
    ]
    ratios = [(name, found) for name, found in measured if found["unit"] != NATS]
    curves = [found for _, found in measured if "curves" in found]
    if not measured:
        return
    with theme():
        _draw(ratios, curves, any(part["settings"]["quick"] for part in parts.values()), path)


def _draw(ratios: list[tuple[str, Any]], curves: list[Any], quick: bool, path: Path) -> None:
    figure = Figure(figsize=(13, 2.2 + 0.42 * max(6, len(ratios))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_ratios(left, ratios)
    _draw_curves(right, curves)
    if quick:
        figure.suptitle("quick: tiny models, the figures mean nothing", color=MISSED)
    save(figure, path)


def _draw_ratios(axes: Axes, ratios: list[tuple[str, Any]]) -> None:
    """Draw a row for each comparison: median, p20 to p80, and the goal as a bar."""
    axes.set_title("How much faster, side by side (median, p20 to p80)")
    labels = []
    for row, (part, found) in enumerate(ratios):
        # All as "times as fast", so that right is good in every row.
        figures = [found["value"][p] for p in ("median", "p20", "p80")]
        bound = found["goal"]["bound"]
        if found["unit"] == LONGER:
            figures, bound = [1 / figure for figure in figures], 1 / bound
        middle, low, high = figures[0], min(figures), max(figures)
        axes.errorbar(
            middle, row, xerr=[[middle - low], [high - middle]], fmt="o", capsize=3,
            color=REACHED if found["reached"] else MISSED,
        )  # fmt: skip
        axes.plot([bound, bound], [row - 0.35, row + 0.35], color=GOAL)
        axes.annotate(f"{middle:.2f}", (high, row), (6, -3), textcoords="offset points", size=8)
        labels.append(f"{part}: {found['name']}")
    axes.set_yticks(range(len(ratios)), labels, fontsize=8)
    if ratios:
        axes.set_ylim(len(ratios) - 0.5, -0.5)
        axes.set_xscale("log")
    axes.set_xlabel("times as fast as the other (dark bar: goal; green: reached; red: missed)")
    axes.grid(axis="x", alpha=0.3)


def _draw_curves(axes: Axes, findings: list[Any]) -> None:
    """Draw validation losses over iterations, and the goal."""
    axes.set_title("Shakespeare, letter by letter")
    for found in findings:
        for curve in found["curves"]:
            last = curve["validation"][-1]
            axes.plot(
                curve["iterations"], curve["validation"], marker=".",
                label=f"{found['name'].split()[-1]}, seed {curve['seed']}: {last:.4f}",
            )  # fmt: skip
    if findings:
        bound = findings[0]["goal"]["bound"]
        axes.axhline(bound, color=GOAL, linestyle="--", label=f"goal: at most {bound}")
        axes.legend(fontsize=8)
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss over the whole validation split (nats)")
    axes.grid(alpha=0.3)
