"""`gptwin sanitize` as a person sees it: progress bar, table, findings, JSON."""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ... import __version__
from ...core.checks import refuse
from ...kernels.common._triton import UNAVAILABLE, architecture, triton
from ..pretend.frames import shown_path
from ..store import expect_writable, made_with, write_rows
from ..twins.catalogue import TWINS
from ..twins.find import find_twin, is_own
from ..twins.twin import DTYPES
from ..verify.verify import variants
from .autotuned import CONFIGURATIONS
from .drivers import PREFIX, DriverTarget, find_drivers, load
from .own_twins import IN_PLACE, TwinTarget, targets
from .program import Outcome, is_command, run_command
from .sanitize import Report, Target, sanitize
from .violation import KINDS, Violation


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
    configurations : dict
        For each autotuned kernel how many of its configurations have run, and how many it has.
    problem : str
        Why less was learnt than was asked for; "" if nothing stood in the way.
    """

    name: str
    kernels: set[str] = dataclasses.field(default_factory=set)
    reached: set[tuple[str, int]] = dataclasses.field(default_factory=set)
    n_cases: int = 0
    n_launches: int = 0
    n_accesses: int = 0
    violations: list[Violation] = dataclasses.field(default_factory=list)
    configurations: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    problem: str = ""

    def add(self, target: Target, report: Report, allowed: list[str]) -> None:
        """Take up what one case showed."""
        self.n_cases += 1
        self.configurations |= report.configurations
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
    configs: int = CONFIGURATIONS,
    updates: Sequence[str] = (),
    json_file: str | None = None,
) -> int:
    """Sanitize operations, kernels of a file, or a program, and print what was found.

    Parameters
    ----------
    names : list of str
        Operations, or "file.py::kernel"; empty for all operations. Or a program's command line:
        "python" or "pytest", and its arguments.
    driver : str, optional
        Of the file, if it is not `drive_<kernel>`.
    dtypes : list of str
        For operations; empty for a choice.
    allow : list of str
        Kinds of findings not to report.
    seed : int
        Of the shuffled order.
    configs : int
        The most configurations of an autotuned kernel that run for each key.
    updates : sequence of str
        Arguments of kernels that may be written, though they hold a caller's data.
    json_file : str, optional
        Where to store the findings.

    Returns
    -------
    int
        0 if kernels were launched and nothing was found, else 1; what a program ends with, if
        that is not 0.

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
    if configs < 1:
        refuse("configs", "a number from 1 on", str(configs))
    console = Console(emoji=False)  # else "file.py:100:" has an emoji in it
    console.print(
        f"gptwin {__version__}: every access of memory checked, in Triton {triton.__version__}'s "
        "interpreter",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    started = time.monotonic()
    exit_code = 0
    if is_command(names):
        outcome = run_command(names, configs=configs, seed=seed, updates=updates)
        rows, exit_code = [_row_of(" ".join(names), outcome, allow)], outcome.exit_code
    else:
        jobs = _jobs(names or [*TWINS, *IN_PLACE], driver, dtypes)
        rows = _run_with_progress(jobs, seed, configs, updates, allow, console)
    _tell(rows, console, f"seed {seed}, {time.monotonic() - started:.0f} s")
    if stored is not None:
        _write_json(stored, rows, dtypes, seed)
    return exit_code or int(any(row.violations or row.problem for row in rows))


def _row_of(name: str, outcome: Outcome, allowed: list[str]) -> Row:
    """Describe what became of a program."""
    seen = outcome.seen
    row = Row(name, seen.kernels, set(), 1, seen.n_launches, seen.n_accesses)
    row.violations = [violation for violation in seen.violations if violation.kind not in allowed]
    row.configurations = seen.configurations
    if not row.n_launches:
        row.problem = (
            "no Triton kernel was launched in this process, so nothing was checked (likely cause: "
            "tests that were skipped, or processes of its own, such as pytest -n starts)"
        )
    elif outcome.exit_code:
        row.problem = f"the program ended with exit code {outcome.exit_code}: see above"
    return row


def _tell(rows: list[Row], console: Console, how: str) -> None:
    """Print the table, each finding, and what was left out."""
    console.print(_table(rows))
    violations = [violation for row in rows for violation in row.violations]
    for violation in violations:
        text = f"{violation}\n    in {violation.case}\n"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    _tell_unreached(rows, console)
    for row in rows:
        for kernel, (run, n) in row.configurations.items():
            if run < n:
                text = f"{kernel}: {run} of {n} configurations were run (--configs {n} runs all)"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
    for row in rows:
        if row.problem:
            text = f"{shown_path(row.name)}: {row.problem}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    n, n_problems = len(violations), sum(bool(row.problem) for row in rows)
    verdict = f"{n} finding{'s' if n > 1 else ''}" if n else "nothing found"
    if n_problems:
        verdict += ", but not all was checked"
    console.print(
        f"{sum(row.n_accesses for row in rows):,} accesses of "
        f"{sum(row.n_launches for row in rows):,} launches, {how}: [bold]{verdict}[/bold]",
        highlight=False,
    )


def _jobs(
    names: list[str], driver: str | None, dtypes: list[str]
) -> list[tuple[str, Iterable[Target]]]:
    """Name each row, with the targets that it runs."""
    jobs: list[tuple[str, Iterable[Target]]] = []
    for name in names:
        path, _, kernel = name.partition("::")
        if is_own(name):
            find_twin(name)
            jobs.append((name, targets(name, dtypes)))
        elif path.endswith(".py") or kernel:
            module = load(path)
            for function in find_drivers(module, path, kernel, driver):
                jobs.append((f"{path}::{kernel or function}", [DriverTarget(module, function)]))
        elif name in TWINS or name in IN_PLACE:
            jobs.append((name, targets(name, dtypes)))
        else:
            known = ", ".join([*TWINS, *IN_PLACE])
            refuse("operation", f"one of {known}, or path/to/file.py::kernel", repr(name))
    return jobs


def _run_with_progress(
    jobs: list[tuple[str, Iterable[Target]]],
    seed: int,
    configs: int,
    updates: Sequence[str],
    allow: list[str],
    console: Console,
) -> list[Row]:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    rows = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(jobs))
        for name, job in jobs:
            row = Row(name)
            for target in job:
                progress.update(task, description=f"{name}, case {row.n_cases + 1}")
                report = sanitize(target, seed, configs, updates)
                row.add(target, report, allow)
                row.problem = row.problem or report.problem
            kernel = name.partition("::")[2]
            if not row.problem and not row.n_launches:
                row.problem = "no kernel was launched, so nothing was checked"
            elif not row.problem and _names_a_kernel(kernel) and kernel not in row.kernels:
                row.problem = f"{kernel} was not launched, but {', '.join(sorted(row.kernels))}"
            progress.advance(task)
            rows.append(row)
    return rows


def _names_a_kernel(name: str) -> bool:
    return bool(name) and not name.startswith(PREFIX)


def _table(rows: list[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("target", overflow="fold")
    for heading in ("cases", "kernels", "launches", "accesses"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        n = len(row.violations)
        verdict = "[green]ok[/green]"
        if n or row.problem:
            verdict = f"[bold red]{f'{n} found' if n else 'not checked'}[/bold red]"
        numbers = (row.n_cases, len(row.kernels), row.n_launches, row.n_accesses)
        table.add_row(shown_path(row.name), *(f"{number:,}" for number in numbers), verdict)
    return table


def _tell_unreached(rows: list[Row], console: Console) -> None:
    """Name the kernels and configurations of a twin about which nothing was learnt."""
    for row in rows:
        if not row.violations and (left := _unreached(row)):
            names = ", ".join(f"{kernel} #{i}" for kernel, i in left)
            console.print(f"{row.name}: no case launched {names}", highlight=False)


def _unreached(row: Row) -> list[tuple[str, int]]:
    """List the kernels of a twin that no case launched, each with its configuration."""
    if not row.reached:  # of no twin
        return []
    return [v for v in variants(find_twin(row.name)) if v not in row.reached]


def _write_json(path: Path, rows: list[Row], dtypes: list[str], seed: int) -> None:
    found = [
        {
            "name": row.name,
            "cases": row.n_cases,
            "kernels": sorted(row.kernels),
            "configurations": len(row.reached),
            "unreached": _unreached(row),
            "launches": row.n_launches,
            "accesses": row.n_accesses,
            "problem": row.problem,
            "findings": [dataclasses.asdict(violation) for violation in row.violations],
        }
        for row in rows
    ]
    passed = not any(row.violations or row.problem for row in rows)
    head = {"seed": seed, "dtypes": dtypes, "tiles": architecture(), "passed": passed}
    write_rows(path, made_with() | head, found)
