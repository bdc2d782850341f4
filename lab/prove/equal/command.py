"""`gptwin prove --equal` as a person sees it: progress, table, what differs, what is open."""

import json
import os
import time
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .... import __version__
from ....core.checks import refuse
from ....kernels.common._triton import triton
from ...sanitize.drivers import is_file
from ...verify.console import brief
from .cases import Outcome
from .proofs import Proof, prove_twins
from .refactoring import prove_refactoring

# Lines of a list that are shown; the file has all.
SHOWN = 6


def run(names: list[str], *, seeds: int) -> tuple[int, list[dict[str, Any]]]:
    """Prove of each target that it is one function with its reference, and print what was found.

    Parameters
    ----------
    names : list of str
        Twins of the catalogue, a user's own as package.module:NAME, or file.py::kernel; each there.
    seeds : int
        How many fields each equality is tried in.

    Returns
    -------
    int, list of dict
        The exit code, and the rows to store.

    Raises
    ------
    ValueError
        If a target has no reference to be equal to.
    """
    console = Console(emoji=False)
    console.print(
        f"gptwin {__version__}: each kernel and its reference as functions of real numbers, from "
        f"Triton {triton.__version__}'s IR, in {seeds} field{'s' * (seeds > 1)} of about 2^31",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    started = time.monotonic()
    files = [name for name in names if is_file(name)]
    twins = [name for name in names if not is_file(name)]
    if len(files) not in (0, 2):
        refuse(
            "--equal",
            "two kernels of files, the one before and the one after, or twins",
            ", ".join(files),
            "a kernel alone has nothing to be equal to: declare a twin, or ask for --safe",
        )
    proofs = [prove_refactoring(files[0], files[1], seeds)] if files else []
    if twins:
        proofs += _with_progress(twins, seeds, console)
    console.print(_table(proofs))
    crossed = set().union(*(proof.loops_crossed for proof in proofs))
    for proof in proofs:
        _explain(proof, crossed, console)
    n_failed = sum(not proof.proved for proof in proofs)
    verdict = f"{n_failed} of {len(proofs)} not proved" if n_failed else "all proved equal"
    n_cases = sum(len(proof.outcomes) for proof in proofs)
    console.print(
        f"{n_cases} runs, {time.monotonic() - started:.0f} s: [bold]{verdict}[/bold] on the "
        "branches taken; rounding, overflow, dtypes and other shapes are not looked at",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    return int(n_failed > 0), [proof.as_row() for proof in proofs]


def _with_progress(names: list[str], seeds: int, console: Console) -> list[Proof]:
    columns = TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("runs", total=None)
        processes = min(2, len(os.sched_getaffinity(0)))
        proofs = prove_twins(
            names, seeds, processes,
            lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip
    return list(proofs.values())


def _table(proofs: list[Proof]) -> Table:
    caption = "chance: that an element which differs agrees in every field, as 2 to a power"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("twin", overflow="fold", min_width=17)  # no shorter than our own names
    for heading in ("runs", "elements", "variants", "degree", "chance", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for proof in proofs:
        row = proof.as_row()
        verdict = "[green]proved[/green]"
        if not proof.proved:
            differs = any(o.differences for o in proof.outcomes)
            verdict = f"[bold red]{'DIFFERS' if differs else 'not followed'}[/bold red]"
        table.add_row(
            proof.name, str(row["cases"]), f"{row['elements']:,}", row["kernels"],
            f"{proof.degree:.0f}", f"2^{proof.bound:.0f}", f"{row['seconds']:.1f}", verdict,
        )  # fmt: skip
    return table


def _explain(proof: Proof, crossed: set[str], console: Console) -> None:
    """Print what differs, and what is not said; loops that another twin crossed are."""
    lines: list[str] = []
    for outcome in proof.failures[:3]:
        lines += _failure(outcome)
    if proof.failures:
        lines.append(f"{len(proof.failures)} of {len(proof.outcomes)} runs are not proved")
    if proof.unreached:
        lines.append(f"no case launched {', '.join(proof.unreached)}")
    if one_way := proof.one_way(steered=True):
        shown = [f"{line} {op} always {'yes' if way else 'no'}" for line, op, way in one_way]
        lines.append("decided one way only: " + _some(shown))
    if loops := [line for line in proof.loops_not_crossed if line not in crossed]:
        lines.append("loops that never ran twice: " + _some(loops))
    if proof.opaque:
        lines.append("opaque constants: " + _some([f"{v:.9g}" for v in sorted(proof.opaque)]))
    if lines:
        console.print(f"[bold]{proof.name}[/bold]", highlight=False)
    for line in lines:
        console.print("  " + line, markup=False, highlight=False, soft_wrap=True)


def _failure(outcome: Outcome) -> list[str]:
    how = f", shadows {outcome.steer}" if outcome.steer else ""
    lines = [f"{brief(outcome.case)} (seed {outcome.seed}{how}): {json.dumps(outcome.case)}"]
    if outcome.error:
        lines.append("  " + outcome.error)
    return lines + [f"  {one}" for one in outcome.differences]


def _some(items: list[str]) -> str:
    more = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
