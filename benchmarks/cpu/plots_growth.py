"""Plots of how cost grows, and of what interpreting costs and compiling saves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from ..theme import ACCENT, SECOND, SOFT, save, theme
from ..timing import Finding
from .growth import slope

COLOURS = {"NumPy reference": ACCENT, "eager PyTorch": SECOND}
COLUMNS = 3


def plot_growth(parts: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw times over size, log to log, with the fitted power laws: an axes for each operation.

    Parameters
    ----------
    parts : dict
        As stored; those of growth.
    path : Path
        PNG file to write; an SVG is put beside it.
    """
    panels: dict[tuple[str, str], list[Finding]] = {}
    for found in measured(parts):
        settings = found["settings"]
        panels.setdefault((settings["axis"], settings["operation"]), []).append(found)
    if not panels:
        return
    rows = -(-len(panels) // COLUMNS)
    with theme():
        figure = Figure(figsize=(9.5, 0.4 + 2.35 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
        for ax, ((axis, operation), findings) in zip(axes, panels.items(), strict=False):
            _draw_growth(ax, axis, operation, findings)
        for ax in list(axes)[len(panels) :]:
            ax.set_visible(False)
        figure.legend(*_legend(), loc="outside upper left", ncols=2)
        save(figure, path)


def _draw_growth(ax: Axes, axis: str, operation: str, findings: Sequence[Finding]) -> None:
    exponents = []
    for found in findings:
        sizes, seconds = found["settings"]["sizes"], np.array(found["median_seconds"])
        exponent = float(slope(sizes, seconds))
        middle = np.exp(np.log(seconds).mean()), np.exp(np.log(sizes).mean())
        colour = COLOURS[found["settings"]["provider"]]
        ax.plot(sizes, middle[0] * (np.array(sizes) / middle[1]) ** exponent, color=colour, lw=1)
        ax.plot(sizes, seconds, "o", color=colour, ms=4)
        error = found["standard_error"]
        exponents.append(f"{exponent:.2f}" + (f" ± {error:.2f}" if error is not None else ""))
    counted = findings[0]["by_count"]
    ax.set_title(operation)
    ax.set_xlabel(f"{axis}: " + ", ".join(exponents) + f"; FLOPs {counted:.2f}", fontsize=8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(findings[0]["settings"]["sizes"], findings[0]["settings"]["sizes"], fontsize=8)
    ax.minorticks_off()
    ax.tick_params(labelsize=8)
    ax.set_ylabel("seconds", fontsize=8)
    ax.grid()


def _legend() -> tuple[list[Any], list[str]]:
    return [Line2D([], [], color=c, marker="o", ms=4) for c in COLOURS.values()], list(COLOURS)


def plot_overhead(parts: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw ratios that have no goal: a row for each operation, a panel for each part.

    Parameters
    ----------
    parts : dict
        As stored; those of overhead.
    path : Path
        PNG file to write; an SVG is put beside it.
    """
    panels = {name: measured({name: part}) for name, part in parts.items()}
    panels = {name: findings for name, findings in panels.items() if findings}
    if not panels:
        return
    with theme():
        heights = [max(3, len(findings)) for findings in panels.values()]
        figure = Figure(figsize=(9.5, 1.2 + 0.28 * sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for ax, findings in zip(axes, panels.values(), strict=True):
            _draw_ratios(ax, findings)
        save(figure, path)


def _draw_ratios(ax: Axes, findings: Sequence[Finding]) -> None:
    for row, found in enumerate(findings):
        value = found["value"]
        ax.plot([value["p20"], value["p80"]], [row, row], color=ACCENT, lw=1.5)
        ax.plot(value["median"], row, "o", color=ACCENT, ms=5)
        words = f"{value['median']:.3g}"
        ax.annotate(words, (value["p80"], row), (7, -3), textcoords="offset points", size=8)
    names, claims = zip(*(found["name"].split(": ", 1) for found in findings), strict=True)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(LogFormatter())
    ax.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    ax.margins(x=0.12)
    ax.axvline(1, color=SOFT, lw=1, ls="--")
    ax.set_title(f"{claims[0]}: {findings[0]['unit']}")
    ax.grid(axis="x")


def measured(parts: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return the findings that have a figure."""
    return [f for part in parts.values() for f in part["findings"] if f["status"] == "measured"]
