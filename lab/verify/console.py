"""`gptwin verify` as a person sees it: progress bar, table, explanation of a disagreement, JSON."""

import contextlib
import dataclasses
import json
import math
import platform
import time
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ... import __version__
from ...core.checks import refuse
from ...kernels.common._triton import UNAVAILABLE, triton
from ...kernels.common.launch import INTERPRETED
from ...kernels.hopper import serving
from ...kernels.hopper.answers import Answers, expect_here
from ..device import kernel_device
from ..store import expect_writable, made_with, write_rows
from ..twins.catalogue import TWINS
from ..twins.find import expect_twins, find_twin, is_own
from ..twins.real_text import read_text
from ..twins.twin import DTYPES, Case
from .check import Checked, case_inputs
from .regressions import FILE, expect_place
from .sample import Sample, Sampled
from .verify import (
    DEFAULT_EXAMPLES,
    THOROUGH_EXAMPLES,
    Job,
    Row,
    count_cases,
    default_processes,
    remember_row,
    reproduce_command,
    unreached,
    variants,
    verify_rows,
)

# What a layout is (lab/twins/draw.py), for whoever has to find out why it fails.
LYING = {
    "transposed": "the last two axes swapped: the last stride is not 1",
    "every_other": "a gap after every element: the last stride is 2",
    "row_pitch": "a gap after every row",
}


def verify(
    operations: list[str],
    *,
    dtypes: list[str],
    examples: int | None = None,
    seed: int = 0,
    thorough: bool = False,
    text: str | None = None,
    case: str | None = None,
    json_file: str | None = None,
    remember: bool = False,
) -> int:
    """Verify twins and print what was found.

    Parameters
    ----------
    operations : list of str
        Twins to verify; empty for all.
    dtypes : list of str
        Empty for all that each twin takes.
    examples : int, optional
        Random cases per row.
    seed : int
        Of the random cases.
    thorough : bool
        Run many more random cases.
    text : str, optional
        File whose bytes make the real activations.
    case : str, optional
        JSON of the only case to run.
    json_file : str, optional
        Where to store the findings.
    remember : bool
        Keep the smallest failing case of each row in tests/regressions.json (regressions.py).

    Returns
    -------
    int
        0 if everything agreed, else 1; also if `GPTWIN_HOPPER=1` asked for kernels that no case
        ran.

    Raises
    ------
    ValueError
        If an argument makes no sense, or kernels for Hopper are asked for and cannot run here.
    RuntimeError
        If Triton is missing.
    """
    if UNAVAILABLE is not None:
        raise RuntimeError(
            f"verify: expected Triton to be installed, but importing it failed: {UNAVAILABLE} "
            f"(likely cause: Triton ships for Linux alone; this is {platform.system()})"
        )
    expect_here()
    only_case = read_case(case, operations, dtypes)
    if examples is None:
        examples = THOROUGH_EXAMPLES if thorough else DEFAULT_EXAMPLES
    if examples < 1:
        refuse("examples", "at least 1", str(examples))
    read_text(text)  # refuse a bad file now, not in a worker
    if remember:
        expect_place()
        for name in filter(is_own, operations):
            refuse("remember", "operations of gptwin's own", repr(name))
    stored = None if json_file is None else expect_writable("json", json_file)
    jobs = _jobs(operations, dtypes, examples, seed, text, only_case)

    device = kernel_device()
    console = Console()
    whose = "its reference" if any(map(is_own, operations)) else "its NumPy reference"
    console.print(
        f"gptwin {__version__}: each kernel against {whose}, forward and backward, on "
        f"{device_name(device)}",
        highlight=False,
        soft_wrap=True,
    )
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        beside = None
        if device == "cpu" and not INTERPRETED:
            beside = stack.enter_context(Sample(jobs))
        rows = _run_with_progress(jobs, device, console)
        sampled = beside.compare(rows) if beside else None
    order = {(job.operation, job.dtype): i for i, job in enumerate(jobs)}
    rows.sort(key=lambda row: order[row.job.operation, row.job.dtype])
    console.print(_table(rows))
    for row in rows:
        _explain(row, console)
        if row.failure is not None and not is_own(row.job.operation):
            kept = "--remember keeps this case, to be replayed first"
            if remember:
                new = remember_row(row, "gptwin verify")
                kept = f"{'kept' if new else 'known already'}, to be replayed first: {FILE}"
            console.print("  " + kept, markup=False, highlight=False, soft_wrap=True)
    missing = unreached(rows)
    for name, kernels in missing.items():
        console.print(f"[bold red]{name}[/bold red]: no case launched {', '.join(kernels)}")
    if sampled is not None:
        _show_sample(sampled, console)
    on_hopper = _on_hopper(rows) if serving.asked_for() else None
    unproved = on_hopper.missing(whole=only_case is None) if on_hopper else ""
    if on_hopper:
        said = f"[bold red]{unproved}[/bold red]" if unproved else str(on_hopper)
        console.print(said, highlight=False, soft_wrap=True)
    n_failed = sum(not row.passed for row in rows)
    verdict = f"{n_failed} of {len(rows)} rows disagree" if n_failed else "all agree"
    verdict += ", but nothing was proved for Hopper" if unproved else ""
    launched = {(row.job.operation, *variant) for row in rows for variant in row.reached}
    console.print(
        f"{sum(row.n_cases for row in rows)} cases, {len(launched)} kernel variants, seed {seed}, "
        f"{time.monotonic() - started:.0f} s: [bold]{verdict}[/bold]",
        highlight=False,
    )
    passed = not (n_failed or missing or unproved or (sampled and sampled.faults))
    if stored is not None:
        head = {"device": device_name(device), "seed": seed, "passed": passed}
        if on_hopper:
            head["on_hopper"] = {**vars(on_hopper), "unproved": unproved}
        write_rows(stored, made_with() | head, [_row_as_json(row) for row in rows])
    return 0 if passed else 1


def read_case(case: str | None, operations: list[str], dtypes: list[str]) -> Case | None:
    """Read a case that was typed.

    Parameters
    ----------
    case : str or None
        JSON.
    operations, dtypes : list of str
        One each, if there is a case.

    Returns
    -------
    Case or None

    Raises
    ------
    ValueError
        If it is no case of the operation.
    """
    if case is None:
        return None
    if len(operations) != 1 or len(dtypes) != 1:
        refuse("case", "exactly one operation and one --dtype beside it",
               f"{len(operations)} operations and {len(dtypes)} dtypes")  # fmt: skip
    try:
        parsed = json.loads(case)
    except json.JSONDecodeError as error:
        refuse("case", "a JSON object", f"{case!r}: {error}", "quotes lost to the shell")
    if not isinstance(parsed, dict):
        refuse("case", "a JSON object", repr(parsed))
    twin = find_twin(operations[0])
    try:
        case_inputs(twin, parsed, None)
    except (KeyError, TypeError, ValueError) as error:
        example = json.dumps(twin.corners[0])
        refuse("case", f"one of {twin.name}, such as {example}", f"{case} ({error!r})")
    return parsed


def _jobs(
    operations: list[str],
    dtypes: list[str],
    examples: int,
    seed: int,
    text: str | None,
    case: Case | None,
) -> list[Job]:
    expect_twins(operations)
    for dtype in dtypes:
        if dtype not in DTYPES:
            refuse("dtype", f"one of {', '.join(DTYPES)}", repr(dtype))
    return [
        Job(name, dtype, examples, seed, text, case)
        for name in operations or TWINS
        for dtype in find_twin(name).dtypes
        if not dtypes or dtype in dtypes
    ]


def device_name(device: str) -> str:
    """Say in words where kernels run.

    Parameters
    ----------
    device : str
        "cpu" or "cuda".

    Returns
    -------
    str
    """
    if device == "cuda":
        return torch.cuda.get_device_name()
    if INTERPRETED:
        return f"the CPU, through Triton {triton.__version__}'s interpreter"
    return f"the CPU, compiled for it from Triton {triton.__version__}'s IR"


def _run_with_progress(jobs: list[Job], device: str, console: Console) -> list[Row]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    rows = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("cases", total=sum(count_cases(job) for job in jobs))
        processes = default_processes(device)
        for row in verify_rows(jobs, device, lambda: progress.advance(task), processes):
            rows.append(row)
    return rows


def _table(rows: list[Row]) -> Table:
    caption = (
        "worst error: the share of its budget that the worst element uses up; #n: configuration"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    for heading in ("twin", "dtype"):
        table.add_column(heading, no_wrap=True)
    for heading in ("cases", "variants", "worst error"):
        table.add_column(heading, justify="right")
    table.add_column("where it occurred", overflow="fold")
    table.add_column("")
    for row in rows:
        worst = row.worst.worst if row.worst else None
        where = f"{worst.name} {brief(row.worst.case)}" if worst and row.worst else "-"
        table.add_row(
            row.job.operation,
            row.job.dtype,
            str(row.n_cases),
            f"{len(row.reached)}/{_n_variants(row)}",
            percent(worst.share) if worst else "-",
            where,
            "[green]ok[/green]" if row.passed else "[bold red]FAIL[/bold red]",
        )
    return table


def _n_variants(row: Row) -> int:
    """Count kernels and configurations; random cases may reach some that no corner does."""
    return len(row.reached.union(variants(find_twin(row.job.operation))))


def percent(share: float) -> str:
    """Write a share of a budget; one far beyond it as a multiple."""
    return f"{share:.0%}" if share < 10 else f"{share:.3g} x"


def brief(case: Case) -> str:
    """Write a case in a few words: sizes and what is special about it. The JSON has all of it."""
    configuration = f"#{case.get('configuration', 0)}"
    if case.get("source") == "text":
        return f"real text {configuration}"
    words = []
    for name, value in case.items():
        if name in ("seed", "layout", "d_layout", "configuration") or value in (False, None):
            continue
        if isinstance(value, dict) and isinstance(value.get("normal"), list):
            value = value["normal"]
        plain = "x".join(map(str, value)) if isinstance(value, list) else value
        words.append(name if value is True else f"{name}={plain}")
    return " ".join([*words, configuration])


def _show_sample(sampled: Sampled, console: Console) -> None:
    """Say what the interpreter found beside compiled kernels."""
    for fault in sampled.faults:
        console.print(f"[bold red]{fault}[/bold red]", highlight=False, soft_wrap=True)
    if sampled.n_cases:
        console.print(
            f"The interpreter ran {sampled.n_cases} of these cases as well; {sampled.n_exact} of "
            "them leave no rounding open, and had to agree bit for bit.",
            highlight=False,
            soft_wrap=True,
        )


def _on_hopper(rows: list[Row]) -> Answers:
    """Count over all rows which cases ran attention's kernels for Hopper."""
    total = Answers()
    for row in rows:
        total.add(row.on_hopper)
    return total


def _explain(row: Row, console: Console) -> None:
    """Print what a person needs to find the fault."""
    if row.failure is None:
        return
    console.print(f"[bold red]{row.job.operation} {row.job.dtype}[/bold red]")
    for line in (*explain(row), f"reproduce: {reproduce_command(row)}"):
        console.print("  " + line, markup=False, highlight=False, soft_wrap=True)


def explain(row: Row) -> list[str]:
    """Say in lines what a row's smallest failing case is, and what is wrong in it.

    Parameters
    ----------
    row : Row
        One that failed.

    Returns
    -------
    list of str
    """
    failure = row.failure
    assert failure is not None
    lines = [f"smallest failing case: {json.dumps(failure.case)}"]
    lying = LYING.get(failure.case.get("layout", "contiguous"))
    if lying:
        lines.append(f"its tensors lie in memory with {lying}")
    if failure.error:
        lines.append(failure.error)
    for wrong in failure.wrong:
        if not wrong.index and math.isnan(wrong.expected) and math.isnan(wrong.actual):
            lines.append(f"{wrong.name}: its shape is not the reference's")
            continue
        lines.append(
            f"{wrong.name}: {wrong.n_wrong} of {wrong.n_elements} elements beyond their budget, "
            f"the first at {list(wrong.index)}: expected {wrong.expected:.9g}, "
            f"got {wrong.actual:.9g}, allowed error {wrong.allowed:.3g}"
        )
        if row.tile is not None and wrong is failure.wrong[0]:
            lines.append(f"  written by {row.tile}")
    return lines


def _row_as_json(row: Row) -> dict[str, Any]:
    return {
        "operation": row.job.operation,
        "dtype": row.job.dtype,
        "passed": row.passed,
        "cases": row.n_cases,
        "variants_reached": len(row.reached),
        "variants": _n_variants(row),
        "worst": row.worst and _checked_as_json(row.worst),
        "failure": row.failure and _checked_as_json(row.failure),
        "tile": row.tile and dataclasses.asdict(row.tile),
        "reproduce": reproduce_command(row) if row.failure else None,
    }


def _checked_as_json(checked: Checked) -> dict[str, Any]:
    """Write what a check showed; infinities and NaN as strings, since JSON has none."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value

    return {
        "case": checked.case,
        "error": checked.error,
        "comparisons": [
            {name: plain(value) for name, value in dataclasses.asdict(comparison).items()}
            for comparison in checked.comparisons
        ],
    }
