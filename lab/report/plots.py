"""The report's pictures: drawn here in SVG that takes its colours from the page, or stored ones.

A picture's colours are CSS classes, so that it is light or dark with the page; what a point means
is told in its <title>, which browsers show under the pointer and screen readers read.
"""

import base64
import dataclasses
import io
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from markupsafe import Markup, escape
from PIL import Image

from ...core.checks import refuse
from ..twins.roofline import DEVICES, ridge
from ..twins.twin import DTYPES
from .data import Costs, Verification, Verified

# --- how much of the error budget is used --------------------------------------------------------

STRIP_WIDTH, LANE, DOT = 720, 74, 5.5
LEFT, RIGHT = 84, 24


def budget_strip(verification: Verification) -> Markup:
    """Draw each row of the verification as a dot on the axis from 0 to 100% of its budget.

    Parameters
    ----------
    verification : Verification

    Returns
    -------
    Markup
        An <svg>.
    """
    compared = [row for row in verification.rows if row.share is not None]
    edge = 1.0 if all((row.share or 0) <= 1 for row in compared) else 1.2
    dtypes = [dtype for dtype in DTYPES if any(row.dtype == dtype for row in compared)]
    height = LANE * len(dtypes) + 40

    def x_of(share: float) -> float:
        return LEFT + (STRIP_WIDTH - LEFT - RIGHT) * min(share, edge) / edge

    parts = []
    for percent in range(0, 101, 25):
        x = x_of(percent / 100)
        css = "limit" if percent == 100 else "grid"
        parts.append(_line(x, 8, x, height - 32, css))
        parts.append(_text(x, height - 14, f"{percent}%", "tick", "middle"))
    for lane, dtype in enumerate(dtypes):
        base = 8 + LANE * (lane + 1)
        parts.append(_line(LEFT, base, STRIP_WIDTH - RIGHT, base, "axis"))
        parts.append(_text(LEFT - 12, base - 8, dtype, "label", "end"))
        rows = [row for row in compared if row.dtype == dtype]
        parts += [_dot(row, x_of(row.share or 0), base, level) for row, level in _stack(rows, edge)]
    return _svg(STRIP_WIDTH, height, "Share of its error budget that each row used", parts)


def _stack(rows: list[Verified], edge: float) -> Iterator[tuple[Verified, int]]:
    """Pile up those that would lie on one another."""
    column = 2 * DOT * edge / (STRIP_WIDTH - LEFT - RIGHT)
    tops: dict[int, int] = {}
    for row in sorted(rows, key=lambda row: row.share or 0):
        place = round(min(row.share or 0, edge) / column)
        yield row, tops.get(place, 0)
        tops[place] = tops.get(place, 0) + 1


def _dot(row: Verified, x: float, base: float, level: int) -> Markup:
    words = f"{row.operation} {row.dtype}: {(row.share or 0):.0%} of its budget, {row.where}"
    css = "dot" if row.passed else "dot bad"
    y = base - DOT - 1 - min(level, 5) * 2 * DOT
    return Markup(
        "<a href='#twin-{}' tabindex='-1'><circle class='{}' cx='{:.1f}' cy='{:.1f}' r='{}'>"
        "<title>{}</title></circle></a>"
    ).format(row.operation, css, x, y, DOT, words)


# --- the roofline --------------------------------------------------------------------------------

ROOF_WIDTH, ROOF_HEIGHT, ROW = 760, 250, 19
LEAST, MOST = -1.5, 4.0  # log10 of FLOPs per byte
FLOOR, CEILING = -1.5, 3.3  # log10 of TFLOP/s
NAMES = 132


def roofline(twins: Iterable[tuple[str, str, list[Costs]]]) -> Markup:
    """Draw the roofs that datasheets predict, and below them where each twin stands.

    Parameters
    ----------
    twins : iterable of (str, str, list of Costs)
        Name, dtype and costs, forward first.

    Returns
    -------
    Markup
        An <svg>.
    """
    listed = list(twins)
    bottom = ROOF_HEIGHT + ROW * len(listed) + 12
    parts = []
    for exponent in range(-1, 5):
        x = _intensity(exponent)
        parts.append(_line(x, 16, x, bottom, "grid"))
        parts.append(_text(x, bottom + 18, _power(exponent), "tick", "middle"))
    for exponent in range(-1, 4):
        parts.append(_text(NAMES - 8, _rate(exponent) + 4, _power(exponent), "tick", "end"))
        parts.append(_line(NAMES, _rate(exponent), ROOF_WIDTH - 28, _rate(exponent), "grid"))
    parts.append(_text(NAMES - 8, 14, "TFLOP/s", "tick", "end"))
    words = "FLOPs per byte: left of a roof's corner memory is the limit, right of it arithmetic"
    parts.append(_text((NAMES + ROOF_WIDTH) / 2, bottom + 38, words, "tick", "middle"))
    for number, device in enumerate(DEVICES):
        corner = math.log10(ridge("bfloat16", device))
        peak = math.log10(device.flops_per_second["bfloat16"] / 1e12)
        start = math.log10(device.bytes_per_second / 1e12) + LEAST
        points = [(_intensity(LEAST), _rate(start)), (_intensity(corner), _rate(peak))]
        points.append((_intensity(MOST), _rate(peak)))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(Markup("<polyline class='roof{}' points='{}'/>").format(number, path))
        at = _intensity(corner)
        parts.append(_line(at, _rate(peak), at, bottom, f"corner{number}"))
        label = f"{device.name}, {10**peak:.0f} TFLOP/s"
        parts.append(_text(_intensity(MOST) - 4, _rate(peak) - 6, label, f"name{number}", "end"))
    for row, (name, dtype, costs) in enumerate(listed):
        parts += _twin_row(name, dtype, costs, ROOF_HEIGHT + ROW * row + 14)
    return _svg(ROOF_WIDTH, bottom + 48, "Rooflines predicted from datasheets", parts)


def _twin_row(name: str, dtype: str, costs: list[Costs], y: float) -> Iterator[Markup]:
    """Draw a twin's directions at their FLOPs per byte: forward full, backward hollow."""
    xs = [_intensity(math.log10(cost.intensity)) for cost in costs]
    link = Markup("<a href='#twin-{}' tabindex='-1'>{}</a>")
    yield link.format(name, _text(NAMES - 8, y + 4, name, "label", "end"))
    yield _line(min(xs), y, max(xs), y, "span")
    for x, cost in zip(xs, costs, strict=True):
        times = ", ".join(f"{p.device.name} {p.seconds * 1e6:.3g} µs" for p in cost.predicted)
        words = (
            f"{name} {cost.direction}, {dtype}: {cost.intensity:.3g} FLOPs per byte; "
            f"at least {times} (predicted)"
        )
        css = "dot" if cost.direction == "forward" else "dot hollow"
        yield Markup(
            "<circle class='{}' cx='{:.1f}' cy='{:.1f}' r='4.5'><title>{}</title></circle>"
        ).format(css, x, y, words)


def _intensity(exponent: float) -> float:
    exponent = min(max(exponent, LEAST), MOST)
    return NAMES + (ROOF_WIDTH - 28 - NAMES) * (exponent - LEAST) / (MOST - LEAST)


def _rate(exponent: float) -> float:
    return 20 + (ROOF_HEIGHT - 30) * (CEILING - exponent) / (CEILING - FLOOR)


def _power(exponent: int) -> str:
    return f"{10.0**exponent:,.10g}"


# --- elements ------------------------------------------------------------------------------------


def _svg(width: float, height: float, title: str, parts: Iterable[Markup]) -> Markup:
    return Markup(
        "<svg class='plot' viewBox='0 0 {:.0f} {:.0f}' role='img' aria-label='{}'>{}</svg>"
    ).format(width, height, title, Markup("").join(parts))


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return Markup("<path class='{}' d='M{:.1f} {:.1f}L{:.1f} {:.1f}'/>").format(css, x1, y1, x2, y2)


def _text(x: float, y: float, words: str, css: str, anchor: str) -> Markup:
    return Markup("<text class='{}' x='{:.1f}' y='{:.1f}' text-anchor='{}'>{}</text>").format(
        css, x, y, anchor, words
    )


# --- stored pictures -----------------------------------------------------------------------------


CAPTIONS = {
    "cpu": "Ratios, with their goals where there are any, and learning curves.",
    "cpu-growth": "Time over length and over width, and the power laws fitted to it. Below each "
    "the exponents, NumPy's and then PyTorch's, with their standard errors, and the FLOPs'.",
    "cpu-overhead": "Ratios by operation: the median, and p20 to p80.",
    "memory": "Memory beyond what was there before the call.",
    "roofline": "The roofline that was measured, and what each kernel reached.",
}
PALETTE = 64


@dataclasses.dataclass(frozen=True)
class StoredPlot:
    """A picture that a benchmark stored beside its figures.

    Attributes
    ----------
    name, caption : str
        The file's name, without its ending; what it shows.
    markup : Markup
        An <svg> that takes the page's colours, or an <img> that carries its data.
    themed : bool
        Whether it is the former.
    """

    name: str
    caption: str
    markup: Markup
    themed: bool


def stored_plots(folder: Path, stem: str) -> list[StoredPlot]:
    """Read the pictures of a result file: of its name, its name and more, or in a folder so named.

    Parameters
    ----------
    folder : Path
    stem : str
        The result file's name, without its ending.

    Returns
    -------
    list of StoredPlot
        The SVG where there is a PNG as well.

    Raises
    ------
    ValueError
        If one is no picture.
    """
    named = {
        path.stem: path
        for suffix in (".png", ".svg")
        for path in sorted(folder.glob(f"{stem}*{suffix}"))
        if re.fullmatch(rf"{re.escape(stem)}([-_.].*)?", path.stem)
    }
    named |= {path.stem: path for path in (folder / stem).glob("*.png")}
    return [
        StoredPlot(name, CAPTIONS.get(name, name), _inline(path), True)
        if path.suffix == ".svg"
        else StoredPlot(name, CAPTIONS.get(name, name), _image(path), False)
        for name, path in sorted(named.items())
    ]


def _image(path: Path) -> Markup:
    data = path.read_bytes()
    if not data.startswith(b"\x89PNG"):
        refuse("results", "pictures that gptwin bench drew", f"{path}, which is no PNG")
    few_colours = io.BytesIO()
    with Image.open(path) as picture:  # a plot looks the same in 64 colours, at a quarter the size
        size = picture.size
        picture.convert("RGB").quantize(PALETTE).save(few_colours, "PNG", optimize=True)
    data = min(data, few_colours.getvalue(), key=len)
    return Markup(
        "<img alt='{}' width={} height={} loading='lazy' src='data:image/png;base64,{}'>"
    ).format(f"Plot of {path.stem}", *size, base64.b64encode(data).decode())


def _inline(path: Path) -> Markup:
    """Take an SVG into the page: its ids must be no other picture's."""
    text = path.read_text(encoding="utf-8")
    start = text.find("<svg")
    if start < 0 or "<script" in text:
        refuse("results", "pictures that gptwin bench drew", f"{path}, which is no plain SVG")
    prefix = re.sub(r"\W", "-", path.stem)
    text = re.sub(r"<metadata>.*?</metadata>", "", text[start:], flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    label = escape(f"Plot of {path.stem}")
    return Markup(text.replace("<svg ", f"<svg class='plot' role='img' aria-label='{label}' ", 1))
