"""End to end: generation and PPO, by phases; what runs is handed in by the command line.

The pipeline lives on another floor (rl/workloads.py), which benchmarks do not import. A workload
runs once and says where it is:

    workload.run(mark)      mark("roll out") ... mark("update") ...; returns the tokens it made

Each mark waits for the device, so a phase is what the clock on the wall says.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch

from ..timing import describe, spread
from .cells import Event
from .results import not_measured

ROUNDS = 5


class Workload(Protocol):
    """Something of the pipeline that is run whole."""

    @property
    def settings(self) -> dict[str, Any]:
        """What it is, kept beside the figures."""

    @property
    def run(self) -> Callable[[Callable[[str], None]], int]:
        """What does it once, naming each phase as it begins; it returns the tokens it made."""


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
    make: Callable[..., Makers],
    device: str,
    *,
    tiny: bool = False,
    compile_only: bool = False,
    done: frozenset[str] = frozenset(),
) -> Iterator[Event]:
    """Measure workloads.

    Parameters
    ----------
    make : callable
        `(device, tiny) -> dict` of name to what makes the workload.
    device : str
    tiny : bool
        For a dry run.
    compile_only : bool
        Run each once and time nothing.
    done : frozenset of str
        Names of workloads that need not be measured.

    Yields
    ------
    dict
        Events.
    """
    for name, build in make(device, tiny=tiny).items():
        if name in done:
            continue
        yield {"begin": [name]}
        try:
            workload = build()
            workload.run(lambda phase: None)  # compiles
            if compile_only:
                continue
            yield {"finding": _measure(name, workload, device, tiny)}
        except Exception as error:  # whatever it raises is what is found
            found = not_measured(name, "failed", describe(error), provider="gptwin")
            yield {"finding": found}
        if device == "cuda":
            torch.cuda.empty_cache()


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
        "name": name, "provider": "gptwin", "status": "measured", "reason": None,
        "unit": "tokens/s", "value": spread(rates), "samples": len(rates), "peak_bytes": peak,
        "phases": {phase: spread(seconds) for phase, seconds in phases.items()},
        "settings": workload.settings,
    }  # fmt: skip
