"""An mbarrier, as PTX defines it, and what must hold whatever the order.

A phase ends when as many have arrived as `init` said, and all expected bytes have been copied; then
the next begins. A waiter names a parity: it passes if the phase that is going on has the other one,
so the phase before it, which had that parity, is over. At first parity 1 is.

The order in which partitions run must not matter, so that one run stands for all:

- who arrives knows that the phase before is over: the arrival cannot count for that one;
- who waits for a phase knows that the one before is over: the wait cannot pass two phases early;
- a phase ends only if those who arrive know that all waits for the one before have passed.

Then every arrival counts for the same phase, and every wait is for the same phase, in any order. A
phase that has ended stays ended, so none that can go on is ever stopped by another: who deadlocks
in one order deadlocks in all.
"""

import dataclasses

from .program import InFlight, Program, Stopped


@dataclasses.dataclass(eq=False)
class Phase:
    """One phase of a barrier.

    Attributes
    ----------
    pending, bytes : int
        Arrivals that are missing, and bytes expected that have not come.
    contributions : int
        The events that end it: arrivals and copies.
    knows, fenced : int
        What those knew who arrived: all this has happened before the phase ends.
    copies : list of InFlight
        Those that are to bring its bytes.
    waits : list of (int, str, str)
        Event, line and partition of each wait that has seen it end.
    """

    pending: int
    bytes: int = 0
    contributions: int = 0
    knows: int = 0
    fenced: int = 0
    copies: list[InFlight] = dataclasses.field(default_factory=list)
    waits: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)


class Barrier:
    """One mbarrier.

    Parameters
    ----------
    program : Program
    name : str
        Such as "k_full[1]".
    """

    def __init__(self, program: Program, name: str) -> None:
        self.program = program
        self.name = name
        self.count = 0  # 0 if not initialised
        self.initialised = 0  # the event
        self.phases: list[Phase] = []  # the last is going on; the first is "the one before 0"

    @property
    def number(self) -> int:
        """The phase that is going on; -1 stands for what is over at first."""
        return len(self.phases) - 2

    # --- what a kernel does -----------------------------------------------------------------------

    def init(self, count: int) -> None:
        """Begin phase 0, which `count` arrivals end."""
        if self.count:
            self.program.find("not initialised", self.name, "it is initialised twice")
        if count < 1:
            self.program.find("not initialised", self.name, f"its count is {count}")
            raise Stopped
        self.count = count
        self.initialised = self.program.step()
        self.phases = [Phase(0), Phase(count)]

    def invalidate(self) -> None:
        """End its life: nobody may use it any more."""
        self.ready()
        for number, phase in enumerate(self.phases, start=-1):
            if phase.contributions & ~self.program.agent.knows:
                self.program.find(
                    "not initialised", self.name,
                    f"it is invalidated, and nothing orders that after phase {number}",
                )  # fmt: skip
            self._seen_by(phase, self.program.agent.knows, "it is invalidated")
        self.count = 0

    def arrive(self, count: int = 1, bytes: int = 0) -> None:
        """Arrive `count` times, and expect `bytes` more."""
        self.ready()
        self._joins("arrives")
        phase, agent = self.phases[-1], self.program.agent
        if count > phase.pending:
            self.program.find(
                "arrives too often", self.name,
                f"phase {self.number} lacks {phase.pending} of {self.count} arrivals, "
                f"and this makes {count}",
            )  # fmt: skip
        phase.bytes += bytes
        phase.pending = max(0, phase.pending - count)
        phase.contributions |= self.program.step()
        phase.knows |= agent.knows
        phase.fenced |= agent.fenced
        self._may_end()

    def brings(self, copy: InFlight) -> None:
        """Note that a copy that is being issued will bring bytes to the phase that is going on."""
        self.ready()
        self._joins("copies")
        if self.program.strict and not self.initialised & self.program.agent.fenced:
            detail = "mbarrier.init is done through registers, and TMA is to count here"
            self.program.find("missing fence", self.name, detail)
        self.phases[-1].copies.append(copy)

    def land(self, copy: InFlight, bytes: int) -> None:
        """Count the bytes of a copy that has ended."""
        if not self.count:
            self.program.find(
                "not initialised", self.name, "a copy ends at a barrier that is invalidated",
                copy.where, copy.agent,
            )  # fmt: skip
            return
        phase = self.phases[-1]
        if copy not in phase.copies:
            self.program.find(
                "wrong bytes", self.name, f"its phase has ended without the {bytes} bytes of this",
                copy.where, copy.agent,
            )  # fmt: skip
            return
        phase.bytes -= bytes
        phase.contributions |= copy.event
        phase.knows |= copy.event
        if not phase.pending and phase.bytes < 0:
            self.program.find(
                "wrong bytes", self.name,
                f"phase {self.number}: the copies bring {-phase.bytes} bytes more than expected",
                copy.where, copy.agent,
            )  # fmt: skip
            phase.bytes = 0
        self._may_end()

    def passes(self, parity: int) -> bool:
        """Say whether a wait passes now."""
        return self.number % 2 != parity % 2

    def passed(self) -> None:
        """Let the running agent know what a wait that passes tells it."""
        before, over = [Phase(0), *self.phases][-3:-1]  # the last is going on
        agent = self.program.agent
        if before.contributions & ~agent.knows:
            self.program.find(
                "wait passes early", self.name,
                f"phase {self.number - 1} was found, phase {self.number - 3} may be",
            )  # fmt: skip
        agent.learn(over.knows, over.fenced)
        over.waits.append((self.program.step(), self.program.line(), agent.name))

    def awaited(self, parity: int) -> str:
        """Say what a wait that does not pass waits for."""
        phase = self.phases[-1]
        lacks = []
        if phase.pending:
            lacks.append(f"{phase.pending} of {self.count} arrivals")
        if phase.bytes:
            lacks.append(f"{phase.bytes} bytes")
        of = f"phase {self.number} of {self.name} (parity {parity % 2})"
        return f"{of}, which lacks {' and '.join(lacks)}"

    # --- what must hold ---------------------------------------------------------------------------

    def ready(self) -> None:
        """Report a use before it is initialised, and end the program if it never is."""
        if not self.count:
            self.program.find("not initialised", self.name, "nobody has called mbarrier.init")
            raise Stopped
        if not self.initialised & self.program.agent.knows:
            self.program.find("not initialised", self.name, "nothing orders this after its init")

    def _joins(self, does: str) -> None:
        """Report what may count for the phase before."""
        if self.phases[-2].contributions & ~self.program.agent.knows:
            self.program.find(
                "arrives too early", self.name,
                f"it {does} in phase {self.number}, and nothing orders it after phase "
                f"{self.number - 1}",
            )  # fmt: skip

    def _may_end(self) -> None:
        phase = self.phases[-1]
        if phase.pending or phase.bytes:
            return
        self._seen_by(self.phases[-2], phase.knows, f"phase {self.number} may end")
        for copy in phase.copies:
            if not copy.done:
                self.program.find(
                    "wrong bytes", self.name,
                    f"phase {self.number} ends while this copy goes on", copy.where, copy.agent,
                )  # fmt: skip
        self.phases.append(Phase(self.count))

    def _seen_by(self, phase: Phase, knows: int, what: str) -> None:
        """Report waits for a phase that may come after the next has ended."""
        for event, where, agent in phase.waits:
            if not event & knows:
                self.program.find(
                    "phase missed", self.name, f"{what}, and nothing orders that after this wait",
                    where, agent,
                )  # fmt: skip
