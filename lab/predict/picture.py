"""A turn of a loop as a picture: a lane a pipe, coloured by the source line that holds it."""

import html
from collections.abc import Mapping
from typing import Any

from .cost import PIPES
from .timeline import STEPS

WIDTH, LANE, GAP, LABEL = 720, 16, 4, 64


def colour(line: int) -> str:
    """Return a source line's colour: neighbours differ, in light and dark alike.

    Parameters
    ----------
    line : int

    Returns
    -------
    str
        For CSS.
    """
    return f"hsl({line * 137 % 360} 55% {45 + line * 61 % 20}%)"


def picture(timeline: Mapping[str, Any]) -> str:
    """Draw a stored `Timeline`.

    Parameters
    ----------
    timeline : dict
        Of its fields, as JSON holds them.

    Returns
    -------
    str
        SVG.
    """
    lanes = [pipe for pipe in PIPES if timeline["pipes"].get(pipe)]
    height = len(lanes) * (LANE + GAP) + 18
    parts = [
        f'<svg viewBox="0 0 {LABEL + WIDTH} {height}" role="img" '
        f'aria-label="One turn of the loop, {timeline["cycles"]} cycles, pipe by pipe">'
    ]
    for i, pipe in enumerate(lanes):
        y = i * (LANE + GAP)
        parts.append(f'<text x="0" y="{y + LANE - 4}" class="lane">{pipe}</text>')
        parts.append(f'<rect x="{LABEL}" y="{y}" width="{WIDTH}" height="{LANE}" class="empty"/>')
        parts += [_block(timeline, y, *span) for span in timeline["pipes"][pipe]]
    words = f"{timeline['cycles']:,} cycles"
    parts.append(f'<text x="{LABEL}" y="{height - 4}" class="lane">0</text>')
    end = f'<text x="{LABEL + WIDTH}" y="{height - 4}" class="lane" text-anchor="end">{words}'
    return "".join([*parts, f"{end}</text></svg>"])


def _block(timeline: Mapping[str, Any], y: int, begin: int, end: int, line: int) -> str:
    told = timeline["lines"][line]
    words = html.escape(f"{told['where']}  {told['text']}")
    x, width = LABEL + begin * WIDTH / STEPS, (end - begin) * WIDTH / STEPS
    return (
        f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{LANE}" style="fill:{colour(line)}">'
        f"<title>{words}</title></rect>"
    )


def legend(timeline: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the source lines that hold a pipe, with their colours.

    Parameters
    ----------
    timeline : dict

    Returns
    -------
    list of dict
        "colour", "where", "text", and "pipes": cycles of a turn, the most first.
    """
    found = []
    for i, line in enumerate(timeline["lines"]):
        pipes = {p: n for p, n in line["pipes"].items() if n}
        if pipes:
            words = ", ".join(f"{p} {n}" for p, n in sorted(pipes.items(), key=lambda x: -x[1]))
            about = {"where": line["where"], "text": line["text"]}
            found.append({"colour": colour(i), "pipes": words, **about})
    return found
