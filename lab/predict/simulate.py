"""One sub-partition of a multiprocessor, played through: what its warps wait for, and how long.

The sum of a pipe's occupancies bounds a loop from below (cost.py); what a loop loses to waiting,
tensor cores idle while all warps exponentiate, barriers, fences, only a simulation tells. It issues
in order, as the control fields say: one instruction a cycle, from any warp that is past its stall
count, whose scoreboards are clear and whose pipe is free.

Nothing fixes the phase of one resident block against another. Blocks that start together stay in
step, all in one pipe; half a turn apart they fill each other's gaps. So `steady` runs several
phases, and gives their mean and range.
"""

import dataclasses
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from ..inspect.sass import BRANCHES, Instruction, Loop
from .cost import MEMORY, Cost, bounds, cost
from .machines import Machine

PARTITIONS = 4
MOST_ISSUED = 3_000_000
# How many of the latest completions are kept: more are never in flight.
KEPT = 40


class _Warp:
    """Where a warp is, and what it has in flight."""

    def __init__(self, block: int, start: float, at: int) -> None:
        self.block, self.generation, self.last_issue = block, 0, -1.0
        self.times: dict[int, list[float]] = defaultdict(list)  # of each branch back
        self.arrived = 0.0  # at a barrier
        self.restart(at, start)

    def restart(self, at: int, when: float) -> None:
        self.at, self.ready, self.done = at, when, False
        self.boards: dict[int, list[float]] = defaultdict(list)  # completions, by scoreboard
        self.copies: list[float] = []  # of asynchronous copies that are in no group yet
        self.products: list[float] = []  # of each group of warpgroup products
        self.queued: dict[str, list[float]] = defaultdict(list)  # when a unit began, by pipe
        self.visits: Counter[int] = Counter()


@dataclasses.dataclass(frozen=True)
class Event:
    """One instruction, issued: by which warp, when, and how long it held which pipes."""

    warp: int
    index: int
    issued: float
    held: dict[str, tuple[float, float]]


@dataclasses.dataclass
class Result:
    """What a simulation saw.

    Attributes
    ----------
    cycles : float
        Until the last warp's last instruction.
    per_turn : dict of int to float
        By index of a branch back: cycles of a turn, once it is steady.
    busy : dict of str to float
        Cycles that each pipe was occupied.
    stalls : dict of str to float
        Cycles that warps waited, by reason.
    events : list of Event
        If they were asked for.
    """

    cycles: float
    per_turn: dict[int, float]
    busy: dict[str, float]
    stalls: dict[str, float]
    events: list[Event]


@dataclasses.dataclass(frozen=True)
class Run:
    """How a program is run.

    Attributes
    ----------
    blocks, warps : int
        Resident on the multiprocessor; warps of each.
    trips : dict of int to int
        By index of a branch back: turns of that loop.
    start, stop : int, int or None
        Indices of instructions; None: until EXIT.
    starts : sequence of float
        When each block begins; later ones begin `stagger` after each other.
    stagger : float
    generations : int
        Blocks that take each place, one after another.
    dram_share : float
        As in `cost`.
    watched : bool
        Keep the events.
    """

    blocks: int
    warps: int
    trips: Mapping[int, int]
    start: int = 0
    stop: int | None = None
    starts: Sequence[float] = ()
    stagger: float = 230
    generations: int = 1
    dram_share: float = 0.0
    watched: bool = False


def warps_here(blocks: int, warps: int) -> int:
    """Count the warps of resident blocks that one sub-partition has.

    Parameters
    ----------
    blocks, warps : int
        Resident on the multiprocessor; warps of each.

    Returns
    -------
    int
    """
    return max(1, blocks * warps // PARTITIONS)


def simulate(program: Sequence[Instruction], m: Machine, run: Run) -> Result:
    """Run a program's resident blocks on one sub-partition.

    Branches that `run.trips` does not name fall through, but for those that skip a call: the slow
    path of a division.

    Parameters
    ----------
    program : sequence of Instruction
    m : Machine
    run : Run

    Returns
    -------
    Result

    Raises
    ------
    UnknownInstruction
        As `cost`.
    """
    return _Partition(program, m, run).play()


class _Partition:
    """The state of a sub-partition."""

    def __init__(self, program: Sequence[Instruction], m: Machine, run: Run) -> None:
        self.program, self.m, self.run = program, m, run
        self.costs = [cost(i, m, run.dram_share) for i in program]
        self.boards = [[b for b in range(6) if i.wait_mask >> b & 1] for i in program]
        self.waits = [_outstanding(i) for i in program]
        self.holding = [[p for p in c.pipes if p not in MEMORY] for c in self.costs]
        self.depths = [int(m.gmma_queue if c.kind == "gmma" else m.mio_queue) for c in self.costs]
        self.free: dict[str, float] = defaultdict(float)
        self.busy: dict[str, float] = defaultdict(float)
        self.stalls: dict[str, float] = defaultdict(float)
        self.events: list[Event] = []
        self.issue_free, self.end = 0.0, 0.0
        self.per_block = max(1, run.warps // PARTITIONS)
        self.warps = self._resident()
        self.at_barrier: dict[int, list[_Warp]] = defaultdict(list)

    def _resident(self) -> list[_Warp]:
        run = self.run
        starts = [*run.starts, *(b * run.stagger for b in range(len(run.starts), run.blocks))]
        warps = [
            _Warp(b, starts[b], run.start) for b in range(run.blocks) for _ in range(self.per_block)
        ]
        # Blocks of one or two warps share the four sub-partitions.
        return warps[: warps_here(run.blocks, run.warps)]

    def play(self) -> Result:
        for _ in range(MOST_ISSUED):
            found = self._next()
            if found is None:
                break
            self._issue(*found)
        return Result(
            self.end, self._per_turn(), dict(self.busy), self.stalls, self.events
        )  # fmt: skip

    def _next(self) -> tuple[_Warp, float, str] | None:
        """Choose the warp that can issue first; of several, the one that issued longest ago."""
        best: _Warp | None = None
        when, why = math.inf, ""
        for w in self.warps:
            if w.done or w.ready > when or w.ready == math.inf:
                continue
            t, reason = self._earliest(w)
            if best is None or (t, w.last_issue) < (when, best.last_issue):
                best, when, why = w, t, reason
        return None if best is None else (best, when, why)

    def _earliest(self, w: _Warp) -> tuple[float, str]:
        """Say when a warp can issue its next instruction, and what it waits for until then."""
        at, t, why = w.at, w.ready, "stall count"
        for b in self.boards[at]:
            if w.boards[b] and (done := max(w.boards[b])) > t:
                t, why = done, "scoreboard"
        wait = self.waits[at]
        if wait is not None:
            board, left = wait
            times = w.products if board is None else w.boards[board]
            if (done := _after(times, left)) > t:
                t, why = done, "products" if board is None else "copies"
        c = self.costs[at]
        if c.kind == "fixed":
            for pipe in self.holding[at]:
                if self.free[pipe] > t:
                    t, why = self.free[pipe], pipe
        elif c.kind != "tma":
            depth = self.depths[at]
            for pipe in self.holding[at]:
                flying = w.queued[pipe]
                if len(flying) >= depth and flying[-depth] > t:
                    t, why = flying[-depth], pipe
        if self.issue_free > t:
            t, why = self.issue_free, "issue"
        return t, why

    def _issue(self, w: _Warp, t: float, why: str) -> None:
        at = w.at
        i, c = self.program[at], self.costs[at]
        if t > w.ready:
            self.stalls[why] += t - w.ready
        self.issue_free, w.last_issue = t + 1, t
        w.ready = t + max(1, i.stall)
        begin, finish = self._occupy(w, t, c)
        self._remember(w, i, c, t, begin, finish)
        w.at = at + 1
        if c.kind == "bar":
            self._meet(w, t, c, i)
        if i.base == "EXIT" and not i.predicate:
            self._leave(w, t)
        elif i.target is not None and i.base in BRANCHES:
            w.at = self._follow(at, w)
            if w.at != at + 1:
                w.ready = max(w.ready, t + self.m.jump)
        if w.at == self.run.stop or w.at >= len(self.program):
            w.done = True
        self.end = max(self.end, t)

    def _occupy(self, w: _Warp, t: float, c: Cost) -> tuple[float, float]:
        """Take the pipes; return when the instruction begins in them, and when its result is."""
        begin = max([t, *(self.free[p] for p in c.pipes if p not in MEMORY)])
        finish = t
        held: dict[str, tuple[float, float]] = {}
        for pipe, cycles in c.pipes.items():
            first = max(self.free[pipe], t if pipe in MEMORY else begin)
            self.free[pipe] = first + cycles
            self.busy[pipe] += cycles
            finish = max(finish, first + cycles)
            held[pipe] = first, first + cycles
            if c.kind != "fixed" and pipe not in MEMORY:
                w.queued[pipe].append(first)
                del w.queued[pipe][:-16]
        if self.run.watched:
            self.events.append(Event(self.warps.index(w), w.at, t, held))
        return begin, finish + c.latency

    def _remember(
        self, w: _Warp, i: Instruction, c: Cost, t: float, begin: float, finish: float
    ) -> None:
        """Note what later instructions will wait for."""
        if c.kind == "copy":
            w.copies.append(finish)
        elif c.kind == "gmma" and "gsb0" in i.operands:
            w.products.append(finish)
            del w.products[:-8]
        if i.base == "LDGDEPBAR":
            finish = max([t, *w.copies])
            w.copies.clear()
        if i.write_barrier is not None:
            w.boards[i.write_barrier].append(finish)
            del w.boards[i.write_barrier][:-KEPT]
        if i.read_barrier is not None:
            # Operands are read when the unit starts; a fence is over when it is done.
            w.boards[i.read_barrier].append(finish if i.base == "MEMBAR" else begin + 4)
            del w.boards[i.read_barrier][:-KEPT]

    def _meet(self, w: _Warp, t: float, c: Cost, i: Instruction) -> None:
        """Wait at a barrier until the block's other warps are there."""
        group = self.at_barrier[w.block]
        w.arrived, w.ready = t, math.inf
        group.append(w)
        if len(group) == self.per_block:
            for other in group:
                other.ready = max(t + c.latency, t + i.stall)
                if other is not w:
                    self.stalls["barrier"] += other.ready - other.arrived
            group.clear()

    def _leave(self, w: _Warp, t: float) -> None:
        """End a warp; when all of its block have, the next block takes the place."""
        w.done = True
        w.generation += 1
        block = [x for x in self.warps if x.block == w.block]
        over = all(x.done and x.generation == w.generation for x in block)
        if over and w.generation < self.run.generations:
            for x in block:
                x.restart(self.run.start, t + self.m.block_cycles)

    def _follow(self, here: int, w: _Warp) -> int:
        """Say where a branch goes."""
        i = self.program[here]
        assert i.target is not None
        if here in self.run.trips:
            w.visits[here] += 1
            w.times[here].append(w.last_issue)
            return i.target if w.visits[here] % self.run.trips[here] else here + 1
        if i.target <= here:  # a spin, or a loop of which nothing was said: once
            return here + 1
        if not i.predicate:
            return i.target
        # ptxas also leaves loops by CALL to a label: only a call of a function is a slow path.
        skipped = self.program[here + 1 : i.target]
        slow = any(p.base == "CALL" and p.target is None for p in skipped)
        return i.target if slow else here + 1

    def _per_turn(self) -> dict[int, float]:
        """Average the turns of each loop, without the first third."""
        found = {}
        for branch in self.run.trips:
            spans = []
            for w in self.warps:
                times = w.times[branch]
                if len(times) > 4:
                    first = len(times) // 3
                    spans.append((times[-1] - times[first]) / (len(times) - 1 - first))
            if spans:
                found[branch] = sum(spans) / len(spans)
        return found


def _outstanding(i: Instruction) -> tuple[int | None, int] | None:
    """Say which counter an instruction waits on, None the products', and how many may be left."""
    if i.base == "DEPBAR" and (found := re.match(r"SB(\d), 0x([0-9a-f]+)", i.operands)):
        return int(found[1]), int(found[2], 16)
    if i.opcode.startswith("WARPGROUP.DEPBAR"):
        left = re.search(r"0x([0-9a-f]+)", i.operands)
        return None, int(left[1], 16) if left else 0
    return None


def _after(times: Collection[float], left: int) -> float:
    """Say when no more than `left` are outstanding."""
    return 0.0 if len(times) <= left else sorted(times)[len(times) - left - 1]


@dataclasses.dataclass(frozen=True)
class Steady:
    """Cycles that one turn of all resident blocks takes: mean and range over their phases.

    Attributes
    ----------
    mean, least, most : float
    stalls : dict of str to float
        Cycles that warps waited, by reason.
    """

    mean: float
    least: float
    most: float
    stalls: dict[str, float]


def steady(
    program: Sequence[Instruction],
    loop: Loop,
    m: Machine,
    *,
    blocks: int,
    warps: int,
    phases: int = 5,
    turns: int = 18,
    dram_share: float = 0.0,
) -> Steady:
    """Run one loop alone, with the resident blocks in several phases.

    Parameters
    ----------
    program : sequence of Instruction
    loop : Loop
    m : Machine
    blocks, warps : int
        Resident on a multiprocessor; warps of each.
    phases, turns : int
        How many phases, drawn from a fixed seed, and how many turns of each.
    dram_share : float
        As in `cost`.

    Returns
    -------
    Steady

    Raises
    ------
    UnknownInstruction
        As `cost`.
    """
    run = Run(blocks, warps, {loop.last: turns}, loop.first, loop.last + 1, dram_share=dram_share)
    alone = simulate(program, m, dataclasses.replace(run, blocks=1)).per_turn[loop.last]
    # No queue makes a loop faster than its busiest pipe.
    least = bounds(program, loop, m, warps_here(blocks, warps), dram_share).limit[1]
    draw = random.Random(0)
    cycles: list[float] = []
    stalls: dict[str, float] = defaultdict(float)
    for _ in range(1 if blocks == 1 else phases):
        starts = [0.0, *(draw.uniform(0, alone) for _ in range(blocks - 1))]
        found = simulate(program, m, dataclasses.replace(run, starts=starts))
        cycles.append(max(least, found.per_turn[loop.last]))
        for why, waited in found.stalls.items():
            stalls[why] += waited
    return Steady(sum(cycles) / len(cycles), min(cycles), max(cycles), stalls)
