"""Measures what lab/predict guesses: the clock, HMMA's rate, L2's, and what a launch takes.

Each is a small kernel whose time one number explains. `gptwin bench calibrate` writes them into the
table of lab/predict/machines.py as "measured" (lab/predict/measured.py).

    clock            cycles by %clock64 over nanoseconds by %globaltimer, where a kernel multiplies
    hmma             cycles of a sub-partition for one 16x8x16 product by mma.sync: a loop of them
                     on registers
    l2               bytes a clock: a buffer that fits, read again and again by all
    launch_seconds   between two events around a kernel that does nothing
    phase            by how much time depends on how resident blocks began: the 80th over the 20th
                     percentile of attention's; no number of the table, but of its error
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ....kernels.attention.attention import attention
from ....kernels.common import launch
from ....kernels.common._triton import tl, triton
from ...timing import Finding, describe, spread
from .cells import Event
from .results import CALIBRATION, not_measured

ROUNDS = 20
# A block of 32 warps, 8 on each sub-partition, which hide each other's latency.
WARPS, TURNS, UNROLLED = 32, 1024, 8
THREADS = 32 * WARPS
PRODUCTS = WARPS // 4 * TURNS * UNROLLED  # of one sub-partition
READ_BYTES, READS, BLOCK = 2**24, 16, 4096  # in L2, how often, and numbers at a time


@triton.jit
def _special_register(NAME: tl.constexpr, zero):
    """Read a 64-bit special register, anew for each value of `zero`."""
    return tl.inline_asm_elementwise(
        "{ mov.u64 $0, %" + NAME + "; add.s64 $0, $0, $1; }", "=l,l", [zero], dtype=tl.int64,
        is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit
def _product(c0, c1, c2, c3, word):
    """Multiply and add by one mma.sync of each warp; `word` is every thread's part of both."""
    return tl.inline_asm_elementwise(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{$0, $1, $2, $3}, {$8, $8, $8, $8}, {$8, $8}, {$4, $5, $6, $7};",
        "=f,=f,=f,=f,f,f,f,f,r", [c0, c1, c2, c3, word],
        dtype=(tl.float32, tl.float32, tl.float32, tl.float32), is_pure=True, pack=1,
    )  # fmt: skip


@triton.jit
def products_kernel(
    words_ptr, sum_ptr, ticks_ptr, n_turns, THREADS: tl.constexpr, UNROLLED: tl.constexpr
):
    """Multiply from registers again and again; note cycles and nanoseconds."""
    thread = tl.arange(0, THREADS)
    word = tl.load(words_ptr + thread)
    zero = tl.zeros([THREADS], tl.int64)
    cycles = _special_register("clock64", zero)
    nanoseconds = _special_register("globaltimer", zero)
    c0 = tl.zeros([THREADS], tl.float32)
    c1 = tl.zeros([THREADS], tl.float32)
    c2 = tl.zeros([THREADS], tl.float32)
    c3 = tl.zeros([THREADS], tl.float32)
    for _ in range(0, n_turns):
        for _ in tl.static_range(0, UNROLLED):
            c0, c1, c2, c3 = _product(c0, c1, c2, c3, word)
    total = c0 + c1 + c2 + c3
    done = (total * 0.0).to(tl.int64)
    cycles = _special_register("clock64", done) - cycles
    nanoseconds = _special_register("globaltimer", done) - nanoseconds
    at = tl.program_id(0) * THREADS + thread
    tl.store(ticks_ptr + 2 * at, cycles)
    tl.store(ticks_ptr + 2 * at + 1, nanoseconds)
    tl.store(sum_ptr + at, total)


@triton.jit
def reads_kernel(x_ptr, sum_ptr, n_numbers, n_reads, BLOCK: tl.constexpr):
    """Read a whole buffer some times, each program from another place on."""
    within = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for turn in range(0, n_reads):
        first = (tl.program_id(0) + turn * 7) * BLOCK
        for start in range(0, n_numbers, BLOCK):
            total += tl.load(x_ptr + (first + start) % n_numbers + within)
    tl.store(sum_ptr + tl.program_id(0), tl.sum(total, axis=0))


@triton.jit
def nothing_kernel(x_ptr):
    """Do nothing."""


def calibration(device: str) -> Iterator[Event]:
    """Measure each number.

    Parameters
    ----------
    device : str
        "cuda"; on another every number says why it is not measured.

    Yields
    ------
    dict
        Events.
    """
    yield {"begin": [CALIBRATION]}
    clock = 0.0
    for name, measure in NUMBERS.items():
        if device != "cuda":
            reason = "reads a GPU's clock"
            yield {"finding": not_measured(name, "skipped", reason, provider=name)}
            continue
        try:
            found = measure(clock)
        except Exception as error:  # whatever it raises is what is found
            yield {"finding": not_measured(name, "failed", describe(error), provider=name)}
            continue
        clock = found["value"]["median"] if name == "clock" else clock
        yield {"finding": {"name": name, "status": "measured", "reason": None, **found}}


def _multiply() -> tuple[np.ndarray, np.ndarray]:
    """Return cycles and nanoseconds of each program, a block on each multiprocessor."""
    n = torch.cuda.get_device_properties(0).multi_processor_count
    words = torch.zeros(THREADS, device="cuda", dtype=torch.int32)
    sums = torch.empty(n, THREADS, device="cuda")
    ticks = torch.zeros(n, THREADS, 2, device="cuda", dtype=torch.int64)
    products_kernel[(n,)](words, sums, ticks, TURNS, THREADS, UNROLLED, num_warps=WARPS)
    torch.cuda.synchronize()
    cycles, nanoseconds = ticks.amax(1).cpu().numpy().T  # of the last thread of each block
    return cycles, nanoseconds


def clock_of(cycles: np.ndarray, nanoseconds: np.ndarray) -> float:
    """Return the clock in Hz."""
    return float(np.median(cycles / nanoseconds) * 1e9)


def hmma_of(cycles: np.ndarray) -> float:
    """Return the cycles of one product: a sub-partition does them one by one."""
    return float(np.median(cycles)) / PRODUCTS


def l2_of(seconds: float, programs: int, clock: float) -> float:
    """Return bytes a clock."""
    return programs * READS * READ_BYTES / seconds / clock


def _clock(_: float) -> Finding:
    _multiply()
    return _spread([clock_of(*_multiply()) for _ in range(ROUNDS)], "Hz")


def _hmma(_: float) -> Finding:
    return _spread([hmma_of(_multiply()[0]) for _ in range(ROUNDS)], "cycles")


def _l2(clock: float) -> Finding:
    programs = 2 * torch.cuda.get_device_properties(0).multi_processor_count
    x = torch.randn(READ_BYTES // 4, device="cuda")
    sums = torch.empty(programs, device="cuda")
    seconds = _seconds(
        lambda: reads_kernel[(programs,)](x, sums, x.numel(), READS, BLOCK, num_warps=8)
    )
    return _spread([l2_of(s, programs, clock) for s in seconds], "bytes a clock")


def _launch(_: float) -> Finding:
    x = torch.empty(1, device="cuda")
    return _spread(_seconds(lambda: nothing_kernel[(1,)](x)), "seconds")


def _phase(_: float) -> Finding:
    query, key, value = torch.randn(3, 8, 12, 1024, 64, device="cuda", dtype=torch.bfloat16)
    with launch.backend("triton"), torch.no_grad():
        seconds = _seconds(lambda: attention(query, key, value, causal=True), 5 * ROUNDS)
    apart = float(np.percentile(seconds, 80) / np.percentile(seconds, 20))
    return _spread([apart], "times")


NUMBERS: dict[str, Callable[[float], Finding]] = {
    "clock": _clock, "hmma": _hmma, "l2": _l2, "launch_seconds": _launch, "phase": _phase,
}  # fmt: skip


def _seconds(call: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
    """Time a call between two events, after it has run thrice."""
    for _ in range(3):
        call()
    found = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1000)
    return found


def _spread(values: list[float], unit: str) -> Finding:
    return {"unit": unit, "value": spread(values), "samples": len(values)}
