"""`gptwin barriers` as a person sees it: what was played, findings, mutants, JSON."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ... import __version__
from ...core.checks import refuse
from ..pretend.frames import shown_path
from ..pretend.gpu import pretend_gpu
from ..sanitize.drivers import load
from ..sanitize.program import execute, is_command
from ..store import expect_writable, made_with, write_rows
from .harmless import why_harmless
from .machine.turns import Schedule
from .mutants import Launch, Verdict, mutants
from .own import OWN
from .play import Played, playing


def barriers(
    names: list[str],
    *,
    with_mutants: bool = False,
    schedules: list[str],
    strict: bool | None = None,
    json_file: str | None = None,
) -> int:
    """Play Gluon kernels, or break their barriers, and print what was found.

    Parameters
    ----------
    names : list of str
        The project's kernels, or "file.py::function" that launches; empty for all of the project's.
        Or a program's command line: "python" or "pytest", and its arguments.
    with_mutants : bool
        Whether to break every barrier operation in turn.
    schedules : list of str
        "behind", "ahead" or seeds; empty for the first.
    strict : bool or None
        Whether a fence must stand where Triton's compiler would add it, too; None: in the
        project's own alone.
    json_file : str, optional
        Where to store the rows.

    Returns
    -------
    int
        0 if kernels were launched and nothing was found, or every mutant was; else 1.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    """
    stored = None if json_file is None else expect_writable("json", json_file)
    for schedule in schedules:
        Schedule(schedule)
    if is_command(names) and with_mutants:
        refuse("mutants", "the project's kernels or file.py::function", " ".join(names))
    console = Console(emoji=False)  # else "file.py:100:" has an emoji in it
    console.print(
        f"gptwin {__version__}: Gluon's barriers, played by a model of Hopper on this CPU",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    launches = {} if is_command(names) else {name: _launch_of(name) for name in names or OWN}
    rows: list[dict[str, Any]] = []
    failed = False
    if with_mutants:
        for name, launch in launches.items():
            verdicts = _judged(name, launch, name in OWN if strict is None else strict, console)
            rows += [{"kernel": name, **vars(v), "why_harmless": _why(v)} for v in verdicts]
            failed |= any(not v.found and not _why(v) for v in verdicts)
    else:
        for schedule in schedules or ["behind"]:
            if is_command(names):
                played, code = _run(names, schedule, bool(strict))
                rows.append(_row(" ".join(names), schedule, played, console))
                failed |= bool(code or played.findings or not played.kernels)
            for name, launch in launches.items():
                with (
                    pretend_gpu(),
                    playing(schedule, name in OWN if strict is None else strict) as p,
                ):
                    launch()
                rows.append(_row(name, schedule, p, console))
                failed |= bool(p.findings or not p.kernels)
    if stored is not None:
        write_rows(stored, made_with(), rows)
    return int(failed)


def _launch_of(name: str) -> Launch:
    """Find what launches."""
    if name in OWN:
        return OWN[name]
    file, _, function = name.partition("::")
    if not function or not file.endswith(".py"):
        refuse("kernel", f"file.py::function, or one of {', '.join(OWN)}", repr(name))
    driver = getattr(load(file), function, None)
    if not callable(driver):
        refuse("kernel", f"a function of {file} without parameters", repr(function))
    return lambda: _tensors(driver)


def _tensors(driver: Callable[[], Any]) -> list[torch.Tensor]:
    """Launch on the same random numbers, and give what was returned; nothing, if nothing was."""
    torch.manual_seed(0)
    with pretend_gpu():
        returned = driver()
    results = returned if isinstance(returned, (tuple, list)) else [returned]
    return [result for result in results if isinstance(result, torch.Tensor)]


def _run(command: list[str], schedule: str, strict: bool) -> tuple[Played, int]:
    with pretend_gpu(), playing(schedule, strict) as played:
        code = execute(command)
    return played, code


# --- what a person reads --------------------------------------------------------------------------


def _row(name: str, schedule: str, played: Played, console: Console) -> dict[str, Any]:
    launches = Counter(played.kernels)
    kernels = ", ".join(f"{kernel} ×{n}" if n > 1 else kernel for kernel, n in launches.items())
    said = f"{played.n_programs} programs, {played.n_events:,} events, order {schedule}"
    console.print(
        f"\n{name}: {kernels or 'no Gluon kernel was launched'} ({said})", highlight=False
    )
    for finding in played.findings:
        file, _, rest = str(finding).partition(":")
        console.print(f"{shown_path(file)}:{rest}", markup=False, highlight=False, soft_wrap=True)
    if not played.findings and played.kernels:
        console.print("nothing found", highlight=False)
    return {
        "played": name, "schedule": schedule, "kernels": dict(launches),
        "programs": played.n_programs, "events": played.n_events,
        "findings": [vars(finding) for finding in played.findings],
    }  # fmt: skip


def _judged(name: str, launch: Launch, strict: bool, console: Console) -> list[Verdict]:
    """Judge all mutants of one launch, and print the table and what was not found."""
    started = time.monotonic()
    with pretend_gpu():
        verdicts = [*track(mutants(launch, strict), name, console=console, transient=True)]
    table = Table("what", "how", "mutants", "found", "harmless", "not found", box=SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    groups = Counter((v.what.partition(" ")[0], v.kind) for v in verdicts)
    for (what, kind), n in groups.items():
        alike = [v for v in verdicts if (v.what.partition(" ")[0], v.kind) == (what, kind)]
        found = sum(bool(v.found) for v in alike)
        harmless = sum(not v.found and bool(_why(v)) for v in alike)
        table.add_row(what, kind, str(n), str(found), str(harmless), str(n - found - harmless))
    found = sum(bool(v.found) for v in verdicts)
    console.print(
        f"\n{name}: {found} of {len(verdicts)} mutants found, {time.monotonic() - started:.0f} s",
        highlight=False,
    )
    console.print(table)
    for verdict in verdicts:
        if not verdict.found:
            why = _why(verdict)
            said = f"harmless: {why}" if why else "not found"
            text = f"{verdict.at}: {verdict.what}, {verdict.kind}: {said}\n    {verdict.text}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    return verdicts


def _why(verdict: Verdict) -> str:
    return "" if verdict.found else why_harmless(verdict)
