"""Runs the parts one by one, each in a process of its own, and stores what they find at once.

A run is bounded (`budget_s`) and can be cut off anywhere: what is stored for this commit and device
is not measured again, so the next run goes on where this one ended. Before the timing several
processes at a time run everything once without a clock: compilers take most of a run, and their
results are cached on disk.
"""

import contextlib
import dataclasses
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from ... import records
from ...core.checks import expect_positive, refuse
from ...lab.twins.catalogue import TWINS
from ...lab.twins.find import find_twin, is_own
from .. import result_file
from ..timing import Finding
from .operations import results
from .operations.cells import default_dtypes, failures
from .operations.providers import providers as providers_of
from .operations.providers import switches
from .operations.results import (
    CALIBRATION,
    HOPPER,
    INVARIANCE,
    OURS,
    READY,
    VERIFY,
)
from .operations.roofline import peaks_of
from .shown.summary import print_summary
from .supervise import CUT_OFF, Outcome, supervise

ROOFLINE, OPERATIONS = "roofline", "operations"
# Parts without a roofline or a truth beside them.
CHECKS = (READY, VERIFY, INVARIANCE, HOPPER, CALIBRATION)
ASKED_FOR = (*TWINS, OPERATIONS, *results.END_TO_END, VERIFY)
# The operations of README's goals come first, since the time may not suffice for all.
ORDER = (
    "attention", "softmax", "layer_norm", "cross_entropy", "qkv_attention", "ppo_loss",
    "reward_loss", "gae", "adamw", "linear", "gelu",
)  # fmt: skip
LEAST_S = 15.0  # no part begins with less time left
READY_S = 20.0  # times WHOLE: until a first kernel has run, in silence
RESTARTS = 40
WHOLE = 3  # times as long for a whole model, or for all of an operation's verification
AHEAD = 0.45  # at most this share of the time left goes to compiling ahead
STORING = threading.Lock()
DRY_RUN = Path("build", "dry-run.jsonl")  # here
DONE, FAILED, OUT_OF_TIME = 0, 1, 3


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run was asked for.

    Attributes
    ----------
    path : Path
        The result file.
    dry_run : bool
    only : tuple of str
        Providers; empty for all.
    limit_s : float
        How long a provider may take at one size.
    deadline : float
        By time.monotonic().
    workers : int
        Processes that compile ahead; 0: none.
    device : str
        Its name.
    sizes : tuple of str
        Names of sizes; empty for all.
    quick : bool
        Verify by corners and real sizes, with one random case; see verification.py. And do not
        measure the roofline anew.
    stopped : threading.Event
        Set where the run is given up: its processes are ended.
    """

    path: Path
    dry_run: bool
    only: tuple[str, ...]
    limit_s: float
    deadline: float
    workers: int
    device: str
    sizes: tuple[str, ...] = ()
    quick: bool = False
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes."""
        variables = dict(os.environ)
        for name in ("GPTWIN_BACKEND", "TRITON_INTERPRET"):
            variables.pop(name, None)
        variables |= switches(self.only)
        if self.dry_run:
            variables |= {"TRITON_INTERPRET": "1", "GPTWIN_BACKEND": "triton"}
        return variables


def bench(
    what: list[str],
    *,
    dtypes: list[str],
    providers: list[str],
    dry_run: bool = False,
    out: str | None = None,
    again: bool = False,
    limit_s: float = 90.0,
    budget_s: float = 520.0,
    workers: int | None = None,
    summary: bool = True,
) -> int:
    """Measure what is not stored yet, and print the figures.

    Parameters
    ----------
    what : list of str
        Operations, or "operations" for all of them; "training", "generation", "ppo", "verify".
        Empty for all but the last.
    dtypes : list of str
        Empty for each operation's own.
    providers : list of str
        Empty for all.
    dry_run : bool
        Every path, with tiny sizes, on a CPU; the figures mean nothing.
    out : str, optional
        The result file; by default one for the device in benchmarks/results/, and for a dry run
        `DRY_RUN`.
    again : bool
        Measure also what is stored.
    limit_s : float
        How long a provider may take at one size, compilation included.
    budget_s : float
        When the run ends; another one goes on.
    workers : int, optional
        Processes that compile ahead, side by side; 0: none.
    summary : bool
        Whether to print the figures.

    Returns
    -------
    int
        0; 1 if a figure of gptwin itself is missing or a verification failed; 3 if the time is up
        and parts are left.

    Raises
    ------
    ValueError
        If an argument makes no sense, or there is no GPU.
    """
    expect_positive("limit", limit_s)
    expect_positive("budget", budget_s)
    parts = parts_of(what, dtypes)
    expect_known(providers, parts)
    device = device_name(dry_run)
    path = results_path(out, device, dry_run)
    run = a_run(
        path, device, dry_run=dry_run, limit_s=limit_s, budget_s=budget_s, workers=workers,
        only=tuple(providers),
    )  # fmt: skip
    console = Console(highlight=False)
    todo = [part for part in parts if again or not is_complete(run, part)]
    if todo and not dry_run:
        expect_ready(run)
    for part in todo:
        begin(run, part, again)
    unfinished = measure(run, todo, console)
    stored = result_file.load(path)
    if summary:
        print_summary({part: stored[part] for part in parts if part in stored}, console)
    console.print(f"stored in {path}", soft_wrap=True)
    if unfinished:
        console.print(f"the time is up, run it again for: {', '.join(unfinished)}", soft_wrap=True)
        return OUT_OF_TIME
    return FAILED if any(bad(stored[part]) for part in parts) else DONE


def a_run(
    path: Path,
    device: str,
    *,
    dry_run: bool,
    limit_s: float,
    budget_s: float = math.inf,
    workers: int | None = None,
    only: tuple[str, ...] = (),
) -> Run:
    """Begin a run; see `bench` for what is asked for."""
    if workers is None:
        workers = 0 if dry_run else max(1, min(6, records.available_cores() // 2))
    return Run(path, dry_run, only, limit_s, time.monotonic() + budget_s, workers, device)


def parts_of(what: list[str], dtypes: list[str]) -> list[str]:
    """Return the names of the parts, those that matter most first."""
    for name in what:
        if name not in ASKED_FOR and not is_own(name):
            known = f"one of {', '.join(ASKED_FOR)}, or package.module:NAME of a twin of your own"
            refuse("operation", known, repr(name))
    every = not what or OPERATIONS in what
    operations = [name for name in (*ORDER, *TWINS) if every or name in what]
    operations += filter(is_own, what)
    parts = []
    for name in dict.fromkeys(operations):
        twin = find_twin(name, try_it=False)
        for dtype in dtypes or default_dtypes(twin):
            if dtype in twin.dtypes:
                parts.append(f"{name}/{dtype}")
    parts += [name for name in results.END_TO_END if not what or name in what]
    if VERIFY in what:
        parts += [f"{VERIFY}/{name}" for name in TWINS]
    if not parts:
        refuse("dtype", "one that an operation takes", ", ".join(dtypes))
    return parts


def expect_known(providers: list[str], parts: list[str]) -> None:
    """Refuse a provider that none of the parts has: nothing would be measured."""
    known: list[str] = []
    for part in parts:
        operation = part.partition("/")[0]
        if operation in TWINS or is_own(operation):
            known += [provider.name for provider in providers_of(operation)]
        elif operation in results.END_TO_END:
            known += results.END_TO_END_PROVIDERS
    for name in providers:
        if name not in known:
            refuse("provider", f"one of {', '.join(dict.fromkeys(known))}", repr(name))


def device_name(dry_run: bool) -> str:
    """Return the GPU's name."""
    if dry_run:
        return "none: a dry run"
    import torch

    if not torch.cuda.is_available():
        refuse(
            "operation",
            "a GPU to measure it on",
            "none",
            "no driver, or PyTorch without CUDA; `gptwin bench cpu` measures what a CPU can, and "
            "`gptwin bench gpu --dry-run` tries every path",
        )
    return torch.cuda.get_device_name()


def expect_ready(run: Run) -> None:
    """Refuse to begin where nothing would run; see operations/ready.py.

    Raises
    ------
    RuntimeError
        Naming what is not as it should be.
    """
    wrong: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        found = event.get("finding", {})
        if found.get("status") == "failed":
            wrong.append(f"{found['name']}: {found['reason']}")

    outcome = process(dataclasses.replace(run, limit_s=READY_S), READY, None, {}, on_event, False)
    if not outcome.ended:
        wrong.append(f"a kernel: {outcome.reason}")
    if wrong:
        raise RuntimeError(f"bench gpu: expected a machine that can run it, got {'; '.join(wrong)}")


def results_path(out: str | None, device: str, dry_run: bool) -> Path:
    """Say where results are stored; a dry run's never among real ones."""
    if out is None and dry_run:
        DRY_RUN.parent.mkdir(exist_ok=True)
        return DRY_RUN
    name = "-".join("".join(c if c.isalnum() else " " for c in device.lower()).split())
    path = result_file.results_path(out, name)
    if dry_run and result_file.RESULTS in path.resolve().parents:
        refuse("out", "another directory for a dry run", str(path), "its figures mean nothing")
    return path


# --- what is stored ------------------------------------------------------------------------------


def is_current(run: Run, part: result_file.Part | None) -> bool:
    """Say whether a stored part is of this commit, device and kind of run."""
    if part is None:
        return False
    here, settings = part["environment"], part["settings"]
    kind = (here.get("commit"), here.get("device"), settings.get("dry_run"))
    return kind == (records.commit(), run.device, run.dry_run)


def is_complete(run: Run, name: str) -> bool:
    """Say whether nothing is left to measure."""
    part = result_file.load(run.path).get(name)
    if part is None or part["status"] not in ("measured", "skipped") or not is_current(run, part):
        return False
    if name.startswith((*CHECKS, ROOFLINE)):
        return True
    wider = part["settings"]["only"], part["settings"].get("sizes", [])
    return all(
        had in ([], list(asked)) for had, asked in zip(wider, (run.only, run.sizes), strict=True)
    )


def begin(run: Run, name: str, again: bool) -> None:
    """Mark a part as not complete; what it has is kept if it is current."""
    part = result_file.load(run.path).get(name)
    kept = part["findings"] if part and is_current(run, part) and not again else []
    settings = {
        "dry_run": run.dry_run, "only": list(run.only), "sizes": list(run.sizes),
        "limit_s": run.limit_s,
    }  # fmt: skip
    result_file.save(run.path, name, {
        "status": "running", "reason": "the time was up", "settings": settings,
        "environment": result_file.gpu_environment(run.device), "findings": kept,
    })  # fmt: skip


def bad(part: result_file.Part) -> bool:
    """Say whether a part lacks what it should have."""
    return part["status"] in ("failed", "cut off") or bool(failures(part["findings"]))


# --- measuring -----------------------------------------------------------------------------------


def measure(run: Run, todo: list[str], console: Console) -> list[str]:
    """Measure parts; return those that are not complete."""
    verifications = [part for part in todo if part.startswith(CHECKS)]
    timed = [part for part in todo if part not in verifications]
    side_by_side = min(2, records.available_cores()) if run.dry_run else max(1, run.workers)
    with ThreadPoolExecutor(side_by_side) as pool, _ended_with(run):
        list(pool.map(lambda part: one_part(run, part, None, console), verifications))
        if timed and run.workers:
            start = time.monotonic()
            ahead = dataclasses.replace(run, deadline=start + AHEAD * run.left_s)
            jobs = [job for part in timed for job in compilations(run, part)]
            list(pool.map(lambda job: compile_ahead(ahead, *job), jobs))
            console.print(f"compiled ahead, {time.monotonic() - start:.0f} s")
    if timed:
        if not (run.quick and is_complete(run, ROOFLINE)):
            begin(run, ROOFLINE, again=True)
            one_part(run, ROOFLINE, None, console)
        found = result_file.load(run.path)[ROOFLINE]["findings"]
        peaks = peaks_of(found, run.device) if found else None
        for part in timed:
            one_part(run, part, peaks, console)
    stored = result_file.load(run.path)
    return [part for part in todo if stored[part]["status"] == "running"]


@contextlib.contextmanager
def _ended_with(run: Run) -> Iterator[None]:
    """End the processes of other threads if this one is interrupted: they would be waited for."""
    try:
        yield
    except BaseException:
        run.stopped.set()
        raise


def one_part(run: Run, name: str, peaks: Mapping[str, Any] | None, console: Console) -> None:
    """Measure one part, as far as the time goes, and store it."""
    if run.stopped.is_set() or (run.left_s < LEAST_S and not run.dry_run):
        return
    start = time.monotonic()
    part = result_file.load(run.path)[name]
    part["settings"]["peaks"] = peaks
    found = {finding["name"]: finding for finding in part["findings"]}
    saved = [start]

    def save(*, now: bool) -> None:
        part["findings"] = list(found.values())
        if now or time.monotonic() - saved[0] > 1:
            saved[0] = time.monotonic()
            with STORING:
                result_file.save(run.path, name, part)

    def on_event(event: dict[str, Any]) -> None:
        if "finding" in event:
            found[event["finding"]["name"]] = event["finding"]
            save(now=False)
        for key in ("status", "reason"):
            if key in event:
                part[key] = event[key]

    part |= {"status": "running", "reason": "the time was up"}
    status, reason = follow(run, name, peaks, found, on_event)
    if part["status"] == "running":
        part |= {"status": status, "reason": reason}
    save(now=True)
    counts = count(part["findings"])
    console.print(f"{name}: {part['status']}, {counts}, {time.monotonic() - start:.0f} s")


def follow(
    run: Run,
    name: str,
    peaks: Mapping[str, Any] | None,
    found: dict[str, Finding],
    on_event: Callable[[dict[str, Any]], None],
    compile_only: bool = False,
) -> tuple[str, str | None]:
    """Run a part's processes until one ends by itself; return the part's status and reason.

    One that dies or hangs leaves failed cells behind, and the next goes on with the others.
    """
    for _ in range(RESTARTS):
        before = len(found)
        outcome = process(run, name, peaks, found, on_event, compile_only)
        if outcome.ended:
            return "measured", None
        if outcome.out_of_time:
            return "running", "the time was up"
        if not outcome.at_stake and len(found) > before:
            continue  # it died of what it had found: a kernel that leaves the device broken
        if not outcome.at_stake:
            return "failed", outcome.reason
        reason = outcome.reason
        if len({cell.rpartition(" | ")[2] for cell in outcome.at_stake}) > 1:  # all wait for it
            reason = f"no truth: {reason.replace(CUT_OFF, 'ended')}"
        for cell in outcome.at_stake:
            on_event({"finding": failed_cell(cell, reason)})
    return "failed", f"{RESTARTS} processes died"


def process(
    run: Run,
    name: str,
    peaks: Mapping[str, Any] | None,
    found: Mapping[str, Finding],
    on_event: Callable[[dict[str, Any]], None],
    compile_only: bool,
) -> Outcome:
    """Run one process of a part."""
    job = {
        "part": name, "dry_run": run.dry_run, "compile_only": compile_only,
        "only": list(run.only), "done": list(found), "given_up": given_up(found), "peaks": peaks,
        "sizes": list(run.sizes), "quick": run.quick,
    }  # fmt: skip
    environment = run.environment
    if compile_only:
        environment["TORCHINDUCTOR_COMPILE_THREADS"] = "4"  # for each process of several
    whole = name.partition("/")[0] in (*results.END_TO_END, *CHECKS)
    limit = run.limit_s * (WHOLE if whole else 1)
    return supervise(
        job, on_event, environment=environment, limit_s=limit, deadline=run.deadline,
        stopped=run.stopped,
    )  # fmt: skip


def given_up(found: Mapping[str, Finding]) -> list[str]:
    """Name the peers that hung at a size: each further one would cost as much time again.

    Torch.compile unrolls a loop over tokens, say, and does not come back.
    """
    hung = [f for f in found.values() if f["status"] == "failed" and CUT_OFF in f["reason"]]
    return sorted({f["provider"] for f in hung if f.get("provider") not in ("", None, OURS)})


def compilations(run: Run, name: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return what can be compiled side by side: a part, and one of its providers if it has them."""
    operation = name.partition("/")[0]
    if operation not in TWINS and not is_own(operation):
        return [(name, run.only)]
    compiling = [p.name for p in providers_of(operation) if p.compiles]
    return [(name, (who,)) for who in compiling if not run.only or who in run.only]


def compile_ahead(run: Run, name: str, only: tuple[str, ...]) -> None:
    """Fill the compilers' caches; what fails will fail again where it is told, but what hangs."""
    if run.stopped.is_set() or run.left_s < LEAST_S:
        return
    part = result_file.load(run.path)[name]
    found = {finding["name"]: finding for finding in part["findings"]}

    def on_event(event: dict[str, Any]) -> None:
        if "finding" in event:
            found[event["finding"]["name"]] = event["finding"]

    follow(dataclasses.replace(run, only=only), name, None, found, on_event, compile_only=True)
    hung = [f for f in found.values() if f["reason"] and CUT_OFF in f["reason"]]
    if hung:  # it is not waited for again
        with STORING:  # side by side with others
            part = result_file.load(run.path)[name]
            known = {finding["name"] for finding in part["findings"]}
            part["findings"] += [finding for finding in hung if finding["name"] not in known]
            result_file.save(run.path, name, part)


def failed_cell(name: str, reason: str) -> Finding:
    """Make the finding of a cell whose process died."""
    return results.not_measured(name, "failed", reason, **results.parts_of_name(name))


def count(findings: list[Finding]) -> str:
    """Count findings by their status."""
    statuses = [found["status"] for found in findings]
    return ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses)) or "nothing"
