"""A picture of a traced pass: which program reads and writes which tile of which tensor, and when.

One strip for each launch, one panel for each tensor that it touches. Where no two programs touch
the same number, the panel is a map of the tensor. Where several do, as all query tiles read the
first keys, it is a table with a row for each program and a column for each tile.
"""

import itertools
import math
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .tiles import Panel, Program, panels_of
from .traffic import READ, WRITE, Pass, Trace

# inches: a panel is a unit wide or several, with room for its labels around the axes
_UNIT, _HEIGHT = 2.5, 2.7
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.72, 0.12, 0.98, 0.4
_HEAD, _STRIP_HEAD, _MARGIN = 1.55, 0.46, 0.25
_UNITS_PER_ROW, _TILES_PER_UNIT = 7, 9
_MOST_LINES = 24  # for which a panel grows
_ROW = 0.22  # of the overview
_DPI = 100
_CHARACTER, _LINE = 0.062, 0.135  # of a label in 7 points

_KEY = """\
Map of a tensor: colour and number are the program; after the dot, its turns at this tensor (in a \
loop, the iterations).
Table, where programs touch the same tiles: a row for each program, a column for each tile; colour \
and numbers are the program's turns, 0 first.
White: not touched. ×2: a number is touched twice on average, by the same program or by several.
[name]: a workspace, or kept for backward; the name is that of the first kernel's argument."""


def draw(trace: Trace, number: int, dtype: str) -> Figure:
    """Draw one pass of a traced case.

    Parameters
    ----------
    trace : Trace
    number : int
        Of the pass: 0 is forward, 1 is backward.
    dtype : str
        For the heading.

    Returns
    -------
    matplotlib.figure.Figure
    """
    one = trace.passes[number]
    launches = [panels_of(trace, one, index) for index in range(len(one.launches))]
    strips = [_rows([p for p in panels if not p.is_one_number]) for panels in launches]
    units = max((sum(map(_units, row)) for row in itertools.chain(*strips)), default=0)
    overview = _overview(launches) if len(launches) > 2 else []
    overview_height = _ROW * len(overview) + _BOTTOM + _TOP if overview else 0.0
    strips_height = sum(_STRIP_HEAD + sum(map(_height, rows)) for rows in strips)
    page = _Page(
        max(4, units) * _UNIT + 2 * _MARGIN, _HEAD + overview_height + strips_height + _MARGIN
    )
    top = page.height - _HEAD
    _heading(page, trace, one, dtype)
    if overview:
        top -= overview_height
        _draw_overview(page, len(launches), overview, top, overview_height)
    for index, rows in enumerate(strips):
        page.rule(top)
        page.text(_MARGIN, top - 0.25, _strip_title(one, index), 10, weight="bold")
        page.text(_MARGIN, top - 0.43, _single_numbers(launches[index]), 8)
        top -= _STRIP_HEAD
        for row in rows:
            height, left = _height(row), _MARGIN
            top -= height
            for panel in row:
                width = _units(panel) * _UNIT
                axes = page.axes(left, top, width, height)
                (_draw_table if panel.is_shared else _draw_map)(axes, panel)
                left += width
    return page.figure


class _Page:
    """A figure measured in inches, from its lower left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=_DPI)

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Add axes with room for their labels inside a box."""
        return self.figure.add_axes(
            (
                (left + _LEFT) / self.width,
                (bottom + _BOTTOM) / self.height,
                (width - _LEFT - _RIGHT) / self.width,
                (height - _BOTTOM - _TOP) / self.height,
            )
        )

    def text(self, left: float, bottom: float, text: str, size: float, **style: Any) -> None:
        self.figure.text(left / self.width, bottom / self.height, text, fontsize=size, **style)

    def rule(self, height: float) -> None:
        line = Rectangle((0, height / self.height), 1, 0, edgecolor="0.8", linewidth=0.8)
        self.figure.add_artist(line)


def _heading(page: _Page, trace: Trace, one: Pass, dtype: str) -> None:
    case = [f"{name} {value}" for name, value in trace.case.items() if name != "seed"]
    least, top = one.cost.bytes, page.height - 0.35
    page.text(_MARGIN, top, f"{trace.twin.name}, {one.name}", 14, weight="bold")
    moved = f"{one.moved:,} bytes moved"
    if "cost" not in trace.twin.undeclared:
        moved += f"; the least is {least:,} (×{one.moved / max(1, least):.3g})"
    page.text(_MARGIN, top - 0.25, ", ".join([*case, dtype]), 9)
    page.text(_MARGIN, top - 0.45, moved, 9)
    page.text(_MARGIN, top - 0.56, _KEY, 8, color="0.35", va="top")


def _strip_title(one: Pass, index: int) -> str:
    launched = one.launches[index]
    programs = {visit.program for visit in one.visits if visit.launch == index}
    n = f"{len(programs)} program{'s' if len(programs) != 1 else ''}"
    options = [f"{name}={value}" for name, value in launched.options.items() if name.isupper()]
    return f"{index + 1}. {launched.kernel}: " + ", ".join([n, *options])


def _single_numbers(panels: list[Panel]) -> str:
    """Name what needs no panel."""
    of_kind = {READ: "reads", WRITE: "writes"}
    names = {
        verb: [p.field.name for p in panels if p.is_one_number and p.kind == kind]
        for kind, verb in of_kind.items()
    }
    said = [f"{verb} {', '.join(names[verb])}" for verb in of_kind.values() if names[verb]]
    return f"Single numbers: {'; '.join(said)}" if said else ""


def _units(panel: Panel) -> int:
    if not panel.is_shared:
        return 1
    return min(_UNITS_PER_ROW, math.ceil(len(panel.tiles) / _TILES_PER_UNIT))


def _height(row: list[Panel]) -> float:
    """Give the panel with most lines room for them."""
    lines = [
        len(panel.programs)
        if panel.is_shared
        else len({touch.at[0] // panel.field.shape[1] for touch in panel.touches})
        for panel in row
    ]
    return max(_HEIGHT, _BOTTOM + _TOP + 1.05 * _LINE * min(max(lines, default=0), _MOST_LINES))


def _rows(panels: list[Panel]) -> list[list[Panel]]:
    """Break a strip where a row is full."""
    rows: list[list[Panel]] = [[]]
    for panel in panels:
        if rows[-1] and sum(map(_units, rows[-1])) + _units(panel) > _UNITS_PER_ROW:
            rows.append([])
        rows[-1].append(panel)
    return rows


# --- panels --------------------------------------------------------------------------------------


def _name(program: Program) -> str:
    """Write a program's index without the axes that a grid seldom has."""
    index = list(program)
    while len(index) > 1 and index[-1] == 0:
        index.pop()
    return ",".join(map(str, index))


def _ranges(numbers: list[int]) -> str:
    """Write 0, 1, 2, 5 as "0–2,5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(
        f"{run[0]}–{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs
    )


def _pale(colour_map: str, share: float) -> np.ndarray:
    """Take a colour on which black numbers can be read."""
    return 0.45 * np.asarray(colormaps[colour_map](share)[:3]) + 0.55


def _programs_colour(number: int) -> np.ndarray:
    """Ten colours, then the same a little darker."""
    colour = _pale("tab10", (number % 10 + 0.5) / 10)
    return colour * (1 if number // 10 % 2 == 0 else 0.85)


class _Labels:
    """Writes what has room: no label overlaps one that was written before."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.size = np.array(axes.bbox.size) / _DPI  # inches
        self.taken: list[tuple[np.ndarray, np.ndarray]] = []

    def write(self, x: float, y: float, text: str, tile: tuple[float, float]) -> None:
        """Write in the middle of a tile of this width and height; if need be smaller, or shifted.

        A label may be wider than its tile, but does not leave it upward or downward.
        """
        (left, right), (low, high) = self.axes.get_xlim(), self.axes.get_ylim()
        centre = np.array([(x - left) / (right - left), (y - low) / (high - low)]) * self.size
        room = tile[1] / abs(high - low) * self.size[1]
        for size, lines in itertools.product((7, 5), (0, 1, -1)):
            half = np.array([_CHARACTER * len(text) + 0.02, _LINE]) / 2 * size / 7
            at = centre + np.array([0, lines * 2 * half[1]])
            inside = (at - half > -0.01).all() and (at + half < self.size + 0.01).all()
            inside = inside and (lines == 0 or 6 * half[1] <= room)
            if inside and not any((np.abs(at - u) < half + v).all() for u, v in self.taken):
                self.taken.append((at, half))
                across, up = at / self.size
                self.axes.text(
                    across, up, text, ha="center", va="center", fontsize=size,
                    transform=self.axes.transAxes,
                )  # fmt: skip
                return

    def fits(self, text: str, width: float) -> bool:
        """Say whether a label is no wider than so much of the horizontal axis, written small."""
        left, right = self.axes.get_xlim()
        return _CHARACTER * len(text) * 5 / 7 <= width / abs(right - left) * self.size[0]


def _title(axes: Axes, panel: Panel) -> None:
    verb = "reads" if panel.kind == READ else "writes"
    times = panel.times
    often = f"  ×{times:.3g}" if times > 1 else ""
    title = f"{verb} {panel.field.name}{often}"
    axes.set_title(title, fontsize=9 if len(title) < 27 else 7.5, loc="left")
    axes.tick_params(labelsize=7, length=2)


def _draw_map(axes: Axes, panel: Panel) -> None:
    n_rows, n_columns = panel.field.shape
    number = {program: i for i, program in enumerate(panel.programs)}
    colours = np.ones((n_rows * n_columns, 3))
    for touch in panel.touches:
        colours[touch.at] = _programs_colour(number[touch.program])
    axes.imshow(
        colours.reshape(n_rows, n_columns, 3), aspect="auto", interpolation="nearest",
        extent=(0, n_columns, n_rows, 0),
    )  # fmt: skip
    _title(axes, panel)
    names = panel.field.axes
    axes.set_xlabel(names[-1] if names else "one number", fontsize=8)
    leading = " · ".join(names[:-1])
    axes.set_ylabel(leading, fontsize=8 if len(leading) < 25 else 6)
    axes.set_xticks(_marks(n_columns))
    axes.set_yticks(_marks(n_rows) if len(names) > 1 else [])
    labels = _Labels(axes)
    several = any(touch.turn for touch in panel.touches)
    for touches in panel.tiles.values():
        for program in dict.fromkeys(touch.program for touch in touches):
            own = [touch for touch in touches if touch.program == program]
            rows, columns = np.divmod(own[0].at, n_columns)
            column, row = _middle(columns, rows)
            tile = 1 + np.ptp(columns), 1 + np.ptp(rows)
            turns = "·" + _ranges([touch.turn for touch in own]) if several else ""
            labels.write(column, row, _name(program) + turns, tile)


def _middle(columns: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Find the middle of some elements: of a block its centre, else a point on one of them."""
    width, height = 1 + np.ptp(columns), 1 + np.ptp(rows)
    if len(rows) == width * height:
        return columns.mean() + 0.5, rows.mean() + 0.5
    away = np.abs(rows - rows.mean()) / height + np.abs(columns - columns.mean()) / width
    return columns[np.argmin(away)] + 0.5, rows[np.argmin(away)] + 0.5


def _marks(n: int) -> list[int]:
    """Mark where an axis begins and ends, and its middle if there is one."""
    return sorted({0, n // 2, n}) if n > 3 else list(range(n + 1))


def _draw_table(axes: Axes, panel: Panel) -> None:
    tiles, programs = panel.tiles, panel.programs
    axes.set_xlim(0, len(tiles))
    axes.set_ylim(len(programs), 0)
    _title(axes, panel)
    labels = _Labels(axes)
    row = {program: i for i, program in enumerate(programs)}
    last_turn = max(1, *(touch.turn for touch in panel.touches))
    for column, touches in enumerate(tiles.values()):
        for program in dict.fromkeys(touch.program for touch in touches):
            turns = [touch.turn for touch in touches if touch.program == program]
            colour = _pale("viridis", turns[0] / last_turn)
            at = (column, row[program])
            axes.add_patch(Rectangle(at, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.6))
            if labels.fits(_ranges(turns), 1):
                labels.write(column + 0.5, row[program] + 0.5, _ranges(turns), (1, 1))
    axes.set_ylabel("program", fontsize=8)
    step = 1 + len(programs) // 13
    axes.set_yticks(np.arange(0, len(programs), step) + 0.5, map(_name, programs[::step]))
    varying = [i for i, ends in enumerate(zip(*tiles, strict=True)) if len(set(ends)) > 1]
    names = ", ".join(panel.field.axes[i] for i in varying)
    axes.set_xlabel(f"tiles of {names}" if names else "the whole tensor", fontsize=8)
    ranges = [" ".join(_range(tile[i]) for i in varying) for tile in tiles]
    width = max(map(len, ranges)) * _CHARACTER * len(ranges)
    step = 1 + math.floor(len(ranges) * _LINE / labels.size[0])
    axes.set_xticks(
        np.arange(0, len(ranges), step) + 0.5, ranges[::step],
        rotation=0 if width < labels.size[0] else 90,
    )  # fmt: skip


def _range(ends: tuple[int, int]) -> str:
    first, last = ends
    return str(first) if first == last else f"{first}:{last + 1}"


# --- overview ------------------------------------------------------------------------------------


def _overview(launches: list[list[Panel]]) -> list[tuple[str, list[str]]]:
    """Say of each tensor, in the order of first use, which launches read (r) and write (w) it."""
    marks: dict[int, list[str]] = {}
    names: dict[int, str] = {}
    for index, panel in ((i, panel) for i, panels in enumerate(launches) for panel in panels):
        key = id(panel.field.tensor)
        names[key] = panel.field.name
        marks.setdefault(key, [""] * len(launches))[index] += panel.kind[0]
    return [(names[key], row) for key, row in marks.items()]


def _draw_overview(
    page: _Page, n: int, overview: list[tuple[str, list[str]]], bottom: float, height: float
) -> None:
    names = 0.07 * max(len(name) for name, _ in overview)  # beside the axes
    axes = page.axes(_MARGIN + names - _LEFT + 0.3, bottom, _LEFT + _RIGHT + 0.34 * n, height)
    colours = {"r": _programs_colour(0), "w": _programs_colour(1), "rw": _programs_colour(2)}
    for row, (_, marks) in enumerate(overview):
        for column, mark in enumerate(marks):
            if mark:
                tile = Rectangle((column, row), 1, 1, facecolor=colours[mark], edgecolor="white")
                axes.add_patch(tile)
                axes.text(column + 0.5, row + 0.5, mark, ha="center", va="center", fontsize=7)
    axes.set_xlim(0, n)
    axes.set_ylim(len(overview), 0)
    axes.set_xticks(np.arange(n) + 0.5, [str(i + 1) for i in range(n)])
    axes.set_yticks(np.arange(len(overview)) + 0.5, [name for name, _ in overview])
    axes.set_title("which launch reads (r) and writes (w) what", fontsize=9, loc="left")
    axes.set_xlabel("launch", fontsize=8)
    axes.tick_params(labelsize=7, length=2)
