"""`gptwin bench compare A.jsonl B.jsonl`: what became faster or slower, beyond the noise.

Of each figure that both files have, the ratio B to A with an interval: from the least that the
noise of both allows (p20 over p80) to the most (p80 over p20), and never narrower than
`LEAST_NOISE` on either side, since two runs differ by more than the calls within one. A regression
is a figure of gptwin's own that is worse over its whole interval.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..core.checks import refuse
from . import result_file
from .timing import FASTER, Finding

LEAST_NOISE = 0.02
MORE_IS_BETTER = (FASTER, "tokens/s", "bytes/s", "FLOP/s")
WORSE, BETTER, SAME = "worse", "better", "within noise"


@dataclasses.dataclass(frozen=True)
class Change:
    """One figure in both files.

    Attributes
    ----------
    part, name : str
    ratio, low, high : float
        How many times as good B is, above 1 being better, and its interval.
    ours : bool
        Whether it is gptwin's own; others show what else has changed.
    """

    part: str
    name: str
    ratio: float
    low: float
    high: float
    ours: bool

    @property
    def verdict(self) -> str:
        """Whether the whole interval lies on one side of 1."""
        return WORSE if self.high < 1 else BETTER if self.low > 1 else SAME


def compare_findings(part: str, before: Finding, after: Finding) -> Change:
    """Compare a figure with an earlier one.

    Parameters
    ----------
    part : str
    before, after : dict
        Findings of the same name, both with a value.
    """
    a, b = before["value"], after["value"]
    if before["unit"] in MORE_IS_BETTER:
        ratio, low, high = (
            b[x] / a[y] for x, y in (("median", "median"), ("p20", "p80"), ("p80", "p20"))
        )
    else:
        ratio, low, high = (
            a[x] / b[y] for x, y in (("median", "median"), ("p20", "p80"), ("p80", "p20"))
        )
    low, high = min(low, ratio * (1 - LEAST_NOISE)), max(high, ratio * (1 + LEAST_NOISE))
    ours = str(before.get("provider", "gptwin")).partition(",")[0] == "gptwin"
    return Change(part, before["name"], ratio, low, high, ours)


def changes(
    before: Mapping[str, result_file.Part], after: Mapping[str, result_file.Part]
) -> Iterator[Change]:
    """Yield a change for each figure that both files have, the roofline's included."""
    for name, part in before.items():
        later = {found["name"]: found for found in after.get(name, {"findings": []})["findings"]}
        for found in part["findings"]:
            other = later.get(found["name"])
            if other and _has_value(found) and _has_value(other):
                yield compare_findings(name, found, other)


def lost(
    before: Mapping[str, result_file.Part], after: Mapping[str, result_file.Part]
) -> list[str]:
    """Name gptwin's figures that only the first file has, though the second ran their part."""
    gone = []
    for name, part in before.items():
        if name not in after:
            continue
        later = {f["name"] for f in after[name]["findings"] if _has_value(f)}
        gone += [
            f"{name}: {found['name']}"
            for found in part["findings"]
            if _has_value(found) and found["name"] not in later
            if str(found.get("provider", "gptwin")).startswith("gptwin")
        ]
    return gone


def _has_value(found: Finding) -> bool:
    return found.get("status") == "measured" and bool(found.get("value"))


def compare(a: str, b: str) -> int:
    """Print how B's figures differ from A's.

    Parameters
    ----------
    a, b : str
        Result files.

    Returns
    -------
    int
        1 if a figure of gptwin's became worse beyond the noise, or is gone; else 0.

    Raises
    ------
    ValueError
        If a file is no result file, is of a dry run, or they have no figure in common.
    """
    before, after = (_load(path) for path in (a, b))
    found = list(changes(before, after))
    if not found:
        refuse("compare", "two result files with figures in common", f"{a} and {b}")
    console = Console(highlight=False)
    console.print(_table(found, before, after))
    gone = lost(before, after)
    for name in gone:
        console.print(f"[bold red]no figure any more:[/bold red] {escape(name)}", soft_wrap=True)
    ours = [change for change in found if change.ours and change.part != "roofline"]
    worse = [change for change in ours if change.verdict == WORSE]
    better = [change for change in ours if change.verdict == BETTER]
    console.print(
        f"{len(ours)} figures of gptwin: {len(better)} better, {len(worse)} worse, "
        f"{len(ours) - len(better) - len(worse)} within noise"
    )
    return int(bool(worse or gone))


def _load(path: str) -> dict[str, result_file.Part]:
    if not Path(path).is_file():
        refuse("compare", "a result file", path)
    parts = result_file.load(Path(path))
    if any(part["settings"].get("dry_run") for part in parts.values()):
        refuse("compare", "a file of measurements", path, "a dry run's figures mean nothing")
    return parts


def _table(
    found: list[Change],
    before: Mapping[str, result_file.Part],
    after: Mapping[str, result_file.Part],
) -> Table:
    """Show every change beyond noise, the worst first, and the roofline as a control."""
    shown = [c for c in found if c.verdict != SAME or c.part == "roofline"]
    machines = [
        sorted({str(p["environment"].get("device") or p["environment"].get("cpu")) for p in parts})
        for parts in (before.values(), after.values())
    ]
    caption = "B to A; the interval is both files' noise"
    if machines[0] != machines[1]:
        caption += f"; A on {', '.join(machines[0])}, B on {', '.join(machines[1])}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption_justify="left", caption=caption)
    for heading in ("part", "figure"):
        table.add_column(heading, overflow="fold")
    for heading in ("times as good", "interval", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for change in sorted(shown, key=lambda c: c.ratio):
        colour = {WORSE: "[red]", BETTER: "[green]", SAME: "[dim]"}[change.verdict]
        who = "" if change.ours else " (not gptwin)"
        table.add_row(
            change.part, escape(change.name), f"{change.ratio:.3f}",
            f"{change.low:.3f} to {change.high:.3f}", f"{colour}{change.verdict}[/]{who}",
        )  # fmt: skip
    return table
