"""`gptwin inspect` on a terminal: a table for each architecture, and the texts asked for."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ..store import expect_writable, made_with, write_rows
from .inspect import DTYPES, TWINS_MODULE, Row, inspect
from .lints import reason_to_accept
from .targets import Architecture, architecture

WIDTH_WHEN_PIPED = 200


def inspect_operations(
    names: Sequence[str] = (),
    archs: Sequence[str] = (),
    show: str | None = None,
    dtypes: Sequence[str] = DTYPES,
    *,
    typical: bool = False,
    json_file: str | None = None,
    twins: str = TWINS_MODULE,
    console: Console | None = None,
) -> int:
    """Inspect, and print a table for each architecture.

    Parameters
    ----------
    names, archs, show, dtypes, typical, twins
        As in `inspect`.
    json_file : str, optional
        Where to store the rows, for the report.
    console : rich.console.Console, optional
        Where to print; standard output by default.

    Returns
    -------
    int
        The exit code: 0 if every kernel passed, 1 if not.

    Raises
    ------
    ValueError, RuntimeError
        As in `inspect`.
    """
    stored = None if json_file is None else expect_writable("json", json_file)
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH_WHEN_PIPED
    # On stderr, so that a piped table or assembly listing stays clean.
    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar_of: dict[str, Any] = {}

        def on_progress(arch: str, done: int, of: int) -> None:
            if arch not in bar_of:
                bar_of[arch] = bars.add_task(f"compiling for {arch}", total=of)
            bars.update(bar_of[arch], completed=done)

        rows = inspect(names, archs, show=show, dtypes=dtypes, typical=typical, twins=twins,
                       on_progress=on_progress)  # fmt: skip
    for arch in dict.fromkeys(row.arch for row in rows):
        of_arch = [row for row in rows if row.arch == arch]
        if show:
            _print_texts(of_arch, show, console)
        _print_table(of_arch, architecture(arch), console)
    if stored is not None:
        head = made_with() | {"typical": typical}
        write_rows(stored, head, [dataclasses.asdict(row) for row in rows])
    return 1 if any(row.failures for row in rows) else 0


def _print_table(rows: list[Row], on: Architecture, console: Console) -> None:
    title = f"{on.name}: what each kernel takes"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for heading in ("operation", "kernel", "dtype", "configuration", "shapes"):
        table.add_column(heading, overflow="fold")
    for heading in ("registers", "spills (B)", "shared (B)", "occupancy"):
        table.add_column(heading, justify="right")
    for heading in ("tensor cores", "async copies"):
        table.add_column(heading, overflow="fold")
    compiled = [row for row in rows if row.resources]
    for row in compiled:
        table.add_row(*_cells(row, on), style="red" if row.failures else "")
    console.print(table)

    # Text, not a string: rich would take "[0, 1]" in a message for markup.
    for row in rows:
        for why in row.failures:
            console.print(Text(f"FAILED {_headline(row)}: {why}", style="red"), soft_wrap=True)
    _print_lints(rows, console)
    kernels = {(row.operation, row.kernel) for row in compiled}
    failures = sum(1 for row in rows if row.failures)
    console.print(
        f"{on.name}: {len(kernels)} kernels, {len(compiled)} compilations; {failures} failed; "
        f"a block may have {on.shared_memory_per_block:,} bytes of shared memory",
        highlight=False,
        soft_wrap=True,
    )


def _print_lints(rows: list[Row], console: Console) -> None:
    """Print what no row fails for: of a user's kernels all, of this project's what is accepted."""
    accepted: dict[str, int] = {}
    for row in rows:
        for lint in row.lints:
            if str(lint) in row.failures:
                continue
            reason = reason_to_accept(row.kernel, row.arch, lint)
            if reason:
                what = f"{row.kernel}, {lint.kind}: {reason}"
                accepted[what] = accepted.get(what, 0) + 1
            else:
                console.print(Text(f"lint {_headline(row)}: {lint}"), soft_wrap=True)
    for what, n in accepted.items():
        console.print(Text(f"accepted ({n}): {what}"), soft_wrap=True)


def _cells(row: Row, on: Architecture) -> list[str]:
    resources = row.resources
    assert resources is not None
    return [
        row.operation,
        row.kernel.removeprefix(f"{row.operation}_").removesuffix("_kernel"),
        row.dtype,
        configuration_words(row.options),
        ", ".join(row.shapes),
        str(resources.registers),
        str(resources.spill_bytes),
        f"{resources.shared_bytes:,}",
        f"{row.occupancy:.0%}",
        _mix(resources.tensor_core),
        _mix(resources.async_copies),
    ]


def configuration_words(options: dict[str, Any]) -> str:
    """Shorten {"TILE": 2048, "CAUSAL": True, "num_warps": 4} to "TILE=2048 CAUSAL warps=4".

    Parameters
    ----------
    options : dict

    Returns
    -------
    str
    """
    words = []
    for name, value in options.items():
        if value is True:
            words.append(name)
        elif value is not False and value is not None:
            words.append(f"{name.removeprefix('num_')}={value}")
    return " ".join(words)


def _mix(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "-"


def _headline(row: Row) -> str:
    words = [row.operation, row.kernel, row.dtype, configuration_words(row.options)]
    shapes = f"({', '.join(row.shapes)})" if row.shapes else ""
    return " ".join(word for word in [*words, shapes] if word)


def _print_texts(rows: list[Row], show: str, console: Console) -> None:
    """Print each kernel's text under a heading; its Python source once, whatever was compiled."""
    seen = set()
    for row in rows:
        if row.text is None or (show == "source" and row.kernel in seen):
            continue
        seen.add(row.kernel)
        heading = row.kernel if show == "source" else f"{row.arch} {_headline(row)}"
        console.rule(Text(heading), align="left")
        console.print(Text(row.text), soft_wrap=True)
