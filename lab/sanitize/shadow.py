"""Shadow memory: who touched each cell of the memory that one launch works on.

Every access of a launch has a number, its tick, from 1 on. Programs run one after another, so a
cell that an earlier program touched holds a tick below the running program's first. Two accesses of
one cell by two programs, one of them a write, are a race, unless atomics put them in order: one
program's atomic releases all that it did before, and another's later atomic on the same address
acquires it.
"""

import dataclasses

import numpy as np
import torch

from .storages import Storage, element_positions, item_bytes


@dataclasses.dataclass(frozen=True, eq=False)
class Argument:
    """A tensor that a kernel was given, as the sanitizer sees it.

    Attributes
    ----------
    name : str
        Of the kernel's parameter; "" for memory that is reached through an address in memory.
    storage : Storage
        What it lies in.
    start : int
        Address of its first element.
    size : int
        Bytes from there to the end of its last element.
    itemsize : int
        Bytes of an element.
    shape, strides : tuple of int
        In elements.
    elements : numpy.ndarray of bool or None
        For each of `size` bytes whether it belongs to an element; None if all do.
    """

    name: str
    storage: Storage
    start: int
    size: int
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    elements: np.ndarray | None

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor, storage: Storage) -> "Argument":
        """Describe a tensor."""
        itemsize, shape, strides = tensor.element_size(), tuple(tensor.shape), tensor.stride()
        size, elements = 0, None
        if tensor.numel():
            extents = zip(shape, strides, strict=True)
            size = (1 + sum((n - 1) * stride for n, stride in extents)) * itemsize
            if size != tensor.numel() * itemsize or 0 in strides:
                elements = np.zeros(size, dtype=bool)
                elements[item_bytes(element_positions(tensor), itemsize)] = True
                elements = None if elements.all() else elements
        return cls(name, storage, tensor.data_ptr(), size, itemsize, shape, strides, elements)

    @classmethod
    def whole(cls, storage: Storage, itemsize: int) -> "Argument":
        """Describe a storage that no argument leads to."""
        size = storage.end - storage.start
        return cls("", storage, storage.start, size, itemsize, (size // itemsize,), (1,), None)

    def misses(self, addresses: np.ndarray, itemsize: int) -> np.ndarray:
        """Say which items of `itemsize` bytes do not lie in the tensor's elements."""
        positions = addresses - self.start
        missing = (positions < 0) | (positions + itemsize > self.size)
        if self.elements is not None:
            inside = ~missing
            touched = self.elements[item_bytes(positions[inside], itemsize)]
            missing[inside] = ~touched.all(axis=-1)
        return missing

    def index(self, address: int) -> tuple[int, ...]:
        """Give the index of the element at an address; one number, in elements, if there is none.

        The number counts from the tensor's first element, along memory.
        """
        element = (address - self.start) // self.itemsize
        if self.misses(np.array([address]), 1)[0] or 0 in self.strides:
            return (element,)
        index, rest = {}, element
        for axis in sorted(range(len(self.shape)), key=lambda a: self.strides[a], reverse=True):
            index[axis], rest = divmod(rest, self.strides[axis])
        found = tuple(index[axis] for axis in range(len(self.shape)))
        inside = all(i < n for i, n in zip(found, self.shape, strict=True)) and rest == 0
        return found if inside else (element,)


class Shadow:
    """For each cell of a storage the ticks of those who touched it in this launch; 0: nobody.

    Attributes
    ----------
    unit : int
        Bytes of a cell: the smallest item that was accessed.
    writer, reader, atomic : numpy.ndarray of int32
        The last write, the first read, the first atomic.
    """

    def __init__(self, size: int, unit: int) -> None:
        self.unit = unit
        self.writer, self.reader, self.atomic, self._lane = (
            np.zeros(-(-size // unit), dtype=np.int32) for _ in range(4)
        )

    def cells(self, positions: np.ndarray, itemsize: int) -> np.ndarray:
        """Return the cells of aligned items, [item] -> [item, cell]."""
        if itemsize < self.unit:
            times = self.unit // itemsize
            for name in ("writer", "reader", "atomic", "_lane"):
                setattr(self, name, np.repeat(getattr(self, name), times))
            self.unit = itemsize
        cells = positions // self.unit
        return cells[:, None] + np.arange(itemsize // self.unit)

    def repeated(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find items of one access that share memory: which, and with which other item."""
        first = cells[:, 0]
        self._lane[first] = np.arange(len(first))
        same = np.flatnonzero(self._lane[first] != np.arange(len(first)))
        return same, self._lane[first[same]]


Program = tuple[int, int, int]


class VectorClock:
    """The ticks of one launch, and which of them atomics put before the running program's.

    Attributes
    ----------
    moments : list of (Program, str)
        For each tick the program, and its source line.
    first : int
        The running program's first tick.
    """

    def __init__(self) -> None:
        self.moments: list[tuple[Program, str]] = [((-1, -1, -1), "")]  # tick 0 stands for nobody
        self.first = 1
        self._released: dict[int, dict[Program, int]] = {}
        self._acquired: dict[Program, int] = {}

    @property
    def now(self) -> int:
        """The last tick."""
        return len(self.moments) - 1

    def tick(self, program: Program, where: str) -> None:
        """Begin an access of a program, on a source line."""
        if program != self.moments[-1][0]:
            self.first = len(self.moments)
            self._acquired = {}
        self.moments.append((program, where))

    def others(self, ticks: np.ndarray) -> np.ndarray:
        """Say which ticks are another program's."""
        return (ticks > 0) & (ticks < self.first)

    def conflicts(self, ticks: np.ndarray) -> np.ndarray:
        """Say which ticks are another program's and in no order with the running one."""
        others = self.others(ticks)
        if self._acquired and others.any():
            for i in np.argwhere(others):
                tick = ticks[tuple(i)]
                others[tuple(i)] = self._acquired.get(self.moments[tick][0], 0) < tick
        return others

    def synchronise(self, addresses: np.ndarray) -> None:
        """Let the running program's atomic acquire and release at these addresses."""
        program = self.moments[-1][0]
        for address in np.unique(addresses).tolist():
            released = self._released.setdefault(address, {})
            for other, tick in released.items():
                self._acquired[other] = max(tick, self._acquired.get(other, 0))
            released.update(self._acquired)
            released[program] = self.now
