"""The time of one launch: its loops, what stands before and behind them, and the waves of blocks.

    block  = what is no loop + sum over loops of turns x cycles of a turn, a loop that holds others
             counting for what it does beside them
    launch = start + the blocks, each in the next place that falls free, and never less than its
             bytes from memory take

Cycles of a turn are those of all blocks that a multiprocessor holds, which turn beside each other.
"""

import dataclasses
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...kernels.native.instructions.ttir import Unsupported
from ..inspect.assembly import Resources
from ..inspect.sass import Instruction, Loop, loops
from ..inspect.targets import architecture, occupancy
from .cost import Bounds, Work, bounds, work
from .machines import Machine
from .simulate import Result, Run, Steady, simulate, steady, warps_here
from .specialised import WARPS, on_most_turns, warpgroup_loops
from .trips import SourceLoop, UnknownTrips, consumer_turns, source_loops, touched

# Turns of each loop in the run that measures what is no loop.
FEW_TURNS = 5
OUTER_TURNS = 7
# More programs than that are not given to places one by one.
MOST_PROGRAMS = 200_000
# A loop that machine code unrolls works so many times what one turn of the source does.
UNROLLED = (1, 2, 3, 4, 6, 8, 16)


@dataclasses.dataclass(frozen=True)
class LoopEstimate:
    """One innermost loop of the machine code.

    Attributes
    ----------
    loop : Loop
    where : str
        Its source line, "file:line", if the loop was recognised.
    turns : float or None
        Of the mean program.
    bounds : Bounds
    steady : Steady
    work : Work
        Of one turn of one block.
    rate : float
        FLOPs of tensor cores a second, or bytes, of the whole GPU in this loop.
    """

    loop: Loop
    where: str
    turns: float | None
    bounds: Bounds
    steady: Steady
    work: Work
    rate: float

    def busy(self) -> dict[str, float]:
        """Return the share of a turn in which each pipe is busy, the busiest first."""
        shares = {pipe: c / self.steady.mean for pipe, c in self.bounds.pipes.items()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the model says of one launch with one configuration.

    Attributes
    ----------
    blocks : int
        Resident on a multiprocessor.
    programs : int
    loops : list of LoopEstimate
    seconds : (float, float, float) or None
        Mean, least and most over the phases; None: see `unknown`.
    unknown : str
        Why there is no time.
    busy : dict of str to float
        Share of the whole run in which each pipe is busy, for a kernel without loops.
    stalls : dict of str to float
        What its warps wait for, in shares of their waiting: of the hottest loop, or of the run.
    dram_bytes : float
        At least, from and to memory.
    """

    blocks: int
    programs: int
    loops: list[LoopEstimate]
    seconds: tuple[float, float, float] | None
    unknown: str
    busy: dict[str, float]
    stalls: dict[str, float]
    dram_bytes: float

    def hottest(self) -> LoopEstimate | None:
        """Return the loop that takes most of the time; of equal ones the last."""
        return max(self.loops, key=lambda one: (one.turns or 1) * one.steady.mean, default=None)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A kernel as the compiler left it, and how it is launched.

    Attributes
    ----------
    program : sequence of Instruction
    resources : Resources
    ttir : str
        Triton's IR; of a Gluon kernel, which has none, Triton's GPU IR.
    programs : tuple of int
        Of its grid.
    scalars : dict
        Its number arguments.
    tensors : dict of str to int
        Bytes of each tensor that it is given, by the name that Triton's IR has for it.
    """

    program: Sequence[Instruction]
    resources: Resources
    ttir: str
    programs: tuple[int, ...]
    scalars: Mapping[str, Any]
    tensors: Mapping[str, int]


def resident(arch: str, resources: Resources) -> int:
    """Count the blocks that a multiprocessor holds.

    Parameters
    ----------
    arch : str
    resources : Resources

    Returns
    -------
    int
    """
    on = architecture(arch)
    share = occupancy(on, warps=resources.warps, registers=resources.registers,
                      shared_bytes=resources.shared_bytes)  # fmt: skip
    return round(share * on.warps / resources.warps)


def estimate(kernel: Compiled, m: Machine) -> Estimate:
    """Estimate one launch.

    Parameters
    ----------
    kernel : Compiled
    m : Machine

    Returns
    -------
    Estimate

    Raises
    ------
    UnknownInstruction
        If the machine code holds an instruction that the model does not know.
    ValueError
        If not even one block fits on a multiprocessor.
    """
    n_programs = int(np.prod(kernel.programs, dtype=np.int64))
    fitting = resident(m.arch, kernel.resources)
    if fitting == 0:
        raise ValueError(
            "predict: expected a block to fit on a multiprocessor, got one that does not"
        )
    blocks = min(fitting, max(1, -(-n_programs // int(m.sms))))
    if alike := warpgroup_loops(kernel.program):
        return _specialised(kernel, m, alike, blocks, n_programs)
    working = [x for x in loops(kernel.program) if x.innermost and _does_work(x, kernel)]
    sources, outer, unknown = _sources(kernel, working)
    turns = {x: s.turns / _unrolled(x, s, kernel) for x, s in zip(working, sources, strict=False)}
    turns |= outer
    share, dram_bytes = _from_memory(kernel, turns, n_programs)
    placed: list[SourceLoop | None] = [*sources] or [None] * len(working)
    found = [
        _loop(kernel, x, m, blocks, share, source, turns.get(x))
        for x, source in zip(working, placed, strict=True)
    ]
    hottest = max(found, key=lambda f: (f.turns or 1) * f.steady.mean, default=None)
    if unknown:
        stalls = _shares(hottest.steady.stalls) if hottest else {}
        return Estimate(blocks, n_programs, found, None, unknown, {}, stalls, dram_bytes)
    outside, run = _outside(kernel, m, found, turns, blocks, share, n_programs)

    def seconds(which: str) -> float:
        return _seconds(m, found, turns, outside, blocks, dram_bytes, which)

    lasting = max([run.cycles, *run.busy.values()])  # memory may be busy when all is issued
    busy = {p: c / lasting for p, c in sorted(run.busy.items(), key=lambda item: -item[1])}
    stalls = _shares(hottest.steady.stalls if hottest else run.stalls)
    times = seconds("mean"), seconds("least"), seconds("most")
    return Estimate(blocks, n_programs, found, times, "", busy, stalls, dram_bytes)


def _specialised(
    kernel: Compiled, m: Machine, alike: list[Loop], blocks: int, n_programs: int
) -> Estimate:
    """Estimate a kernel whose warpgroups multiply in loops that are alike."""
    program, loop = on_most_turns(kernel.program, alike[0])
    of_group = dataclasses.replace(kernel.resources, warps=WARPS)
    group = dataclasses.replace(kernel, program=program, resources=of_group)
    groups = blocks * len(alike)
    dram_bytes = float(sum(kernel.tensors.values()))
    try:
        turns = consumer_turns(kernel.ttir, kernel.programs, kernel.scalars)
    except UnknownTrips as error:
        one = _loop(group, loop, m, groups, 0.0, None, None)
        return Estimate(blocks, n_programs, [one], None, str(error), {}, {}, dram_bytes)
    of_loop = {loop: turns}
    one = _loop(group, loop, m, groups, 0.0, None, turns)
    outside, _ = _outside(group, m, [one], of_loop, groups, 0.0, n_programs)
    outside = outside + m.dram_latency  # until the first tile is there

    def seconds(which: str) -> float:
        return _seconds(m, [one], of_loop, outside, blocks, dram_bytes, which)

    times = seconds("mean"), seconds("least"), seconds("most")
    stalls = _shares(one.steady.stalls)
    return Estimate(blocks, n_programs, [one], times, "", {}, stalls, dram_bytes)


def _does_work(loop: Loop, kernel: Compiled) -> bool:
    done = work(loop.body(kernel.program), kernel.resources.warps)
    return done.flops > 0 or done.bytes > 0


def _sources(
    kernel: Compiled, working: list[Loop]
) -> tuple[list[SourceLoop], dict[Loop, np.ndarray], str]:
    """Find each loop's source, in order, and the turns of those around them; or say why not."""
    try:
        found = source_loops(kernel.ttir, kernel.programs, kernel.scalars)
    except (UnknownTrips, Unsupported) as error:
        return [], {}, str(error)
    sources = [one for one in found if one.innermost]
    around = [one for one in found if not one.innermost]
    outer = [x for x in loops(kernel.program) if not x.innermost]
    if (len(sources), len(around)) != (len(working), len(outer)):
        words = (
            f"{len(working)} loops and {len(outer)} around them in the machine code, "
            f"{len(sources)} and {len(around)} in the source: which is which is not known"
        )
        return [], {}, words
    return sources, {x: one.turns for x, one in zip(outer, around, strict=True)}, ""


def _unrolled(loop: Loop, source: SourceLoop, kernel: Compiled) -> int:
    """Say how many turns of the source one turn of the machine code is, by what both do."""
    done = work(loop.body(kernel.program), kernel.resources.warps)
    by_flops = done.flops and source.flops
    ratio = done.flops / source.flops if by_flops else done.bytes / max(1.0, source.bytes)
    return min(UNROLLED, key=lambda n: abs(ratio - n))


def _from_memory(
    kernel: Compiled, turns: Mapping[Loop, np.ndarray], programs: int
) -> tuple[float, float]:
    """Return the share of the kernel's traffic that memory sees, and that in bytes.

    Each tensor crosses once in each direction at most; the rest is served by L2.
    """
    warps = kernel.resources.warps
    whole = work(kernel.program, warps)
    read, written = whole.read, whole.written
    for loop, n in turns.items():
        if loop.innermost:  # what an outer loop moves beside them is little
            turn = work(loop.body(kernel.program), warps)
            read += (float(n.mean()) - 1) * turn.read
            written += (float(n.mean()) - 1) * turn.written
    read, written = read * programs, written * programs
    try:
        loaded, stored = touched(kernel.ttir)
    except Unsupported:
        loaded = stored = set(kernel.tensors)
    sizes = [sum(kernel.tensors.get(name, 0) for name in names) for names in (loaded, stored)]
    crossing = min(read, sizes[0]) + min(written, sizes[1])
    return (crossing / (read + written) if read + written else 0.0), crossing


def _loop(
    kernel: Compiled, loop: Loop, m: Machine, blocks: int, share: float,
    source: SourceLoop | None, turns: np.ndarray | None,
) -> LoopEstimate:  # fmt: skip
    warps = kernel.resources.warps
    found = steady(kernel.program, loop, m, blocks=blocks, warps=warps, dram_share=share)
    done = work(loop.body(kernel.program), warps)
    per_cycle = (done.flops or done.bytes) * blocks / found.mean
    least = bounds(kernel.program, loop, m, warps_here(blocks, warps), share)
    return LoopEstimate(
        loop, source.where if source else "", None if turns is None else float(turns.mean()),
        least, found, done, per_cycle * m.sms * m.clock,
    )  # fmt: skip


def _outside(
    kernel: Compiled, m: Machine, found: list[LoopEstimate], turns: Mapping[Loop, np.ndarray],
    blocks: int, share: float, programs: int,
) -> tuple[np.ndarray, Result]:  # fmt: skip
    """Measure each block's cycles outside its innermost loops: a few turns of each, less these."""
    few = {x: max(1, min(FEW_TURNS, round(float(n.mean())))) for x, n in turns.items()}
    trips = {x.last: n if x.innermost else 1 for x, n in few.items()}
    run = Run(blocks, kernel.resources.warps, trips, stagger=60, dram_share=share)
    first = simulate(kernel.program, m, run)
    cycles = first.cycles
    if programs > blocks * m.sms:  # the next block takes a place while the others go on
        more = simulate(kernel.program, m, dataclasses.replace(run, generations=3))
        cycles, first = (more.cycles - first.cycles) / 2, more
    looping = sum(few[one.loop] * one.steady.mean for one in found)
    outside = np.full(programs, max(0.0, cycles - looping))
    for loop, n in turns.items():
        if not loop.innermost:  # the first turn is in there already
            each = _beside_inner(kernel, m, loop, found, few, run)
            outside += each * np.maximum(0, n - 1)
    return outside, first


def _beside_inner(
    kernel: Compiled, m: Machine, loop: Loop, found: list[LoopEstimate],
    few: Mapping[Loop, int], run: Run,
) -> float:  # fmt: skip
    """Measure what a turn of a loop takes beside the loops that it holds."""
    trips = {**run.trips, loop.last: OUTER_TURNS}
    alone = dataclasses.replace(run, trips=trips, start=loop.first, stop=loop.last + 1)
    turn = simulate(kernel.program, m, alone).per_turn[loop.last]
    held = [one for one in found if loop.first <= one.loop.first and one.loop.last <= loop.last]
    return max(0.0, turn - sum(few[one.loop] * one.steady.mean for one in held))


def _seconds(
    m: Machine, found: list[LoopEstimate], turns: Mapping[Loop, np.ndarray], outside: np.ndarray,
    blocks: int, dram_bytes: float, which: str,
) -> float:  # fmt: skip
    cycles = outside
    for one in found:
        cycles = cycles + turns[one.loop] * getattr(one.steady, which)
    busy = makespan(cycles, int(m.sms) * blocks) / m.clock
    return m.launch_seconds + max(busy, dram_bytes / m.dram)


def makespan(durations: np.ndarray, places: int) -> float:
    """Say when the last block ends, each place taking the next one in launch order.

    Parameters
    ----------
    durations : np.ndarray
    places : int

    Returns
    -------
    float
    """
    if len(durations) > MOST_PROGRAMS:
        return float(durations.sum() / places)
    ends = [0.0] * min(places, len(durations))
    for duration in durations:
        heapq.heapreplace(ends, ends[0] + float(duration))
    return max(ends, default=0.0)


def _shares(stalls: Mapping[str, float]) -> dict[str, float]:
    total = sum(stalls.values()) or 1.0
    return {why: n / total for why, n in sorted(stalls.items(), key=lambda item: -item[1])}
