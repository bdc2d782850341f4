"""`gptwin bench trl`: a PPO iteration on the CPU, TRL's and ours, and its matrix products alone.

All in one process, in turns: TRL's iteration, ours with a value network of its own as TRL has it,
ours with the value as a second head on the policy, and the products of the first of ours, bare.
Peak memory is asked of a process that runs one of them and nothing else. What runs of the pipeline
is handed in by the command line, since benchmarks do not import it.
"""

import dataclasses
import functools
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...core.checks import expect_positive
from ...core.model.presets import GPTConfig
from ...lab.processes import Workers
from ...records import available_cores
from .. import result_file
from ..cpu.driver import print_table
from ..messages import show_messages
from ..models import Settings
from ..timing import LONGER, Claim, Finding, describe, judge, spread
from . import agreement, trl
from .agreement import Repeat
from .bare_products import Recording, replay
from .trl import Shape

# What makes one of our iterations: `ppo_like` of rl/studies/workloads.py.
Make = Callable[..., Any]

TRL, BARE = "TRL", "the same products alone"
# Settings of `ppo_like`.
OURS: dict[str, dict[str, Any]] = {
    "gptwin": {"shared_trunk": False},
    "gptwin, shared trunk": {"shared_trunk": True},
}
CLAIMS = (
    Claim("gptwin", TRL, 1.8),
    Claim("gptwin", BARE, 1.4, LONGER),
    Claim("gptwin, shared trunk", TRL, 3.0),
)


def shape_of(quick: bool) -> Shape:
    """Return the iteration that is measured: 16 episodes of 32 + 96 tokens, 4 passes."""
    if quick:
        return Shape(GPTConfig(61, 32, 1, 2, 16), 4, 5, 6, 2)
    return Shape(GPTConfig(1024, 256, 4, 4, 256))


def agreeing(quick: bool) -> Shape:
    """Return the iteration that both must do alike before one is timed: the models', but fewer."""
    shape = shape_of(quick)
    return shape if quick else dataclasses.replace(shape, batch=8, n_response=24)


def bench(
    make: Make,
    repeat: Repeat,
    *,
    quick: bool = False,
    threads: int | None = None,
    rounds: int = 15,
    out: str | None = None,
    verbose: bool = False,
) -> int:
    """Measure, store and print. What fails is printed alone: the last measurement stays stored.

    Parameters
    ----------
    make : callable
        `rl.workloads.ppo_like`.
    repeat : callable
        `rl.workloads.ppo_repeated`.
    quick : bool
        Tiny models, to try every path; the figures mean nothing.
    threads : int, optional
        All cores if left out.
    rounds : int
        Iterations of each that count; one more before them does not.
    out : str, optional
        Result file; by default ppo-cpu.jsonl in benchmarks/results.
    verbose : bool
        Show what the libraries print also if nothing fails.

    Returns
    -------
    int
        0; 1 if something failed.

    Raises
    ------
    ValueError
        If `threads` is not above 0, or `out` is no place for a result file.
    """
    threads = available_cores() if threads is None else threads
    expect_positive("threads", threads)
    path = result_file.results_path(out, "ppo-cpu-quick" if quick else "ppo-cpu")
    result_file.load(path)  # refuses another kind of file before anything is measured
    settings = Settings(quick, threads)
    part: result_file.Part = {
        "status": "measured", "reason": None, "environment": result_file.environment(threads),
        "settings": dataclasses.asdict(settings), "findings": [],
    }  # fmt: skip
    messages: list[str] = []
    alone = functools.partial(_alone, messages)
    try:
        alike = {name: how for name, how in OURS.items() if not how["shared_trunk"]}  # as TRL
        agreed = alone(agreement.agreement, agreeing(quick), repeat, alike)
        part["findings"] = alone(_times, make, quick, threads, 3 if quick else rounds)
        measured = (TRL, *OURS)
        memory = {name: alone(_peak, make, quick, threads, name) for name in measured}
        for found in part["findings"]:
            found["settings"] |= {"peak_bytes": memory, "agreement": agreed}
    except Exception as error:  # TRL may not be installed, or refuse to run
        part |= {"status": "failed", "reason": describe(error)}
    console = Console()
    if verbose or part["status"] != "measured":
        show_messages("".join(messages), console)
    print_table({"ppo": part}, console)
    _print_phases(part, console)
    if part["status"] != "measured":
        console.print("nothing is stored", soft_wrap=True)
        return 1
    result_file.save(path, "ppo", part)
    console.print(f"stored in {path}", soft_wrap=True)
    return 0


def _alone(messages: list[str], function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, and append what was printed there to `messages`."""
    with tempfile.NamedTemporaryFile("r", errors="replace") as printed:
        try:
            with Workers(1, _print_into, (printed.name,)) as pool:
                return pool.submit(function, *arguments).result()
        finally:
            messages.append(printed.read())


def _print_into(file: str) -> None:
    """Send what this process prints, its C libraries included, into a file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())


class _Turn:
    """Seconds of one who takes turns, and of its phases, iteration by iteration."""

    def __init__(self) -> None:
        self.phases: list[dict[str, float]] = [{}]
        self.phase, self.began = "", 0.0

    def mark(self, phase: str) -> None:
        """End a phase and begin another; none begins if it is empty."""
        now = time.perf_counter()
        if self.phase:
            here = self.phases[-1]
            here[self.phase] = here.get(self.phase, 0.0) + now - self.began
        self.phase, self.began = phase, now

    def end(self) -> None:
        """End the iteration."""
        self.mark("")
        self.phases.append({})

    def seconds(self) -> list[float]:
        """Return the whole iterations' seconds, but the first's."""
        return [sum(phases.values()) for phases in self.phases[1:] if phases]

    def medians(self) -> dict[str, Any]:
        """Return each phase's spread over the same iterations."""
        counted = [phases for phases in self.phases[1:] if phases]
        return {name: spread([phases.get(name, 0.0) for phases in counted]) for name in counted[0]}


def _workload(make: Make, shape: Shape, name: str) -> Any:
    return make(
        shape.config, batch=shape.batch, n_prompt=shape.n_prompt, n_response=shape.n_response,
        epochs=shape.epochs, minibatches=shape.minibatches, **OURS[name],
    )  # fmt: skip


def _times(make: Make, quick: bool, threads: int, rounds: int) -> list[Finding]:
    """Take turns."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = shape_of(quick)
    ours = {name: _workload(make, shape, name) for name in OURS}
    turns = {name: _Turn() for name in (TRL, *ours, BARE)}
    recording = Recording()
    with recording:
        ours["gptwin"].run(lambda phase: None)
    bare = replay(recording.products)

    def others() -> None:
        turns[TRL].end()
        for name, workload in ours.items():
            workload.run(turns[name].mark)
            turns[name].end()
        turns[BARE].mark("products")
        bare()
        turns[BARE].end()

    trl.train(shape, rounds + 1, turns[TRL].mark, others)
    seconds = {name: turn.seconds() for name, turn in turns.items()}
    about = dataclasses.asdict(shape) | {
        "phases": {name: turn.medians() for name, turn in turns.items()},
        "product_flops": recording.flops,
        "products": len(recording.products),
    }
    return [judge(claim, seconds, dict(about)) for claim in CLAIMS]


def _peak(make: Make, quick: bool, threads: int, name: str) -> int:
    """Return the bytes by which two iterations raise this process's peak memory."""
    torch.set_num_threads(threads)
    shape = shape_of(quick)
    if name == TRL:
        # We count from the first phase on, so that the libraries' own size is left out.
        before = [0]

        def mark(phase: str) -> None:
            if not before[0]:
                before[0] = _resident()

        trl.train(shape, 2, mark, lambda: None)
        return _peak_resident() - before[0]
    workload = _workload(make, shape, name)
    before_ours = _resident()
    for _ in range(2):
        workload.run(lambda phase: None)
    return _peak_resident() - before_ours


def _peak_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def _print_phases(part: result_file.Part, console: Console) -> None:
    """Print each one's phases and memory."""
    for found in part["findings"][:1]:
        about = found["settings"]
        for name, phases in about["phases"].items():
            times = ", ".join(f"{phase} {s['median']:.2f} s" for phase, s in phases.items())
            peak = about.get("peak_bytes", {}).get(name)
            more = "" if peak is None else f"; {peak / 1e6:.0f} MB at the peak, models aside"
            console.print(f"{name}: {times}{more}", highlight=False, soft_wrap=True)
        alike = ", ".join(
            f"{name} {' and '.join(f'{value:.5g}' for value in values.values())}"
            for name, values in about["agreement"].items()
        )
        who = ", ".join(next(iter(about["agreement"].values()), ()))
        console.print(f"the same iteration, by {who}: {alike}", soft_wrap=True)
