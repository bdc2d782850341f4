"""The judge of mutants: the checks of `verify`, run on each mutant in a forked process.

A fresh interpreter would take seconds to import PyTorch and Triton. Here one process imports them,
runs a twin's cases once on the unchanged kernels, keeping each case's arguments, truth and the
lines of the kernels that it executes, and forks for every mutant. The child puts the mutated code
in the place of the function's own, runs the cases that execute the mutated statement, the cheapest
first, and ends at the first one that fails.
"""

import contextlib
import dataclasses
import faulthandler
import json
import os
import resource
import selectors
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ...kernels.common.launch import INTERPRETED
from ..processes import end_with_parent
from ..sanitize.guard import Guard
from ..twins.find import is_own
from ..twins.twin import Case, Twin
from ..verify.check import Checked, Prepared, check_prepared, prepare, run_eager
from ..verify.nonfinite import check_nonfinite, nonfinite_cases
from ..verify.verify import fixed_cases, n_configurations
from . import compiled
from .install import KERNELS, ROOT, files_of, install, lines_of
from .mutants import Mutant

RUN_KERNELS = {KERNELS / "interpreter", KERNELS / "native"}
# A mutant may take this many times as long as the kernel did, and some seconds, of processor time.
PATIENCE, GRACE_SECONDS = 10.0, 5.0
EXTRA_MEMORY = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class Trial:
    """A case that judges: all that can be known of it before a mutant runs.

    Attributes
    ----------
    case, dtype
        What is run, with its "configuration".
    prepared : Prepared or None
        Its arguments and truth; None of a case that is not finite, which makes its own.
    eager : dict of torch.Tensor
        The yardstick's results.
    seconds : float
        What the unchanged kernels took, watched.
    lines : dict
        File name to the lines of the kernels that were executed.
    """

    case: Case
    dtype: str
    prepared: Prepared | None
    eager: dict[str, torch.Tensor]
    seconds: float
    lines: dict[str, set[int]]

    @property
    def name(self) -> str:
        """The case as it is stored."""
        return f"{self.dtype} {json.dumps(self.case)}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the judge says of one mutant.

    Attributes
    ----------
    killed : bool
        Whether some check failed.
    why : str
        How it was noticed; of a survivor, how many cases it passed.
    case : str
        The case that killed it, dtype first; empty for a survivor.
    seconds : float
        Of the child.
    """

    killed: bool
    why: str
    case: str
    seconds: float


def make_trials(
    twin: Twin, examples: int, seed_of_cases: int, on_case: Callable[[], None] = lambda: None
) -> list[Trial]:
    """Run a twin's cases on the unchanged kernels.

    Parameters
    ----------
    twin : Twin
        The operation.
    examples : int
        Random cases, besides the fixed ones.
    seed_of_cases : int
        Of the random cases.
    on_case : callable
        Called after each.

    Returns
    -------
    list of Trial
        The cheapest first, NaN and infinity, which the interpreter runs without a guard, last. Of
        configurations that differ in what the interpreter does not see
        (`num_warps`) only one is kept.

    Raises
    ------
    RuntimeError
        If a case fails as it is: nothing could be concluded from one that fails on a mutant.
    """
    torch.set_num_threads(1)  # no pool of threads may exist when we fork
    trials = []
    for dtype in twin.dtypes:
        seen: dict[str, set[Any]] = {}
        kernels_of: dict[str, set[str]] = {}
        for case in cases_of(twin, dtype, examples, seed_of_cases):
            plain = json.dumps({k: v for k, v in case.items() if k != "configuration"})
            index = case["configuration"]
            if plain in kernels_of:
                tiles = _tiles(twin, kernels_of[plain], index)
                if tiles in seen[plain]:
                    continue
            trial, checked = _try(twin, case, dtype)
            on_case()
            if not checked.passed:
                raise RuntimeError(
                    f"mutate: expected {twin.name} to pass its own checks, but "
                    f"{trial.name} fails: {_reason(checked)} (likely cause: a change to be "
                    f"verified first: gptwin verify {twin.name})"
                )
            kernels_of[plain] = {name for name, _ in checked.reached}
            seen.setdefault(plain, set()).add(_tiles(twin, kernels_of[plain], index))
            trials.append(trial)
    return sorted(trials, key=lambda trial: (trial.prepared is None, trial.seconds))


def cases_of(twin: Twin, dtype: str, examples: int, seed_of_cases: int) -> list[Case]:
    """List the cases that judge in one dtype.

    Parameters
    ----------
    twin, examples, seed_of_cases
        As in `make_trials`.
    dtype : str
        The first of the twin's gets all, with NaN and infinity, too; the others, where only
        rounding differs, the fixed cases in one configuration. `verify` runs more.

    Returns
    -------
    list of Case
        With their configuration.
    """
    fixed = list(fixed_cases(twin))
    if dtype == twin.dtypes[0]:
        nonfinite = [case | {"configuration": 0} for case in nonfinite_cases(twin)]
        return [*fixed, *nonfinite, *random_cases(twin, examples, seed_of_cases)]
    return [case for case in fixed if case["configuration"] == 0]


def random_cases(twin: Twin, examples: int, seed_of_cases: int) -> list[Case]:
    """Draw cases as `verify` does.

    Parameters
    ----------
    twin, examples, seed_of_cases
        As in `make_trials`.

    Returns
    -------
    list of Case
        With their configuration.
    """
    drawn: list[Case] = []

    @seed(seed_of_cases)
    @settings(
        max_examples=max(1, examples),
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        database=None,
        deadline=None,
    )
    @given(twin.cases, st.integers(0, n_configurations(twin) - 1))
    def draw(case: Case, configuration: int) -> None:
        drawn.append(case | {"configuration": configuration})

    draw()
    return drawn[:examples]


def _tiles(twin: Twin, names: set[str], index: int) -> frozenset[tuple[str, str]]:
    """Say which tile sizes a configuration gives to these kernels."""
    tiles = set()
    for name in names:
        configurations = getattr(twin.kernels().get(name), "configs", None)
        own = configurations[index % len(configurations)].kwargs if configurations else {}
        tiles.add((name, json.dumps(own, sort_keys=True)))
    return frozenset(tiles)


def _check(twin: Twin, case: Case, dtype: str, prepared: Prepared | None, eager: dict) -> Checked:
    if prepared is None:
        # Following memory sends eager PyTorch, which runs here too, other ways through NaN.
        with contextlib.nullcontext() if INTERPRETED else compiled.guarded():
            return check_nonfinite(twin, case, dtype, "cpu")
    with Guard().watching() if INTERPRETED else compiled.guarded():
        return check_prepared(twin, case, dtype, "cpu", prepared, eager)


def _try(twin: Twin, case: Case, dtype: str) -> tuple[Trial, Checked]:
    prepared = None if "nonfinite" in case else prepare(twin, case, dtype, "cpu", None)
    eager = {} if prepared is None else run_eager(twin, prepared)
    started = time.process_time()
    with _watching_lines(twin) as lines, compiled.compiled_lines(lines):
        checked = _check(twin, case, dtype, prepared, eager)
    seconds = time.process_time() - started
    return Trial(case, dtype, prepared, eager, seconds, lines), checked


@contextlib.contextmanager
def _watching_lines(twin: Twin) -> Iterator[dict[str, set[int]]]:
    """Collect the lines of kernels/, or of a user's own files, that are executed meanwhile."""
    lines: dict[str, set[int]] = {}
    names = {str(p) for p in KERNELS.rglob("*.py") if RUN_KERNELS.isdisjoint(p.parents)}
    if is_own(twin.name):
        names = {str(file) for file in files_of(twin)}

    def on_call(frame: types.FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in names:
            return None
        own = lines.setdefault(name, set())

        def on_line(frame: types.FrameType, event: str, argument: Any) -> Any:
            own.add(frame.f_lineno)
            return on_line

        return on_line

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield lines
    finally:
        sys.settrace(before)


def relevant(mutant: Mutant, trials: list[Trial]) -> list[Trial]:
    """Choose the trials that execute a mutant's statement.

    Parameters
    ----------
    mutant : Mutant
        The fault.
    trials : list of Trial
        All of a twin's.

    Returns
    -------
    list of Trial
        In the same order.
    """
    name, lines = str(ROOT / mutant.file), range(mutant.lines[0], mutant.lines[1] + 1)
    if mutant.in_kernel and not INTERPRETED:
        lines = lines_of(mutant)
    chosen = [t for t in trials if not t.lines.get(name, set()).isdisjoint(lines)]
    # Of a function that computes constants alone nothing is left that has a line.
    return chosen or (trials if mutant.in_kernel and not INTERPRETED else [])


# --- the child ------------------------------------------------------------------------------------


def _be_child(twin: Twin, mutant: Mutant, trials: list[Trial], answer: int, scratch: str) -> None:
    """Judge one mutant and write the verdict; never returns."""
    faulthandler.disable()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for timer in (signal.SIGPROF, signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
        signal.signal(timer, signal.SIG_DFL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + EXTRA_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def say(killed: bool, why: str, case: str) -> None:
        os.write(answer, json.dumps({"killed": killed, "why": why, "case": case}).encode())

    try:
        if not INTERPRETED:
            compiled.write_to(scratch)
        install(mutant)
        for number, trial in enumerate(trials):
            # We name the trial first: a crash or the clock may end this process.
            os.write(answer, f"{number}\n".encode())
            patience = GRACE_SECONDS + PATIENCE * trial.seconds
            signal.setitimer(signal.ITIMER_PROF, patience)
            signal.setitimer(signal.ITIMER_REAL, 20 * patience)  # the child may wait for ever
            checked = _check(twin, trial.case, trial.dtype, trial.prepared, trial.eager)
            if not checked.passed:
                say(True, _reason(checked), trial.name)
                return
        say(False, f"passed {len(trials)} cases", "")
    except BaseException as error:  # comparing may raise, too, such as MemoryError
        say(True, f"{type(error).__name__} outside the kernel", "")


def _reason(checked: Checked) -> str:
    if checked.error:
        lines = checked.error.splitlines()
        # A compiler says first where it is, and last what.
        told = lines[0] if len(lines) == 1 or "Compilation" not in lines[0] else lines[-1]
        return told[:200]
    return f"{', '.join(c.name for c in checked.wrong)} beyond the budget"


# --- the parent -----------------------------------------------------------------------------------


@dataclasses.dataclass
class _Child:
    pid: int
    mutant: Mutant
    trials: list[Trial]
    started: float
    said: bytes = b""


def judge(
    twin: Twin, mutants: list[Mutant], trials: list[Trial], processes: int
) -> Iterator[tuple[Mutant, Verdict]]:
    """Judge mutants side by side.

    Parameters
    ----------
    twin : Twin
        Whose checks are run.
    mutants : list of Mutant
        The faults.
    trials : list of Trial
        From `make_trials`.
    processes : int
        How many children at a time.

    Yields
    ------
    (Mutant, Verdict)
        As they are done.
    """
    waiting = list(reversed(mutants))
    running: dict[int, _Child] = {}
    selector = selectors.DefaultSelector()
    scratch = tempfile.TemporaryDirectory(prefix="gptwin-mutants-")
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                mutant = waiting.pop()
                chosen = relevant(mutant, trials)
                if not chosen:
                    yield mutant, Verdict(False, "no case executes it", "", 0.0)
                    continue
                end, child = _fork(twin, mutant, chosen, scratch.name)
                running[end] = child
                selector.register(end, selectors.EVENT_READ)
            for key, _ in selector.select(timeout=1.0) if running else ():
                child = running[key.fd]
                said = os.read(key.fd, 65536)
                child.said += said
                if not said:  # the child has ended already
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    del running[key.fd]
                    yield child.mutant, _verdict(child)
    finally:  # for instance Ctrl-C
        for end, child in running.items():
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            os.close(end)
        selector.close()
        scratch.cleanup()


def _fork(twin: Twin, mutant: Mutant, trials: list[Trial], scratch: str) -> tuple[int, _Child]:
    end, answer = os.pipe()
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            end_with_parent(parent)
            os.close(end)
            _be_child(twin, mutant, trials, answer, scratch)
        finally:
            os._exit(0)
    os.close(answer)
    return end, _Child(pid, mutant, trials, time.monotonic())


def _verdict(child: _Child) -> Verdict:
    _, status = os.waitpid(child.pid, 0)
    seconds = time.monotonic() - child.started
    *begun, last = child.said.decode().split("\n")
    if last:
        return Verdict(**json.loads(last), seconds=seconds)
    case = child.trials[int(begun[-1])].name if begun else ""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in (signal.SIGPROF, signal.SIGALRM):
        return Verdict(True, "out of time: an endless loop, perhaps", case, seconds)
    crash = signal.Signals(number).name if number else f"exit status {status}"
    return Verdict(True, f"crashed: {crash}", case, seconds)
