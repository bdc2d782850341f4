"""Who goes on: partitions take turns, and what is in flight ends when the schedule says so.

Each partition is a thread, and one runs at a time, until it waits. What a schedule chooses must not
matter (machine/barrier.py says why); that it does not is what several of them are for.
"""

import contextlib
import contextvars
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .barrier import Barrier
from .program import Agent, InFlight, Program, Stopped


class _Abandoned(BaseException):
    """Ends a partition that waits when the program has ended."""


class Partition:
    """One that takes turns.

    Parameters
    ----------
    agent : Agent
    body : callable
        What it does; its result is kept.
    """

    def __init__(self, agent: Agent, body: Callable[[], Any]) -> None:
        self.agent = agent
        self.body = body
        self.result: Any = None
        self.waits_for: Callable[[], bool] | None = None
        self.barrier: Barrier | None = None
        self.parity = 0
        self.where = ""
        self.over = False
        self.turn = threading.Semaphore(0)
        self.thread: threading.Thread | None = None

    def can_go_on(self) -> bool:
        """Say whether it waits for nothing, or for what has come."""
        return self.waits_for is None or self.waits_for()


class Schedule:
    """In which order partitions run, and when what is in flight ends.

    Parameters
    ----------
    name : str
        "behind": copies and products end as late as they may, the first partition that can goes on.
        "ahead": they end at once, and the last partition goes as far as it can.
        A number: the seed of an order that is drawn.
    """

    def __init__(self, name: str = "behind") -> None:
        if name not in ("behind", "ahead") and not name.isdigit():
            raise ValueError(f"schedule must be behind, ahead or a seed, not {name!r}")
        self.name = name
        self.eager = name == "ahead"
        self.random = random.Random(int(name)) if name.isdigit() else None

    def choose(
        self, ready: Sequence[Partition], in_flight: Sequence[InFlight], last: Partition | None
    ) -> Partition | InFlight | None:
        """Choose who goes on; None if nobody can."""
        if self.random is not None:
            choices: list[Partition | InFlight] = [*ready, *in_flight]
            return self.random.choice(choices) if choices else None
        if self.name == "ahead":
            return last if last in ready else ready[-1] if ready else next(iter(in_flight), None)
        return ready[0] if ready else next(iter(in_flight), None)


class Turns:
    """The partitions of a program.

    Parameters
    ----------
    program : Program
    schedule : Schedule
    """

    def __init__(self, program: Program, schedule: Schedule) -> None:
        self.program = program
        self.schedule = schedule
        program.eager = schedule.eager
        self.partitions: list[Partition] = []
        self.running: Partition | None = None
        self.back = threading.Semaphore(0)
        self.failed = False

    def run(self, body: Callable[[], Any]) -> None:
        """Run the kernel to its end, or to the deadlock that is then among the findings."""
        kernel = self.begin(self.program.agent, body)
        _running.append(self)
        try:
            while not kernel.over and not self.failed:
                if not self._go_on():
                    self._deadlock()
                    break
            if kernel.over and not self.failed:
                self._end()
        except Stopped:
            pass  # what is wrong is among the findings
        finally:
            _running.remove(self)
            self.failed = True  # for partitions that still wait
            for partition in self.partitions:
                if partition.thread is not None and not partition.over:
                    partition.turn.release()
                    partition.thread.join()

    def begin(self, agent: Agent, body: Callable[[], Any]) -> Partition:
        """Add a partition; it begins when it is chosen."""
        partition = Partition(agent, body)
        self.partitions.append(partition)
        return partition

    def wait(self, barrier: Barrier, parity: int) -> None:
        """Let the running partition wait for a phase."""
        barrier.ready()
        self.pause(lambda: barrier.passes(parity), barrier, parity)
        barrier.passed()

    def breathe(self) -> None:
        """Let others come in between two operations, if the order is drawn."""
        if self.schedule.random is not None:
            self.pause()

    def fork(
        self, bodies: Sequence[tuple[str, Callable[[], Any]]], n_warps: Sequence[int]
    ) -> list[Any]:
        """Run partitions that know what the kernel knows, and wait for all of them."""
        parent = self.program.agent
        names = [name for name, _ in bodies]
        made = [
            self.begin(Agent(_told_apart(names, i), n, parent.knows, parent.fenced), body)
            for i, ((_, body), n) in enumerate(zip(bodies, n_warps, strict=True))
        ]
        self.pause(lambda: all(p.over for p in made))
        for partition in made:
            parent.learn(partition.agent.knows, partition.agent.fenced)
        return [partition.result for partition in made]

    def pause(
        self,
        until: Callable[[], bool] | None = None,
        barrier: Barrier | None = None,
        parity: int = 0,
    ) -> None:
        """Give up the turn, and return when it comes back."""
        mine = self.running
        assert mine is not None
        mine.waits_for, mine.barrier, mine.parity = until, barrier, parity
        mine.where = self.program.line()
        self.back.release()
        mine.turn.acquire()
        if self.failed:
            raise _Abandoned
        mine.waits_for = None

    def _go_on(self) -> bool:
        """Let one go on; False if nobody can."""
        flying = [operation for operation in self.program.in_flight if not operation.done]
        ready = [p for p in self.partitions if not p.over and p.can_go_on()]
        chosen = self.schedule.choose(ready, flying, self.running)
        if isinstance(chosen, InFlight):
            chosen.perform()
        elif chosen is not None:
            self._give(chosen)
        return chosen is not None

    def _give(self, partition: Partition) -> None:
        self.running = partition
        self.program.agent = partition.agent
        if partition.thread is None:
            context = contextvars.copy_context()  # NumPy's error state
            partition.thread = threading.Thread(
                target=context.run, args=(self._run, partition), daemon=True
            )
            partition.thread.start()
        else:
            partition.turn.release()
        self.back.acquire()

    def _run(self, partition: Partition) -> None:
        try:
            partition.result = partition.body()
        except _Abandoned:
            return
        except Exception as error:
            self.failed = True
            self._report(error)
        partition.over = True
        self.back.release()

    def _report(self, error: Exception) -> None:
        if not isinstance(error, Stopped):
            detail = f"{type(error).__name__}: {error}"
            with contextlib.suppress(Stopped):
                self.program.find("failure", "", detail, self.program.line_of(error))

    def _deadlock(self) -> None:
        """Report each wait, and beside it what the others wait for."""
        waits = [
            (p, p.barrier, f"{p.agent.name} waits for {p.barrier.awaited(p.parity)}")
            for p in self.partitions
            if not p.over and p.barrier is not None
        ]
        for partition, barrier, says in waits:
            others = [other for p, _, other in waits if p is not partition]
            detail = "; ".join([says, *others])
            self.program.find(
                "deadlock", barrier.name, detail, partition.where, partition.agent.name
            )

    def _end(self) -> None:
        """Report what nobody has waited for, and let it take effect."""
        for operation in self.program.unfinished():
            self.program.find("in flight at the end", "", "", operation.where, operation.agent)
        for operation in self.program.in_flight:
            operation.perform()


def _told_apart(names: Sequence[str], which: int) -> str:
    """Name a partition by its function, and by its place if others run the same."""
    alone = names.count(names[which]) == 1
    return names[which] if alone else f"{names[which]} ({which})"


_running: list[Turns] = []


def here() -> Turns:
    """Give the program that is being run: what a kernel's operations act on."""
    return _running[-1]
