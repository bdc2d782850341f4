"""`gptwin sanitize` as a person sees it: progress bar, table, findings, JSON."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ... import __version__
from ...core.checks import refuse
from ...kernels.common._triton import UNAVAILABLE, triton
from ..store import expect_writable, made_with, write_rows
from ..twins.catalogue import TWINS
from ..twins.find import find_twin, is_own
from ..twins.twin import DTYPES
from ..verify.verify import variants
from .drivers import PREFIX, DriverTarget, find_drivers, load
from .own_twins import IN_PLACE, TwinTarget, targets
from .sanitize import Report, Target, sanitize
from .violation import KINDS, Violation, shown_path


@dataclasses.dataclass
class Row:
    """What one row of the table says.

    Attributes
    ----------
    name : str
        An operation, or a file and its driver.
    kernels : set of str
        Those launched.
    reached : set of (str, int)
        Of a twin: kernels with the configurations that ran.
    n_cases, n_launches, n_accesses : int
        How much was run.
    violations : list of Violation
        One for each kind, line and tensor, counted over all cases.
    """

    name: str
    kernels: set[str] = dataclasses.field(default_factory=set)
    reached: set[tuple[str, int]] = dataclasses.field(default_factory=set)
    n_cases: int = 0
    n_launches: int = 0
    n_accesses: int = 0
    violations: list[Violation] = dataclasses.field(default_factory=list)

    def add(self, target: Target, report: Report, allowed: list[str]) -> None:
        """Take up what one case showed."""
        self.n_cases += 1
        self.n_launches += report.n_launches
        self.n_accesses += report.n_accesses
        self.kernels |= report.kernels
        if isinstance(target, TwinTarget):
            self.reached |= target.reached
        known = {violation.key: violation for violation in self.violations}
        for violation in report.violations:
            if violation.key in known:
                known[violation.key].count += violation.count
            elif violation.kind not in allowed:
                self.violations.append(violation)


def run(
    names: list[str],
    *,
    driver: str | None = None,
    dtypes: list[str],
    allow: list[str],
    seed: int = 0,
    json_file: str | None = None,
) -> int:
    """Sanitize operations, or kernels of a file, and print what was found.

    Parameters
    ----------
    names : list of str
        Operations, or "file.py::kernel"; empty for all operations.
    driver : str, optional
        Of the file, if it is not `drive_<kernel>`.
    dtypes : list of str
        For operations; empty for a choice.
    allow : list of str
        Kinds of findings not to report.
    seed : int
        Of the shuffled order.
    json_file : str, optional
        Where to store the findings.

    Returns
    -------
    int
        0 if nothing was found, else 1.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    RuntimeError
        If Triton is missing, or a person's file or driver raises.
    """
    if UNAVAILABLE is not None:
        raise RuntimeError(f"sanitize: expected Triton to be installed, but {UNAVAILABLE}")
    for kind in allow:
        if kind not in KINDS:
            refuse("allow", f"one of {', '.join(KINDS)}", repr(kind))
    for dtype in dtypes:
        if dtype not in DTYPES:
            refuse("dtype", f"one of {', '.join(DTYPES)}", repr(dtype))
    stored = None if json_file is None else expect_writable("json", json_file)
    jobs = _jobs(names or [*TWINS, *IN_PLACE], driver, dtypes)

    console = Console()
    console.print(
        f"gptwin {__version__}: every access of memory checked, in Triton {triton.__version__}'s "
        "interpreter",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    started = time.monotonic()
    rows = _run_with_progress(jobs, seed, allow, console)
    console.print(_table(rows))
    violations = [violation for row in rows for violation in row.violations]
    for violation in violations:
        text = f"{violation}\n    in {violation.case}\n"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    _tell_unreached(rows, console)
    n = len(violations)
    verdict = f"{n} finding{'s' if n > 1 else ''}" if n else "nothing found"
    console.print(
        f"{sum(row.n_accesses for row in rows):,} accesses of "
        f"{sum(row.n_launches for row in rows):,} launches, seed {seed}, "
        f"{time.monotonic() - started:.0f} s: [bold]{verdict}[/bold]",
        highlight=False,
    )
    if stored is not None:
        _write_json(stored, rows, seed)
    return 1 if violations else 0


def _jobs(
    names: list[str], driver: str | None, dtypes: list[str]
) -> list[tuple[str, Iterator[Target]]]:
    """Name each row, with the targets that it runs."""
    jobs: list[tuple[str, Iterator[Target]]] = []
    for name in names:
        path, _, kernel = name.partition("::")
        if is_own(name):
            find_twin(name)
            jobs.append((name, targets(name, dtypes)))
        elif path.endswith(".py") or kernel:
            module = load(path)
            for function in find_drivers(module, path, kernel, driver):
                meant = kernel or function.removeprefix(PREFIX)
                jobs.append((f"{path}::{meant}", _every_configuration(module, function)))
        elif name in TWINS or name in IN_PLACE:
            jobs.append((name, targets(name, dtypes)))
        else:
            known = ", ".join([*TWINS, *IN_PLACE])
            refuse("operation", f"one of {known}, or path/to/file.py::kernel", repr(name))
    return jobs


def _every_configuration(module: Any, function: str) -> Iterator[Target]:
    """Yield a driver's target for each configuration: how many there are, its first run shows."""
    target = DriverTarget(module, function)
    yield target
    for configuration in range(1, target.n_configurations):
        yield DriverTarget(module, function, configuration)


def _run_with_progress(
    jobs: list[tuple[str, Iterator[Target]]], seed: int, allow: list[str], console: Console
) -> list[Row]:
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    rows = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(jobs))
        for name, job in jobs:
            row = Row(name)
            for target in job:
                progress.update(task, description=f"{name}, case {row.n_cases + 1}")
                row.add(target, sanitize(target, seed), allow)
            kernel = name.partition("::")[2]
            if kernel and kernel not in row.kernels:
                launched = ", ".join(row.kernels) or "nothing"
                refuse(
                    "driver", f"a function that launches {kernel}", f"one that launches {launched}"
                )
            progress.advance(task)
            rows.append(row)
    return rows


def _table(rows: list[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("target", overflow="fold")
    for heading in ("cases", "kernels", "launches", "accesses"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        n = len(row.violations)
        verdict = f"[bold red]{n} found[/bold red]" if n else "[green]ok[/green]"
        numbers = (row.n_cases, len(row.kernels), row.n_launches, row.n_accesses)
        table.add_row(shown_path(row.name), *(f"{number:,}" for number in numbers), verdict)
    return table


def _tell_unreached(rows: list[Row], console: Console) -> None:
    """Name the kernels and configurations of a twin about which nothing was learnt."""
    for row in rows:
        if (row.name in TWINS or is_own(row.name)) and not row.violations:
            left = [v for v in variants(find_twin(row.name)) if v not in row.reached]
            if left:
                names = ", ".join(f"{kernel} #{i}" for kernel, i in left)
                console.print(f"{row.name}: no case launched {names}", highlight=False)


def _write_json(path: Path, rows: list[Row], seed: int) -> None:
    found = [
        {
            "name": row.name,
            "cases": row.n_cases,
            "kernels": sorted(row.kernels),
            "launches": row.n_launches,
            "accesses": row.n_accesses,
            "findings": [dataclasses.asdict(violation) for violation in row.violations],
        }
        for row in rows
    ]
    head = {"seed": seed, "passed": not any(row.violations for row in rows)}
    write_rows(path, made_with() | head, found)
