"""How plots look, and how they are stored: a PNG, and an SVG that can take the colours of a page.

In the SVG every colour of the theme is a CSS variable with itself as the fallback. So the file
alone looks like the PNG, and within a page that sets the variables, such as `gptwin report`'s, it
is light or dark with the page.
"""

import re
from contextlib import AbstractContextManager
from io import StringIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

INK, SOFT, LINE = "#22272b", "#626b72", "#e2e0d9"
ACCENT, SECOND, GOOD, BAD = "#14675c", "#96590b", "#22703f", "#b3261e"
VARIABLES = {
    INK: "--ink", SOFT: "--soft", LINE: "--line", ACCENT: "--accent", SECOND: "--second",
    GOOD: "--good", BAD: "--bad",
}  # fmt: skip


def theme() -> AbstractContextManager[None]:
    """Draw in the theme's colours while the context lasts.

    Returns
    -------
    context manager
    """
    return matplotlib.rc_context(
        {
            "text.color": INK, "axes.labelcolor": SOFT, "axes.edgecolor": SOFT,
            "axes.titlecolor": INK, "xtick.color": SOFT, "ytick.color": SOFT,
            "grid.color": LINE, "axes.axisbelow": True, "legend.frameon": False,
            "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
            "axes.titlelocation": "left", "axes.titlesize": 11,
            "svg.fonttype": "none", "svg.hashsalt": "gptwin",
        }
    )  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Store a figure that was drawn in the theme, as PNG and as SVG.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : Path
        The PNG; the SVG is put beside it.
    """
    figure.savefig(path, dpi=130, facecolor="white")
    text = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gptwin"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text.getvalue())
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable}, {colour})")
    path.with_suffix(".svg").write_text(svg, encoding="utf-8")
