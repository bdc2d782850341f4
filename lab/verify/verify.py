"""Verify: prove on this machine that each kernel agrees with its reference.

One row of the table is one twin in one dtype. A row runs what failed once (regressions.py), then
the twin's corner cases and the decoder block's real activations with every autotune configuration,
then tiny ones with NaN and infinity (nonfinite.py), then random cases by Hypothesis, which shrinks
a disagreement to the smallest case that still shows it. A kernel or configuration that no case
reached in any dtype is a failure too: nothing was proved about it.
"""

import contextlib
import dataclasses
import gc
import json
import multiprocessing
import os
import queue
import random
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ...kernels import native
from ...kernels.common.launch import INTERPRETED
from ...kernels.hopper.answers import Answers, heard
from ..processes import Workers
from ..twins.attention.hopper import cases_for_hopper
from ..twins.find import find_twin
from ..twins.twin import Case, Twin
from .blame import Tile, find_tile
from .check import TEXT_CASE, Checked, check
from .nonfinite import IN_EAGER, check_nonfinite, nonfinite_cases
from .regressions import Failure, failures, remember

DEFAULT_EXAMPLES, THOROUGH_EXAMPLES = 25, 400
# Seconds after which a disagreement is no longer made smaller.
SHRINK_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Job:
    """One row to verify, as it travels to a worker process.

    Attributes
    ----------
    operation, dtype : str
        The row.
    examples : int
        Random cases.
    seed : int
        Of the random cases.
    text : str or None
        File for the real activations.
    case : Case or None
        Run this case alone.
    """

    operation: str
    dtype: str
    examples: int
    seed: int
    text: str | None
    case: Case | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """What one row of the table says.

    Attributes
    ----------
    job : Job
        What was asked.
    n_cases : int
        Checks run, shrinking not counted.
    reached : frozenset of (str, int)
        Kernels that ran, each with its configuration's index.
    worst : Checked or None
        The check with the largest share of its budget.
    failure : Checked or None
        The smallest disagreement.
    tile : Tile or None
        Which tile wrote the first wrong element of the first wrong result.
    sampled : Checked or None
        The case that the interpreter runs beside a compiled kernel (sample.py).
    on_hopper : Answers
        Which cases ran attention's kernels for Hopper.
    """

    job: Job
    n_cases: int
    reached: frozenset[tuple[str, int]]
    worst: Checked | None
    failure: Checked | None
    tile: Tile | None
    sampled: Checked | None = None
    on_hopper: Answers = dataclasses.field(default_factory=Answers)

    @property
    def passed(self) -> bool:
        """Whether every case agreed."""
        return self.failure is None


class _Disagreement(AssertionError):
    """Tells Hypothesis that a case fails."""


def variants(twin: Twin) -> list[tuple[str, int]]:
    """List what must be proved about a twin: each kernel with each of its configurations.

    Parameters
    ----------
    twin : Twin

    Returns
    -------
    list of (str, int)
        Kernel name and configuration index.
    """
    return [
        (name, index)
        for name, kernel in twin.kernels().items()
        for index in range(len(getattr(kernel, "configs", [None])[: twin.most_configurations]))
    ]


def n_configurations(twin: Twin) -> int:
    """Count the longest list of configurations that a twin's kernels have.

    Parameters
    ----------
    twin : Twin

    Returns
    -------
    int
    """
    return 1 + max((index for _, index in variants(twin)), default=0)


def fixed_cases(twin: Twin) -> Iterator[Case]:
    """Yield the cases that every run contains: corners and real text, in every configuration.

    Parameters
    ----------
    twin : Twin

    Yields
    ------
    Case
    """
    text = () if "real" in twin.undeclared else (TEXT_CASE,)
    for case in (*twin.corners, *text):
        for index in range(n_configurations(twin)):
            yield case | {"configuration": index}
    for case in cases_for_hopper(twin):  # of one configuration each
        yield case | {"configuration": 0}


def sampled_case(job: Job) -> Case:
    """Choose the case of a row that runs in both.

    Parameters
    ----------
    job : Job

    Returns
    -------
    Case
        The job's only one, or one of its fixed cases.
    """
    if job.case is not None:
        return job.case
    chance = random.Random(f"{job.operation} {job.dtype} {job.seed}")
    return chance.choice(list(fixed_cases(find_twin(job.operation))))


def remembered_cases(job: Job) -> list[Case]:
    """List what a row runs first: the cases that failed once in its dtype.

    Parameters
    ----------
    job : Job

    Returns
    -------
    list of Case
    """
    known = failures(job.operation)
    return [{"configuration": 0} | f.case for f in known if f.dtype == job.dtype]


def _nonfinite_cases(job: Job) -> list[Case]:
    """List a row's cases of NaN and infinity: all in the twin's first dtype, some in the others."""
    twin = find_twin(job.operation)
    cases = list(nonfinite_cases(twin))
    return cases if job.dtype == twin.dtypes[0] else cases[::4]


def remember_row(row: Row, found_by: str) -> bool:
    """Keep a row's smallest disagreement, to be replayed first from now on.

    Parameters
    ----------
    row : Row
        One that failed.
    found_by : str
        For the note.

    Returns
    -------
    bool
        Whether it is new.
    """
    assert row.failure is not None
    note = f"{time.strftime('%Y-%m-%d')}: {found_by}"
    return remember(row.job.operation, Failure(row.job.dtype, row.failure.case, note))


class _RowRunner:
    """Runs the cases of one row and remembers what they showed."""

    def __init__(self, job: Job, device: str, on_case: Callable[[], None]) -> None:
        self.job, self.device, self.on_case = job, device, on_case
        self.twin = find_twin(job.operation)
        self.n_cases = 0
        self.reached: set[tuple[str, int]] = set()
        self.on_hopper = Answers()
        self.worst: Checked | None = None
        self.failures: dict[str, Checked] = {}
        self.first_failure_at: float | None = None

    def check(self, case: Case) -> Checked:
        with heard() as said:
            if "nonfinite" in case:
                checked = check_nonfinite(self.twin, case, self.job.dtype, self.device)
            else:
                checked = check(self.twin, case, self.job.dtype, self.device, self.job.text)
        self.on_hopper.add_case(said, (kernel for kernel, _ in checked.reached))
        self.n_cases += 1
        self.reached |= checked.reached
        # What is compared coarsely uses up no budget.
        if "nonfinite" not in case and checked.share > (self.worst.share if self.worst else -1):
            self.worst = checked
        if not checked.passed:
            self.failures[json.dumps(case)] = checked
            self.first_failure_at = self.first_failure_at or time.monotonic()
        self.on_case()
        return checked

    def random(self, examples: int) -> None:
        """Let Hypothesis draw cases, and shrink the first that fails."""

        @seed(self.job.seed)
        @settings(
            max_examples=examples,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            database=None,
            deadline=None,
            print_blob=False,
        )
        @given(self.twin.cases, st.integers(0, n_configurations(self.twin) - 1))
        def agrees(case: Case, configuration: int) -> None:
            case = case | {"configuration": configuration}
            known = json.dumps(case) in self.failures
            started = self.first_failure_at
            small_enough = started is not None and time.monotonic() - started > SHRINK_SECONDS
            # Only one line raises, since Hypothesis tells failures apart by their line.
            if known or (not small_enough and not self.check(case).passed):
                raise _Disagreement

        with contextlib.suppress(_Disagreement):
            agrees()

    def smallest_failure(self) -> Checked | None:
        def size(checked: Checked) -> tuple[int, int]:
            worst = checked.worst
            return (worst.n_elements if worst else 0, len(json.dumps(checked.case)))

        return min(self.failures.values(), key=size, default=None)


def verify_row(job: Job, device: str, on_case: Callable[[], None]) -> Row:
    """Run one row.

    Parameters
    ----------
    job : Job
        What to run.
    device : str
        "cpu" (compiled for it or interpreted) or "cuda".
    on_case : callable
        Called after each case.

    Returns
    -------
    Row
    """
    runner = _RowRunner(job, device, on_case)
    compiled_for_cpu = device == "cpu" and not INTERPRETED
    beside = sampled_case(job) if compiled_for_cpu else None
    sampled = None
    # Nearly every case launches kernels of its own: compiling well would take longer than it saves.
    with native.quick_code() if compiled_for_cpu else contextlib.nullcontext():
        if job.case is not None:
            sampled = runner.check(job.case)
        else:
            for case in (*remembered_cases(job), *fixed_cases(runner.twin), *_nonfinite_cases(job)):
                checked = runner.check(case)
                sampled = checked if case == beside else sampled
            runner.random(job.examples)
    failure = runner.smallest_failure()
    tile = None
    if failure is not None and failure.wrong and not failure.wrong[0].name.endswith(IN_EAGER):
        wrong = failure.wrong[0]
        tile = find_tile(job.operation, failure.case, job.dtype, wrong.name, wrong.index, job.text)
    reached = frozenset(runner.reached)
    return Row(job, runner.n_cases, reached, runner.worst, failure, tile, sampled, runner.on_hopper)


def unreached(rows: list[Row]) -> dict[str, list[str]]:
    """Find kernels and configurations that no row of their twin launched.

    A twin counts once it was verified whole: every dtype, no single case, nothing failed (a kernel
    that raised reached nothing, and the exception is the news then).

    Parameters
    ----------
    rows : list of Row
        The finished rows.

    Returns
    -------
    dict
        Twin name to what was not reached, as "kernel #configuration"; empty if all were.
    """
    missing = {}
    for name in dict.fromkeys(row.job.operation for row in rows):
        twin = find_twin(name)
        own = [row for row in rows if row.job.operation == name]
        whole = {row.job.dtype for row in own} >= set(twin.dtypes)
        if not whole or any(row.job.case is not None or not row.passed for row in own):
            continue
        reached = frozenset().union(*(row.reached for row in own))
        left = [f"{kernel} #{i}" for kernel, i in variants(twin) if (kernel, i) not in reached]
        if left:
            missing[name] = left
    return missing


def verify_rows(
    jobs: list[Job], device: str, on_case: Callable[[], None], processes: int
) -> Iterator[Row]:
    """Run rows side by side in worker processes.

    Parameters
    ----------
    jobs : list of Job
        The rows.
    device : str
        "cpu" or "cuda".
    on_case : callable
        Called in this process after each case of any row.
    processes : int
        How many workers; 1 runs here.

    Yields
    ------
    Row
        As they finish.
    """
    if processes == 1 or len(jobs) == 1:
        gc.freeze()
        for job in jobs:
            yield verify_row(job, device, on_case)
        return
    ticks = multiprocessing.get_context("spawn").Queue()
    with Workers(min(processes, len(jobs)), _start_worker, (ticks,)) as pool:
        pending = {pool.submit(_work, job, device) for job in jobs}
        while pending:
            done = {future for future in pending if future.done()}
            for _ in range(_drain(ticks)):
                on_case()
            for future in done:
                yield future.result()
            pending -= done


def _drain(ticks: Any) -> int:
    """Wait briefly for ticks and count them."""
    count = 0
    try:
        ticks.get(timeout=0.1)
        count += 1
        while True:
            ticks.get_nowait()
            count += 1
    except queue.Empty:
        return count


_ticks: Any = None


def _start_worker(ticks: Any) -> None:
    global _ticks
    _ticks = ticks
    torch.set_num_threads(1)  # the workers share the cores
    gc.freeze()  # what was imported stays; to look through it takes a tenth of a compilation


def _work(job: Job, device: str) -> Row:
    return verify_row(job, device, lambda: _ticks.put(1))


def count_cases(job: Job) -> int:
    """Tell how many checks a row will run, for the progress bar.

    Parameters
    ----------
    job : Job

    Returns
    -------
    int
    """
    if job.case is not None:
        return 1
    fixed = sum(1 for _ in fixed_cases(find_twin(job.operation)))
    return len(remembered_cases(job)) + fixed + len(_nonfinite_cases(job)) + job.examples


def reproduce_command(row: Row) -> str:
    """Give the command that shows a row's disagreement again.

    Parameters
    ----------
    row : Row
        One that failed.

    Returns
    -------
    str
        To be typed as it stands.
    """
    assert row.failure is not None
    case = shlex.quote(json.dumps(row.failure.case))
    text = f" --text {shlex.quote(row.job.text)}" if row.job.text else ""
    return f"gptwin verify {row.job.operation} --dtype {row.job.dtype}{text} --case {case}"


def default_processes(device: str) -> int:
    """Choose how many worker processes verify uses.

    Parameters
    ----------
    device : str
        "cpu" or "cuda".

    Returns
    -------
    int
        One per core this process may use; at most 4 share a GPU.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return min(cores, 4) if device == "cuda" else cores
