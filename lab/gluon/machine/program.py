"""A program's events, and who knows of them: happened-before, as sets of events.

Whatever may race with something is an event, and an event is one bit of an integer. An agent (a
partition) has the set of the events that it knows to be over. It knows its own; a barrier hands it
what those knew who arrived. So A happened before B if whoever does B knows A, whatever the order in
which this run happened to do them: one run finds a race.

What is in flight (a copy, a product) is an event that nobody knows before it is waited for.
"""

import dataclasses
from collections.abc import Callable, Iterable

from .findings import Finding


@dataclasses.dataclass(eq=False)
class Agent:
    """Who acts in program order: a partition, or the kernel outside of `warp_specialize`.

    Attributes
    ----------
    name : str
        Its function.
    n_warps : int
    knows : int
        The events that have happened before whatever it does next.
    fenced : int
        Those of them that a fence has shown to the async proxy.
    products, stores, copies : list of list of InFlight
        Groups that it has not waited for, oldest first: warpgroup_mma, TMA stores, cp.async.
    uncommitted : list of InFlight
        Copies by cp.async that belong to no group yet.
    """

    name: str
    n_warps: int = 4
    knows: int = 0
    fenced: int = 0
    products: list[list["InFlight"]] = dataclasses.field(default_factory=list)
    stores: list[list["InFlight"]] = dataclasses.field(default_factory=list)
    copies: list[list["InFlight"]] = dataclasses.field(default_factory=list)
    uncommitted: list["InFlight"] = dataclasses.field(default_factory=list)

    def fence(self) -> None:
        """Show the async proxy all that has happened."""
        self.fenced |= self.knows

    def learn(self, knows: int, fenced: int) -> None:
        """Take over what another knew."""
        self.knows |= knows
        self.fenced |= fenced

    def wait_for(self, groups: list[list["InFlight"]], outstanding: int) -> None:
        """Wait until at most so many groups are in flight, the last ones."""
        while len(groups) > outstanding:
            for operation in groups.pop(0):
                operation.perform()
                self.knows |= operation.event


@dataclasses.dataclass(eq=False)
class InFlight:
    """An operation that goes on while its partition does: at the latest its wait performs it.

    Attributes
    ----------
    event : int
        Known to those who have waited.
    name, where, agent : str
        What it is, its line, and who issued it.
    knows, fenced : int
        What had happened before it was issued.
    effect : callable
        What it does to memory.
    """

    event: int
    name: str
    where: str
    agent: str
    knows: int
    fenced: int
    effect: Callable[[], None]
    done: bool = False

    def perform(self) -> None:
        """Do it, once."""
        if not self.done:
            self.done = True
            self.effect()

    def __str__(self) -> str:
        """Name it in a finding."""
        return f"{self.name} of {self.agent} at {self.where.rpartition('/')[2]}"


class Stopped(Exception):
    """The program cannot go on; what is wrong is among the findings."""


class Program:
    """One program of a launch: its events, what is in flight, and what was found.

    Parameters
    ----------
    kernel : str
        Its name.
    index : tuple of int
        Its place in the grid.
    grid : tuple of int
        How many there are.
    findings : dict
        Where findings go, by key; shared by all programs of a launch.
    strict : bool
        Whether a fence must stand, too, where Triton's compiler would add it, and between
        mbarrier.init and TMA, where PTX asks for it and kernels are known to run without.
    to_the_end : bool
        Whether to go on after a finding.
    line, line_of : callable
        Name the kernel's line that is being run, with its callers, and that at which an error
        was raised: "file:line < caller:line".
    """

    def __init__(
        self,
        kernel: str,
        index: tuple[int, ...],
        grid: tuple[int, ...],
        findings: dict[tuple, Finding],
        strict: bool,
        to_the_end: bool,
        line: Callable[[], str],
        line_of: Callable[[BaseException], str],
    ) -> None:
        self.kernel = kernel
        self.index = index
        self.grid = grid
        self.findings = findings
        self.strict = strict
        self.to_the_end = to_the_end
        self.line = line
        self.line_of = line_of
        self.agent = Agent(kernel)  # whose turn it is
        self.in_flight: list[InFlight] = []
        self.eager = False  # whether what is issued is done at once
        self.n_events = 0
        self.n_allocations = 0

    def event(self) -> int:
        """Make a new one."""
        self.n_events += 1
        return 1 << (self.n_events - 1)

    def step(self) -> int:
        """Make an event that the running agent knows: it acts in program order."""
        event = self.event()
        self.agent.knows |= event
        return event

    def issue(self, name: str, effect: Callable[[], None]) -> InFlight:
        """Let an operation begin, which nobody knows to be over; `launch` lets it go on."""
        agent = self.agent
        return InFlight(
            self.event(), name, self.line(), agent.name, agent.knows, agent.fenced, effect
        )

    def launch(self, operation: InFlight) -> None:
        """Let an operation take effect: at once, or when the schedule says so."""
        self.in_flight.append(operation)
        if self.eager:
            operation.perform()

    def find(
        self, kind: str, buffer: str, detail: str = "", where: str = "", agent: str = ""
    ) -> None:
        """Report a fault, at the line that is being run or another one; it may be the last."""
        finding = Finding(
            kind, where or self.line(), self.kernel, self.index, agent or self.agent.name, buffer,
            detail,
        )  # fmt: skip
        known = self.findings.setdefault(finding.key, finding)
        known.count += known is not finding
        if not self.to_the_end:
            raise Stopped

    def needs_fence(self, one: str, other: str) -> bool:
        """Say whether a kernel must have the fence between what two agents do, in this order.

        Triton 3.8 adds it where one partition does both, and does not look from one to another.
        """
        return self.strict or one != other

    def unfinished(self) -> Iterable[InFlight]:
        """List what the end of the program does not wait for."""
        return (op for op in self.in_flight if not op.event & self.agent.knows)
