"""Programs take turns: one runs until it ends, or until it waits for another.

On a GPU programs run at once, and one may wait for another: it reads a flag, or tries to take a
lock, again and again. Upstream runs one program after another, so such a kernel never ends. Here a
program that asks for the same thing in vain gives up its turn: another begins, on a thread of its
own, or goes on. Only one thread runs at a time. If all that are left wait, and nothing in memory
has changed since each of them looked, none will ever go on, and the launch ends with `EndlessWait`.
"""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from triton.runtime import interpreter as upstream
from triton.runtime.errors import InterpreterError

from ..common.location import with_location

PATIENCE = 64  # how often a program takes the same answer before it gives up its turn
ENDLESS = 2_000  # and before it is said to wait for ever, if nobody else can go on

Program = tuple[int, ...]


class EndlessWait(Exception):
    """All programs that are left wait for something that no program will do."""


class _Abandoned(BaseException):
    """Ends a program that waits when the launch has failed elsewhere."""


class _Waiting:
    """A program that has given up its turn."""

    def __init__(self, program: Program, changes: int) -> None:
        self.program = program
        self.changes = changes  # how many there had been when it last looked
        self.turn = threading.Semaphore(0)


class _Turns:
    """The programs of one launch."""

    def __init__(self, programs: Sequence[Program], body: Callable[[], Any]) -> None:
        self.left = deque(programs)
        self.body = body
        self.waiting: deque[_Waiting] = deque()
        self.changes = 0  # stores and atomics so far
        self.failure: BaseException | None = None
        self.threads: list[threading.Thread] = []
        self.ended = threading.Semaphore(0)
        self.answers: dict[tuple[str, int], tuple[Any, int]] = {}

    def run(self) -> None:
        """Begin programs until none is left, then let those that wait go on."""
        while self.left and self.failure is None:
            self.enter(self.left.popleft())
            try:
                self.body()
            except _Abandoned:
                pass  # the failure is known
            except Exception as error:
                self.fail(error)
        self.pass_on()

    def enter(self, program: Program) -> None:
        """Let the builder and the counts be this program's."""
        upstream.interpreter_builder.set_grid_idx(*program)
        self.answers = {}

    def fail(self, error: BaseException) -> None:
        """End the launch: every program that waits is abandoned."""
        failure = InterpreterError(repr(error))
        failure.__cause__ = error
        self.failure = with_location(failure)
        self.failure.__cause__ = error

    def pass_on(self) -> None:
        """Give the turn away for good: to one that waits, or back to the launch."""
        if self.waiting:
            self.next_waiting().turn.release()
        else:
            self.ended.release()

    def next_waiting(self) -> _Waiting:
        """Take the one that has waited longest among those for which something has changed."""
        for waiting in self.waiting:
            if waiting.changes != self.changes:
                self.waiting.remove(waiting)
                return waiting
        return self.waiting.popleft()

    def others_can_go_on(self) -> bool:
        """Say whether a program is left, or something has changed since one of them waited."""
        return bool(self.left) or any(w.changes != self.changes for w in self.waiting)

    def wait(self) -> None:
        """Give up the turn of the running program, and return when it has it again."""
        mine = _Waiting(upstream.interpreter_builder.grid_idx, self.changes)
        if self.left:
            context = contextvars.copy_context()  # NumPy's error state
            thread = threading.Thread(target=context.run, args=(self.run,), daemon=True)
            self.threads.append(thread)
            self.waiting.append(mine)
            thread.start()
        else:
            other = self.next_waiting()
            self.waiting.append(mine)
            other.turn.release()
        mine.turn.acquire()
        if self.failure is not None:
            raise _Abandoned
        self.enter(mine.program)


_running: list[_Turns] = []


def in_turns(programs: Sequence[Program], body: Callable[[], Any]) -> None:
    """Run `body` once for each program.

    Parameters
    ----------
    programs : sequence of tuple of int
        Their indices in the grid, in the order in which they begin.
    body : callable
        What a program does.

    Raises
    ------
    InterpreterError
        If a program raises, or if all that are left wait for ever (`EndlessWait` is the cause).
    """
    turns = _Turns(programs, body)
    _running.append(turns)
    try:
        turns.run()
        turns.ended.acquire()
    finally:
        _running.remove(turns)
        for thread in turns.threads:
            thread.join()
    if turns.failure is not None:
        raise turns.failure


def answered(kind: str, address: int, answer: Any) -> None:
    """Note what a program was answered; the same answer again and again makes it wait.

    Parameters
    ----------
    kind : str
        "load" or "atomic".
    address : int
        Of the scalar that it asked for.
    answer : object
        What it holds.
    """
    if not _running:
        return
    turns = _running[-1]
    before, times = turns.answers.get((kind, address), (None, 0))
    times = times + 1 if before == answer else 0
    turns.answers[kind, address] = answer, times
    if times >= PATIENCE and turns.others_can_go_on():
        turns.wait()
    elif times >= ENDLESS:
        others = f"; {len(turns.waiting)} other programs wait, too" if turns.waiting else ""
        raise EndlessWait(f"this program waits for what no program will do{others}")


def changed() -> None:
    """Note that the running program has changed memory."""
    if _running:
        _running[-1].changes += 1
        _running[-1].answers = {}
