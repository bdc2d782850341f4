"""One pass over a launch, and what memory held before and after it."""

import dataclasses
from typing import Any

import numpy as np

from ...kernels import interpreter
from .shadow import Argument, Shadow, VectorClock
from .storages import Storage, memory_of

# What an event leaves undefined, and the kind of a finding that comes of it.
UNDEFINED = {"division by zero": "division by zero", "shift": "shift too wide"}


@dataclasses.dataclass(eq=False)
class Pass:
    """One pass over a launch: who touched what, and what memory held before.

    Attributes
    ----------
    launch : Launch
    arguments : list of Argument
        As numbered in pointers, from 1 on.
    clock : VectorClock
    shadows : dict
        Of each storage that was touched.
    before : dict
        Of each storage that was written: its bytes, and which of them were unwritten.
    undefined : list of (str, str)
        What left values undefined: "load" or an event's kind, and the line.
    """

    launch: interpreter.Launch
    arguments: list[Argument]
    clock: VectorClock = dataclasses.field(default_factory=VectorClock)
    shadows: dict[Storage, Shadow] = dataclasses.field(default_factory=dict)
    before: dict[Storage, "Memory"] = dataclasses.field(default_factory=dict)
    undefined: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def why_undefined(self) -> str:
        """Name the lines that left values undefined."""
        loads = ", ".join(short(where) for what, where in self.undefined if what == "load")
        others = [f"{what} at {short(where)}" for what, where in self.undefined if what != "load"]
        said = [f"lanes were left undefined by the load at {loads}"] if loads else []
        return "; ".join(said + others)

    def last_touch(self, storage: Storage, byte: int) -> int:
        """Return the tick of the last store or atomic at a byte; 0 if there was none."""
        shadow = self.shadows.get(storage)
        if shadow is None:
            return 0
        cell = byte // shadow.unit
        return int(max(shadow.writer[cell], shadow.atomic[cell]))

    def argument_of(self, storage: Storage) -> Argument:
        """Find the argument that lies in a storage, or describe the whole of it."""
        owners = [argument for argument in self.arguments if argument.storage is storage]
        return owners[0] if owners else Argument.whole(storage, self.shadows[storage].unit)


@dataclasses.dataclass(frozen=True, eq=False)
class Items:
    """Those items of one access that lie in one argument: their bytes there, and their lanes."""

    access: interpreter.Access
    argument: Argument
    addresses: np.ndarray
    lanes: np.ndarray

    def where(self, which: np.ndarray) -> "Items":
        """Choose some of them."""
        return dataclasses.replace(self, addresses=self.addresses[which], lanes=self.lanes[which])

    @property
    def positions(self) -> np.ndarray:
        """The items' first bytes, counted from the storage's."""
        return self.addresses - self.argument.storage.start


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """What a storage held."""

    contents: np.ndarray
    unwritten: np.ndarray | None

    @classmethod
    def of(cls, storage: Storage) -> "Memory":
        """Copy what a storage holds now."""
        unwritten = None if storage.unwritten is None else storage.unwritten.copy()
        return cls(memory_of(storage).copy(), unwritten)

    def restore(self, storage: Storage) -> None:
        """Let the storage hold it again."""
        memory_of(storage)[:] = self.contents
        storage.unwritten = None if self.unwritten is None else self.unwritten.copy()


def kind_of(done: Pass) -> str:
    """Name the kind of a finding by what left values undefined."""
    whats = {what for what, _ in done.undefined}
    return UNDEFINED[whats.pop()] if len(whats) == 1 and "load" not in whats else "undefined lane"


def restore(memories: dict[Storage, Memory]) -> None:
    """Let storages hold again what they held."""
    for storage, memory in memories.items():
        memory.restore(storage)


def difference_of(
    first: Pass, second: Pass, after: dict[Storage, Memory]
) -> tuple[Pass, Storage, int] | None:
    """Find the first byte that a second pass left otherwise, and the pass that wrote it."""
    written = {**first.before, **second.before}
    in_order = [a.storage for a in first.arguments if a.storage in written]
    for storage in dict.fromkeys([*in_order, *written]):
        # what the first did not write is as it was before the second
        left = after[storage] if storage in after else second.before[storage]
        different = np.flatnonzero(left.contents != memory_of(storage))
        if len(different):
            byte = int(different[0])
            return (first if first.last_touch(storage, byte) else second), storage, byte
    return None


# What is known of an undefined lane, the worse the later.
RANKS = ("", "zeros on today's compilers", "wrong even with zeros")


def rank_of(first: Pass, zeros: dict[Storage, Memory], without: dict[Storage, Memory]) -> str:
    """Compare what zeros leave with what is left where undefined lanes take no part."""
    for storage in first.before:
        one, other = zeros[storage].contents, without[storage].contents
        different = one != other
        argument = first.argument_of(storage)
        offset = (argument.start - storage.start) % argument.itemsize
        items = other[
            offset : offset + (len(other) - offset) // argument.itemsize * argument.itemsize
        ]
        lost = np.repeat(interpreter.holds_poison(items, argument.dtype), argument.itemsize)
        different[offset : offset + len(lost)] &= ~lost
        if different.any():
            return RANKS[2]
    return RANKS[1]


def numbers(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Fill undefined lanes with small numbers and large ones, where poison is below or beyond."""
    lanes = np.arange(int(np.prod(shape))).reshape(shape)
    return interpreter.narrow(np.where(lanes % 2, 100, 0), dtype).data


def zeros(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Fill undefined lanes as today's compilers do."""
    return interpreter.narrow(np.zeros(shape), dtype).data


def short(where: str) -> str:
    """Leave out the folders of "file:line"."""
    return where.rpartition("/")[2]
