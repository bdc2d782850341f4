"""`gptwin predict` on a terminal: what each launch takes, what binds it, and the calls' times."""

import dataclasses
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ..inspect.console import WIDTH_WHEN_PIPED, configuration_words
from ..inspect.inspect import TWINS_MODULE
from ..store import expect_writable, made_with, write_rows
from .machines import BOUNDS_ALONE, ERROR, MACHINES
from .predict import Call, Loop, Row, ahead, predict

MOST_NAMED = 3
LEAST_SHARE = 0.02


def predict_operations(
    names: Sequence[str] = (),
    archs: Sequence[str] = (),
    dtype: str | None = None,
    shape: str | None = None,
    *,
    json_file: str | None = None,
    twins: str = TWINS_MODULE,
    console: Console | None = None,
) -> int:
    """Estimate, and print a table for each architecture.

    Parameters
    ----------
    names, archs, dtype, shape, twins
        As in `predict`; no architecture means sm_90.
    json_file : str, optional
        Where to store the rows, for the report.
    console : rich.console.Console, optional
        Where to print; standard output by default.

    Returns
    -------
    int
        The exit code: 0 if every kernel compiled, 1 if not.

    Raises
    ------
    ValueError, RuntimeError
        As in `predict`.
    """
    stored = None if json_file is None else expect_writable("json", json_file)
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH_WHEN_PIPED
    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar_of = {}

        def on_progress(arch: str, done: int, of: int) -> None:
            if arch not in bar_of:
                bar_of[arch] = bars.add_task(f"estimating for {arch}", total=of)
            bars.update(bar_of[arch], completed=done)

        rows, calls = predict(names, archs or ("sm_90",), dtype=dtype, shape=shape, twins=twins,
                              on_progress=on_progress)  # fmt: skip
    for arch in dict.fromkeys(call.arch for call in calls):
        print_estimates(
            [row for row in rows if row.arch == arch],
            [call for call in calls if call.arch == arch],
            console,
        )
    if stored is not None:
        found = [{"kind": "launch", **dataclasses.asdict(row)} for row in rows]
        found += [{"kind": "call", **dataclasses.asdict(call)} for call in calls]
        write_rows(stored, made_with() | {"error": ERROR}, found)
    return 1 if any(row.resources is None for row in rows) else 0


def print_estimates(rows: Sequence[Row], calls: Sequence[Call], console: Console) -> None:
    """Print one architecture's launches, then its calls.

    Parameters
    ----------
    rows : sequence of Row
    calls : sequence of Call
    console : rich.console.Console
    """
    arch = calls[0].arch
    if arch in BOUNDS_ALONE:
        console.print(f"{arch}: its pipes are not modelled: bounds alone, by {calls[0].device}'s "
                      "datasheet; no kernel is that fast", soft_wrap=True)  # fmt: skip
    else:
        console.print(f"{MACHINES[arch].name} ({arch}): estimates, not measurements, of known "
                      f"error ±{ERROR[arch]:.0%} (docs/predict.md)", soft_wrap=True)  # fmt: skip
    console.print(_table(rows))
    for group in _by_launch(rows):
        if words := ahead(group):
            first = group[0]
            console.print(f"{first.operation} {first.direction} {first.kernel}: {words}",
                          soft_wrap=True, highlight=False)  # fmt: skip
        for why in dict.fromkeys(row.unknown for row in group if row.unknown):
            if arch not in BOUNDS_ALONE:
                console.print(Text(f"{group[0].kernel}: no time: {why}"), soft_wrap=True)
    for call in calls:
        console.print(Text(told(call)), soft_wrap=True)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("operation, launch", "configuration"):
        table.add_column(heading, overflow="fold")
    for heading in ("registers", "blocks", "µs (range)"):
        table.add_column(heading, justify="right")
    for heading in ("hottest loop: cycles a turn (range); bound", "rate", "busy", "warps wait for"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        loop = row.loops[0] if row.loops else None
        table.add_row(
            f"{row.operation} {row.direction}: {row.kernel.removesuffix('_kernel')}",
            f"{row.configuration}: {configuration_words(row.options)}",
            str(row.resources.registers) if row.resources else "-",
            str(row.blocks),
            _time(row),
            _cycles(loop) if loop else "-",
            _rate(loop) if loop else "-",
            shares(row.busy),
            shares(row.stalls),
        )
    return table


def _time(row: Row) -> str:
    if row.seconds is None:
        return "unknown"
    mean, least, most = (s * 1e6 for s in row.seconds)
    near = most - least < 0.01 * mean
    return f"{mean:,.4g}" if near else f"{mean:,.4g} ({least:,.4g}-{most:,.4g})"


def _cycles(loop: Loop) -> str:
    mean, least, most = loop.cycles
    turn = f"{mean:,.0f}" if most - least < 1 else f"{mean:,.0f} ({least:,.0f}-{most:,.0f})"
    return f"{turn}; {loop.bound[1]:,.0f} {loop.bound[0]}"


def _rate(loop: Loop) -> str:
    return f"{loop.rate / 1e12:,.3g} T{loop.unit}"


def shares(of: Mapping[str, float]) -> str:
    """Write the largest shares: "tensor 61%, xu 40%".

    Parameters
    ----------
    of : dict of str to float

    Returns
    -------
    str
    """
    named = sorted(of.items(), key=lambda item: -item[1])[:MOST_NAMED]
    return ", ".join(f"{name} {share:.0%}" for name, share in named if share >= LEAST_SHARE)


def _by_launch(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.operation, row.direction, row.launch), []).append(row)
    return list(groups.values())


def told(call: Call) -> str:
    """Say what a call takes, beside the roofline.

    Parameters
    ----------
    call : Call

    Returns
    -------
    str
    """
    name = f"{call.operation} {call.direction}, {call.dtype}, {call.shape}"
    bound = "the twin declares no cost, so there is no roofline"
    if call.least_seconds is not None:
        bound = f"{call.device}'s roofline allows {call.least_seconds * 1e6:,.4g} µs ({call.limit})"
    if call.seconds is None:
        return f"{name}: {bound}"
    text = f"{name}: about {call.seconds * 1e6:,.4g} µs; {bound}"
    if call.least_seconds is None:
        return text
    return f"{text}, {call.least_seconds / call.seconds:.0%} of the estimate"
