"""`gptwin bench gpu --dry-run`: every path of it, tiny and without a GPU, as a list.

What is to run is listed beforehand: every operation with every provider, training, generation, PPO,
verification, the roofline, compiling ahead, and what comes of the figures. So a path that is not
reached has failed, as has one that raised, computed something else, or died. Each ends as

    run            its cells came through the gate and the (counting) clock
    unavailable    it says that it cannot run here: not installed, or a GPU's alone
    FAILED         and then the exit code is 1

Parts that are stored for this commit are not done again, so a run that was cut short goes on.
"""

import contextlib
import copy
import dataclasses
import functools
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ...lab.twins.catalogue import TWINS
from .. import result_file
from ..compare import compare
from ..models import QUICK
from ..timing import Finding, describe
from . import driver
from .end_to_end.training import makers as training_makers
from .job import Workloads, makers
from .operations.cells import default_dtypes, directions_of, timed_at
from .operations.providers import providers
from .operations.results import END_TO_END, cell_name
from .operations.roofline import MATMULS
from .operations.shapes import stand_ins, tiny_shapes
from .shown import goals, plots

EVERYTHING = [driver.OPERATIONS, *END_TO_END, driver.VERIFY]
COMPILED_AHEAD = ("gelu/bfloat16", "training", "generation")
RUN, UNAVAILABLE, FAILED = "run", "unavailable", "FAILED"
SLOWER = 1.2

Cells = dict[tuple[str, str], list[str]]  # by part and provider, names of cells


@dataclasses.dataclass(frozen=True)
class TriedPath:
    """How a path ended.

    Attributes
    ----------
    path : str
    status : str
        RUN, UNAVAILABLE or FAILED.
    note : str
        What ran, or why not.
    """

    path: str
    status: str
    note: str


def dry_run(
    workloads: Workloads, *, out: str | None, again: bool, limit_s: float, budget_s: float
) -> int:
    """Try every path and print the list.

    Parameters
    ----------
    workloads : callable
        Returns what the pipeline hands over; see job.py.
    out : str, optional
        Result file; by default build/dry-run.jsonl.
    again : bool
        Run also what is stored.
    limit_s, budget_s : float
        As in `driver.bench`.

    Returns
    -------
    int
        0; 1 if a path failed; 3 if the time is up: the same command goes on.
    """
    path = driver.results_path(out, driver.device_name(True), dry_run=True)
    code = driver.bench(
        EVERYTHING, dtypes=[], providers=[], dry_run=True, out=str(path), again=again,
        limit_s=limit_s, budget_s=budget_s, summary=False,
    )  # fmt: skip
    if code == driver.OUT_OF_TIME:
        return code
    parts = result_file.load(path)
    outcomes = [*tried_paths(expected_cells(workloads()), parts), *closing(path, limit_s)]
    return print_list(outcomes)


# --- what is to run ------------------------------------------------------------------------------


def expected_cells(workloads: Mapping[str, Callable[..., Any]]) -> Cells:
    """List the cells of every path, by part and provider ("" if a part has none).

    Parameters
    ----------
    workloads : dict
        What the pipeline hands over.

    Returns
    -------
    dict
    """
    cells: Cells = {("roofline", ""): ["copy", *MATMULS]}
    for name, twin in TWINS.items():
        for dtype in default_dtypes(twin):
            for shape in tiny_shapes(twin):
                for provider in timed_at(twin, shape, providers(name)):
                    path = cells.setdefault((f"{name}/{dtype}", provider.name), [])
                    path += [cell_name(shape, d, provider.name) for d in directions_of(twin)]
    for name, _ in training_makers(QUICK, {}, torch.empty(0), "aot_eager"):
        cells["training", name] = [name]
    for part in ("generation", "ppo"):
        for name in makers(part, workloads, "cpu", tiny=True):
            who = name.rpartition(" | ")[2]
            cells.setdefault((part, who), []).append(name)
    for name in TWINS:
        cells[f"{driver.VERIFY}/{name}", ""] = [name]
    return cells


def sizes_note(part: str) -> str:
    """Say which of an operation's sizes ran, and for which others each stands."""
    standing: dict[str, list[str]] = {}
    for name, other in stand_ins(TWINS[part.partition("/")[0]]).items():
        standing.setdefault(other, [])
        if name != other:
            standing[other].append(name)
    return "; ".join(
        f"{name} (so too {', '.join(others)})" if others else name
        for name, others in standing.items()
    )


# --- what became of it ---------------------------------------------------------------------------


def tried_paths(cells: Cells, parts: Mapping[str, result_file.Part]) -> Iterator[TriedPath]:
    """Yield how each path ended by what is stored."""
    for (part, provider), names in cells.items():
        path = f"{part} | {provider}" if provider else part
        stored = parts.get(part)
        if stored is None or stored["status"] != "measured":
            reason = (stored or {}).get("reason") or "not reached"
            yield TriedPath(path, FAILED, reason)
            continue
        found = {finding["name"]: finding for finding in stored["findings"]}
        yield TriedPath(path, *judge([found.get(name) for name in names]))


def judge(cells: list[Finding | None]) -> tuple[str, str]:
    """Return the status of a path's cells, and what ran or why not."""
    reached = [cell for cell in cells if cell is not None]
    if len(reached) < len(cells):
        return FAILED, f"{len(cells) - len(reached)} of {len(cells)} cells not reached"
    reasons: dict[str, Counter[str]] = {}
    for cell in reached:
        reasons.setdefault(cell["status"], Counter())[cell["reason"] or ""] += 1
    measured = sum(reasons.pop("measured", Counter()).values())
    skipped = "; ".join(reasons.pop("skipped", {}))
    if reasons:
        return FAILED, "; ".join(text for counts in reasons.values() for text in counts)
    if not measured:
        return UNAVAILABLE, skipped
    ran = f"{measured} cell{'s' if measured > 1 else ''}"
    return RUN, ran + (f"; not made for {len(cells) - measured}" if skipped else "")


# --- what comes of the figures -------------------------------------------------------------------


def closing(path: Path, limit_s: float) -> Iterator[TriedPath]:
    """Try what follows the measuring, each step by itself."""
    steps: dict[str, Callable[[], str]] = {
        f"compile ahead: {part}": functools.partial(compile_ahead, path, part, limit_s)
        for part in COMPILED_AHEAD
    }
    steps |= {"plots": lambda: draw(path), "table": lambda: fill_in(path),
              "compare": lambda: compare_with_slower(path)}  # fmt: skip
    for name, step in steps.items():
        try:
            yield TriedPath(name, RUN, step())
        except Exception as error:  # whatever a step raises is what is found
            yield TriedPath(name, FAILED, describe(error))


def compile_ahead(path: Path, part: str, limit_s: float) -> str:
    """Run a part without a clock, as before the timing on a GPU."""
    found: dict[str, Finding] = {}

    def on_event(event: dict[str, Any]) -> None:
        if "finding" in event:
            found[event["finding"]["name"]] = event["finding"]

    run = driver.a_run(path, driver.device_name(True), dry_run=True, limit_s=limit_s)
    status, reason = driver.follow(run, part, None, found, on_event, compile_only=True)
    failed = [f["reason"] for f in found.values() if f["status"] == "failed"]
    if status != "measured" or failed:
        raise RuntimeError(reason or failed[0])
    return "no clock, no figures"


def draw(path: Path) -> str:
    """Draw every picture."""
    written = plots.plot(result_file.load(path), path.with_suffix(""), dry_runs=True)
    expected = {f"{name}-{dtype}.png" for name in TWINS for dtype in default_dtypes(TWINS[name])}
    missing = (expected | {"roofline.png", "memory.png"}) - {file.name for file in written}
    if missing:
        raise RuntimeError(f"no picture {', '.join(sorted(missing))}")
    return f"{len(written)} pictures in {path.with_suffix('')}"


def fill_in(path: Path) -> str:
    """Judge every goal by the cells, and write a table of the dry run, which judges none."""
    rows = goals.rows(at_every_size(as_if_real(result_file.load(path))))
    silent = [row for row in rows if row.reached is None and row.figure == goals.NOT_MEASURED]
    if silent:
        raise RuntimeError(f"no cell for: {silent[0].operation}: {silent[0].goal}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "README.md")
        file.write_text(f"{goals.BEGIN}\n{goals.END}\n", encoding="utf-8")
        goals.update(str(file), str(path))
        if "reached" in file.read_text(encoding="utf-8"):
            raise RuntimeError("a dry run's figures stand in the table")
    open_rows = sum(row.reached is None for row in rows)
    return f"{len(rows)} goals, {open_rows} of them open: a peer is unavailable"


def compare_with_slower(path: Path) -> str:
    """Compare the figures with themselves, and with gptwin made slower."""
    parts = as_if_real(result_file.load(path))
    slower = copy.deepcopy(parts)
    for part in slower.values():
        for found in part["findings"]:
            if found.get("provider") == "gptwin" and found["unit"] == "seconds" and found["value"]:
                found["value"] = {name: SLOWER * x for name, x in found["value"].items()}
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder, name)) for name in ("a.jsonl", "b.jsonl")]
        for file, content in zip(files, (parts, slower), strict=True):
            for name, part in content.items():
                result_file.save(Path(file), name, part)
        with contextlib.redirect_stdout(io.StringIO()):
            codes = compare(files[0], files[0]), compare(*files)
    if codes != (0, 1):
        raise RuntimeError(f"expected exit codes 0 and 1, got {codes[0]} and {codes[1]}")
    return f"0 against itself, 1 against {SLOWER} times the time"


def at_every_size(parts: Mapping[str, result_file.Part]) -> dict[str, result_file.Part]:
    """Return a copy in which each size has the cells of the one that ran in its place."""
    whole = copy.deepcopy(dict(parts))
    for name, part in whole.items():
        if (operation := name.partition("/")[0]) in TWINS:
            part["findings"] = [
                {**found, "shape": shape}
                for shape, stand_in in stand_ins(TWINS[operation]).items()
                for found in part["findings"]
                if found["shape"] == stand_in
            ]
    return whole


def as_if_real(parts: Mapping[str, result_file.Part]) -> dict[str, result_file.Part]:
    """Return a copy whose figures are taken for measured ones; never stored."""
    real = copy.deepcopy(dict(parts))
    for part in real.values():
        part["settings"]["dry_run"] = False
    return real


# --- the list ------------------------------------------------------------------------------------


def print_list(outcomes: list[TriedPath]) -> int:
    """Print how every path ended; return the exit code."""
    console = Console(highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("path", "", "what ran, or why not"):
        table.add_column(heading, overflow="fold")
    colours = {RUN: "green", UNAVAILABLE: "yellow", FAILED: "bold red"}
    shown = set()
    for outcome in outcomes:
        part, several, _ = outcome.path.partition(" | ")
        if several and "/" in part and part not in shown:
            shown.add(part)
            table.add_row(f"[bold]{part}[/bold]", "", f"sizes: {sizes_note(part)}")
        status = f"[{colours[outcome.status]}]{outcome.status}[/]"
        table.add_row(outcome.path, status, outcome.note)
    console.print(table)
    counts = Counter(outcome.status for outcome in outcomes)
    console.print(
        f"{len(outcomes)} paths: " + ", ".join(f"{n} {status}" for status, n in counts.items())
        + "; a dry run: no figure means anything"
    )  # fmt: skip
    return driver.FAILED if counts[FAILED] else driver.DONE
