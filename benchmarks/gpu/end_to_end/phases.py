"""End to end: generation (generation.py) and PPO, by phases, each behind a gate.

PPO is handed in by the command line: the pipeline (rl/studies/workloads.py) lives on another floor,
which benchmarks do not import. A workload runs once and says where it is:

    workload.run(mark)      mark("roll out") ... mark("update") ...; returns the tokens it made
    workload.gate()         what it computed beside what it should have; see `Checks`

Each mark waits for the device, so a phase is what the clock on the wall says.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch

from ...timing import Mark, Skipped, describe, expect_same, spread
from ..operations.cells import Event, free
from ..operations.results import not_measured, parts_of_name

ROUNDS = 5

# By name: what came, what should have, and by how much they may differ; see `timing.expect_same`.
Checks = Mapping[str, tuple[Any, Any, float]]


class Workload(Protocol):
    """Something of the pipeline that is run whole."""

    @property
    def settings(self) -> dict[str, Any]:
        """What it is, kept beside the figures."""

    @property
    def run(self) -> Callable[[Mark], int]:
        """What does it once, naming each phase as it begins; it returns the tokens it made."""

    @property
    def gate(self) -> Callable[[], Checks]:
        """What does it once for the gate."""


Makers = Mapping[str, Callable[[], Workload]]


class Stopwatch:
    """Seconds of each phase.

    Parameters
    ----------
    device : str
    counting : bool
        A dry run: every phase takes one second, which means nothing.
    """

    def __init__(self, device: str, counting: bool) -> None:
        self.device, self.counting = device, counting
        self.seconds: dict[str, float] = {}
        self.phase: str | None = None
        self.began = self._now()

    def mark(self, phase: str | None) -> None:
        """End the current phase and begin another."""
        now = self._now()
        if self.phase is not None:
            passed = 1.0 if self.counting else now - self.began
            self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + passed
        self.phase, self.began = phase, now

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def end_to_end(
    makers: Makers,
    device: str,
    *,
    tiny: bool = False,
    compile_only: bool = False,
    only: frozenset[str] = frozenset(),
    done: frozenset[str] = frozenset(),
    given_up: frozenset[str] = frozenset(),
) -> Iterator[Event]:
    """Measure workloads.

    Parameters
    ----------
    makers : dict
        A cell's name to what makes the workload. It may raise `NotImplementedError`: this device
        cannot do that.
    device : str
    tiny : bool
        For a dry run.
    compile_only : bool
        Run each once and time nothing.
    only, done, given_up
        As in `cells.Measurement`.

    Yields
    ------
    dict
        Events.
    """
    for name, build in makers.items():
        about = parts_of_name(name)
        who = about["provider"]
        if name in done or (only and who.partition(",")[0] not in only):
            continue
        yield {"begin": [name]}
        try:
            if who in given_up:
                raise TimeoutError("cut off at another size")
            workload = build()
            workload.run(lambda phase: None)  # compiles
            if compile_only:
                continue
            gate = check(name, workload)
            yield {"finding": _measure(name, workload, device, tiny) | about | {"gate": gate}}
        except (ImportError, NotImplementedError, Skipped) as error:
            reason = describe(error) if isinstance(error, ImportError) else str(error)
            yield {"finding": not_measured(name, "skipped", reason, **about)}
        except Exception as error:  # whatever it raises is what is found
            yield {"finding": not_measured(name, "failed", describe(error), **about)}
        free(device)


def check(name: str, workload: Workload) -> dict[str, Any]:
    """Refuse to time a workload that computes something else; return what was compared.

    Raises
    ------
    GateError
        Naming the first that differs.
    """
    checks = workload.gate()
    for what, (actual, expected, tolerance) in checks.items():
        one, other = (x.cpu() if isinstance(x, torch.Tensor) else x for x in (actual, expected))
        expect_same(f"{name}: {what}", one, other, tolerance)
    return {"truth": "eager float32", "tolerances": {what: c[2] for what, c in checks.items()}}


def _measure(name: str, workload: Workload, device: str, tiny: bool) -> dict[str, Any]:
    """Run a workload some times; return its finding."""
    rates: list[float] = []
    phases: dict[str, list[float]] = {}
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2 if tiny else ROUNDS):
        watch = Stopwatch(device, tiny)
        tokens = workload.run(watch.mark)
        watch.mark(None)
        rates.append(tokens / sum(watch.seconds.values()))
        for phase, seconds in watch.seconds.items():
            phases.setdefault(phase, []).append(seconds)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {
        "name": name, "status": "measured", "reason": None,
        "unit": "tokens/s", "value": spread(rates), "samples": len(rates), "peak_bytes": peak,
        "phases": {phase: spread(seconds) for phase, seconds in phases.items()},
        "settings": workload.settings,
    }  # fmt: skip
