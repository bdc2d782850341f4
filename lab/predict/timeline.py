"""One turn of a loop, pipe by pipe over time, and which source line holds which pipe when."""

import bisect
import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ...records import PACKAGE
from ..inspect.sass import Instruction, Loop
from .machines import Machine
from .simulate import Run, simulate

TURNS = 8
FROM_TURN = 5  # the loop is steady by then
STEPS = 240  # a turn is shown in so many steps


@dataclasses.dataclass(frozen=True)
class Line:
    """A source line: where it stands, what it says, and the cycles that each pipe has for it."""

    where: str
    text: str
    pipes: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Timeline:
    """One turn.

    Attributes
    ----------
    cycles : int
    lines : list of Line
        In the order in which the machine code first comes to them.
    pipes : dict of str to list of (int, int, int)
        Intervals in `STEPS` of the turn: begin, end, index into `lines`.
    """

    cycles: int
    lines: list[Line]
    pipes: dict[str, list[tuple[int, int, int]]]


def timeline(
    program: Sequence[Instruction], loop: Loop, m: Machine, *, blocks: int, warps: int,
    dram_share: float = 0.0,
) -> Timeline:  # fmt: skip
    """Play a few turns of a loop, and take one of them apart.

    Parameters
    ----------
    program : sequence of Instruction
    loop : Loop
    m : Machine
    blocks, warps : int
        Resident on a multiprocessor; warps of each.
    dram_share : float
        As in `cost`.

    Returns
    -------
    Timeline
    """
    run = Run(blocks, warps, {loop.last: TURNS}, loop.first, loop.last + 1,
              dram_share=dram_share, watched=True)  # fmt: skip
    events = simulate(program, m, run).events
    back = [e.issued for e in events if e.warp == 0 and e.index == loop.last]
    start, end = back[FROM_TURN - 1], back[FROM_TURN]
    number = _numbered(loop.body(program))
    held: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for e in events:
        line = number[_place(program[e.index])]
        for pipe, (begin, done) in {**e.held, "issue": (e.issued, e.issued + 1)}.items():
            if begin < end and done > start:
                held[pipe].append((max(begin, start), min(done, end), line))
    cycles = max(1.0, end - start)
    lines = [
        Line(
            f"{short(file)}:{at}" if file else "", _text(file, at),
            {p: round(sum(b - a for a, b, n in spans if n == i)) for p, spans in held.items()},
        )
        for i, (file, at) in enumerate(number)
    ]  # fmt: skip
    pipes = {p: _steps(spans, start, cycles) for p, spans in held.items()}
    return Timeline(round(cycles), lines, pipes)


def _place(i: Instruction) -> tuple[str, int]:
    return i.file, i.line


def _numbered(body: Sequence[Instruction]) -> dict[tuple[str, int], int]:
    places = dict.fromkeys(_place(i) for i in body)
    return {place: n for n, place in enumerate(places)}


def _steps(
    spans: list[tuple[float, float, int]], start: float, cycles: float
) -> list[tuple[int, int, int]]:
    """Show, for each step of the turn, the line that holds the pipe in its middle, if any does."""
    spans.sort()
    begins = [a for a, _, _ in spans]
    found: list[tuple[int, int, int]] = []
    for step in range(STEPS):
        at = start + (step + 0.5) / STEPS * cycles
        i = bisect.bisect_right(begins, at) - 1
        if i < 0 or spans[i][1] < at:
            continue
        if found and found[-1][1:] == (step, spans[i][2]):
            found[-1] = found[-1][0], step + 1, spans[i][2]
        else:
            found.append((step, step + 1, spans[i][2]))
    return found


def short(file: str) -> str:
    """Name a file without the folders of one machine.

    Parameters
    ----------
    file : str

    Returns
    -------
    str
        From the package's root for its own, the last part for others.
    """
    _, inside, rest = file.rpartition("/gptwin/")
    return rest if inside else Path(file).name


def _text(file: str, line: int) -> str:
    """Read a source line; empty if the file is not here."""
    if not file:
        return ""
    here = PACKAGE / short(file)
    path = here if here.is_file() else Path(file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return lines[line - 1].strip() if line <= len(lines) else ""
