"""Shared memory: who has touched what, and whether the next one knows of it.

There are two ways to it. Registers go through the generic proxy, TMA and warpgroup_mma through the
async proxy, and what the first did is not seen by the second unless a fence stands between them.
"""

import dataclasses
from typing import Any

import numpy as np

from .barrier import Barrier
from .program import InFlight, Program


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """Some elements of an allocation.

    Attributes
    ----------
    positions : numpy.ndarray
        Counted along memory.
    first, last : int
    solid : bool
        Whether all between first and last are among them.
    """

    positions: np.ndarray
    first: int
    last: int
    solid: bool

    @classmethod
    def at(cls, positions: np.ndarray) -> "Cells":
        """Describe positions, each of which occurs once."""
        first, last = int(positions.min()), int(positions.max())
        return cls(positions, first, last, last - first + 1 == positions.size)

    def meets(self, other: "Cells") -> bool:
        """Say whether an element is in both."""
        if self.last < other.first or other.last < self.first:
            return False
        return (self.solid and other.solid) or bool(np.isin(self.positions, other.positions).any())

    def covers(self, other: "Cells") -> bool:
        """Say whether all of the other are in this."""
        return self.solid and self.first <= other.first and other.last <= self.last


@dataclasses.dataclass(frozen=True, eq=False)
class Access:
    """One read or write: an agent's, or of what is in flight.

    Attributes
    ----------
    event, knows, fenced : int
        As of the agent, or of the operation in flight.
    writes, is_async : bool
        Whether it writes, and whether it comes through the async proxy.
    name, where, agent : str
        What it is, its line, and whose.
    """

    event: int
    knows: int
    fenced: int
    writes: bool
    is_async: bool
    name: str
    where: str
    agent: str

    @classmethod
    def now(cls, program: Program, name: str, writes: bool) -> "Access":
        """Describe what the running agent does through registers."""
        agent = program.agent
        event = program.step()
        return cls(
            event, agent.knows, agent.fenced, writes, False, name, program.line(), agent.name
        )

    @classmethod
    def of(cls, operation: InFlight, writes: bool, is_async: bool = True) -> "Access":
        """Describe what an operation in flight does."""
        op = operation
        return cls(op.event, op.knows, op.fenced, writes, is_async, op.name, op.where, op.agent)

    def __str__(self) -> str:
        """Name it in a finding."""
        return f"{self.name} of {self.agent} at {self.where.rpartition('/')[2]}"


class Allocation:
    """What one `allocate_shared_memory` gives.

    Parameters
    ----------
    program : Program
    name : str
        The kernel's name for it.
    shape : tuple of int
        Its first axis counts stages, if it has more than `tile_rank` axes.
    numbers : numpy.dtype
        What holds its elements.
    """

    def __init__(self, program: Program, name: str, shape: tuple[int, ...], numbers: Any) -> None:
        self.program = program
        self.name = name
        self.shape = shape
        self.values = np.zeros(int(np.prod(shape)), dtype=numbers)
        self.written = np.zeros(self.values.size, dtype=bool)
        self.accesses: list[tuple[Access, Cells]] = []
        self.barriers: dict[int, Barrier] = {}

    def part(self, cells: Cells) -> str:
        """Name a part by its stage."""
        stage_size = self.values.size // self.shape[0]
        first, last = cells.first // stage_size, cells.last // stage_size
        whole = len(self.shape) < 2 or (first, last) == (0, self.shape[0] - 1)
        if whole and self.shape[0] > 1:
            return self.name
        return f"{self.name}[{first}]" if first == last else f"{self.name}[{first}:{last + 1}]"

    def barrier(self, positions: np.ndarray) -> Barrier:
        """Give the mbarrier that lies there."""
        (position,) = positions.reshape(-1)[:1]
        name = self.name if self.values.size == 1 else f"{self.name}[{position}]"
        return self.barriers.setdefault(int(position), Barrier(self.program, name))

    def touch(self, cells: Cells, access: Access) -> None:
        """Take up an access, and report what it races with."""
        for other, there in self.accesses:
            if (access.writes or other.writes) and cells.meets(there):
                self._judge(access, other, cells)
        if not access.writes and not self.written[cells.positions].all():
            self._find("read before it is filled", access, cells, "nothing has written all of it")
        if access.writes:
            self.written[cells.positions] = True
            # Who knows of this write knows that what it covers is over, or that has been reported.
            kept = ((other, there) for other, there in self.accesses if not cells.covers(there))
            self.accesses = [*kept]
        self.accesses.append((access, cells))

    def _judge(self, access: Access, other: Access, cells: Cells) -> None:
        if not other.event & access.knows:
            kind = (
                "read before it is filled"
                if not access.writes
                else "unordered writes"
                if other.writes
                else "overwritten while read"
            )
            self._find(kind, access, cells, f"nothing orders the {other} before it")
            return
        hidden = access.is_async and not other.is_async and not other.event & access.fenced
        if hidden and self.program.needs_fence(other.agent, access.agent):
            does = "wrote" if other.writes else "read"
            self._find("missing fence", access, cells, f"the {other} {does} it through registers")

    def _find(self, kind: str, access: Access, cells: Cells, detail: str) -> None:
        detail = f"{access.name}: {detail}"
        self.program.find(kind, self.part(cells), detail, access.where, access.agent)
