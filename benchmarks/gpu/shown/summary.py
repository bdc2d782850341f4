"""The table that a run prints."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...result_file import Part
from ...timing import Finding
from ..operations.results import OURS, is_real, measured


def print_summary(parts: Mapping[str, Part], console: Console) -> None:
    """Print gptwin's figure of every cell beside the fastest other's.

    Parameters
    ----------
    parts : dict
        As stored.
    console : Console
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption_justify="left", caption=caption(parts))
    for heading in ("operation", "size", "direction"):
        table.add_column(heading, overflow="fold")
    for heading in ("time", "p20 to p80", "roofline", "times as fast as"):
        table.add_column(heading, justify="right", overflow="fold")
    for (operation, shape, direction), cell in by_cell(parts).items():
        if OURS in cell:
            table.add_row(operation, shape, direction, *figures(cell))
    console.print(table)
    for name, part in parts.items():
        for found in part["findings"]:
            if "value" in found and found["unit"] == "tokens/s" and found["value"]:
                mfu = f", MFU {found['mfu']:.1%}" if found.get("mfu") else ""
                console.print(
                    f"{name}: {found['name']}: {found['value']['median']:,.0f} tokens/s{mfu}"
                )
    for line in troubles(parts):
        console.print(line, soft_wrap=True)


def by_cell(parts: Mapping[str, Part]) -> dict[tuple[str, str, str], dict[str, Finding]]:
    """Group measured findings: (operation, shape, direction) to provider to finding."""
    cells: dict[tuple[str, str, str], dict[str, Finding]] = {}
    for operation, dtype, found in measured(parts, dry_runs=True):
        key = (f"{operation} {dtype}", found["shape"], found["direction"])
        cells.setdefault(key, {})[found["provider"]] = found
    return cells


def figures(cell: Mapping[str, Finding]) -> tuple[str, ...]:
    """Write gptwin's time, its noise, its share of the roofline, and the best other."""
    ours = cell[OURS]
    value, roofline = ours["value"], ours["roofline"]
    share = "-"
    if roofline:
        share = f"{roofline['share']:.0%} of {roofline['bound']}"
        share += f", {roofline['label']}" if roofline["label"] else ""
    if ours["launch_bound"]:
        share += ", launch-bound"
    others = {n: f["value"]["median"] for n, f in cell.items() if n != OURS and f["gate"]}
    ratio = "-"
    if others:
        best = min(others, key=others.__getitem__)
        ratio = f"{others[best] / value['median']:.2f} {best}"
    noise = f"{duration(value['p20'])} to {duration(value['p80'])}"
    return duration(value["median"]), noise, share, ratio


def duration(seconds: float) -> str:
    """Write a time with three digits."""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def troubles(parts: Mapping[str, Part]) -> list[str]:
    """List parts without figures, and what failed, each reason once."""
    lines = []
    for name, part in parts.items():
        if part["status"] != "measured":
            lines.append(f"[red]{name}: {part['status']}[/red]: {escape(part['reason'] or '')}")
        reasons: dict[tuple[str, str, str], int] = {}
        for found in part["findings"]:
            if found["status"] in ("failed", "rejected"):
                key = (str(found.get("provider", "")), found["status"], found["reason"])
                reasons[key] = reasons.get(key, 0) + 1
        for (provider, status, reason), n in reasons.items():
            lines.append(escape(f"{name}: {provider}: {n} {status}: {reason}"))
    return lines


def caption(parts: Mapping[str, Part]) -> str:
    """Say on what was measured, once for all parts that share it."""
    lines = []
    for part in parts.values():
        here = part["environment"]
        line = (
            f"{here['device']}, driver {here['driver']}, CUDA {here['cuda']}, "
            f"PyTorch {here['torch']}, Triton {here['triton']}; commit {here['commit'][:16]}"
        )
        if not is_real(part):
            line += "; a dry run: the figures mean nothing"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)
