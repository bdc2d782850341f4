"""The clock: device time by events, each call from a cold cache; and a counter for dry runs.

    warm up | flush the cache, event, call, event | flush, event, call, event | ...

The flush writes a buffer larger than the level-2 cache, so that no call finds its inputs there. It
also gives the host time to launch ahead. Where launching takes longer than the device's own work,
the events time the host: that is said of the figure (`launch_bound`).
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

Call = Callable[[], Any]

WARM_UP = 3
LEAST, MOST = 10, 200
SECONDS = 0.1  # of device time for one figure
FLUSH_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class Timing:
    """What a call took.

    Attributes
    ----------
    seconds : list of float
        Of the device, one for each call.
    host_seconds : float
        Median time until the host had launched it.
    extra_bytes : int or None
        The most memory it held beyond what was there before.
    """

    seconds: list[float]
    host_seconds: float
    extra_bytes: int | None

    @property
    def launch_bound(self) -> bool:
        """Whether launching takes longer than the work."""
        return self.host_seconds >= float(np.median(self.seconds))


class Clock(Protocol):
    """Times a call."""

    def time(self, call: Call) -> Timing:
        """Run the call some times."""


class DeviceClock:
    """Times calls on a GPU.

    Parameters
    ----------
    cuda : module
        torch.cuda, or what stands in for it in a test.
    device : str
    """

    def __init__(self, cuda: Any = torch.cuda, device: str = "cuda") -> None:
        self.cuda = cuda
        size = max(FLUSH_BYTES, 4 * cuda.get_device_properties(0).L2_cache_size)
        self.flush = torch.empty(size // 4, dtype=torch.int32, device=device)

    def time(self, call: Call) -> Timing:
        """See `Clock`."""
        for _ in range(WARM_UP):
            call()
        extra = self._extra_bytes(call)
        first = self._run(call, 3)[0]
        n = int(min(max(SECONDS / max(np.median(first), 1e-9), LEAST), MOST))
        seconds, host = self._run(call, n)
        return Timing(seconds, float(np.median(host)), extra)

    def _extra_bytes(self, call: Call) -> int:
        """Measure the peak of one call; its result is held until then."""
        self.cuda.synchronize()
        before = self.cuda.memory_allocated()
        self.cuda.reset_peak_memory_stats()
        kept = call()
        self.cuda.synchronize()
        del kept
        return int(self.cuda.max_memory_allocated() - before)

    def _run(self, call: Call, n: int) -> tuple[list[float], list[float]]:
        """Return the device's and the host's seconds of n calls."""
        events = [
            (self.cuda.Event(enable_timing=True), self.cuda.Event(enable_timing=True))
            for _ in range(n)
        ]
        host = []
        for start, end in events:
            self.flush.zero_()
            start.record()
            began = time.perf_counter()
            call()
            host.append(time.perf_counter() - began)
            end.record()
        self.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in events], host


class CountingClock:
    """Runs calls and counts them: a dry run's clock, whose seconds and bytes mean nothing."""

    def __init__(self) -> None:
        self.calls = 0

    def time(self, call: Call) -> Timing:
        """See `Clock`."""
        call()
        self.calls += 1
        seconds = [1.0 + self.calls * step for step in (1e-3, 2e-3, 3e-3)]
        return Timing(seconds, 0.0, 2**20)


def the_clock(dry_run: bool) -> Clock:
    """Return the clock of a run."""
    return CountingClock() if dry_run else DeviceClock()
