"""Shadow memory: who touched each cell of the memory that one launch works on.

Every access of a launch has a number, its tick, from 1 on, and a program. Two accesses of one cell
by two programs, one of them a write, are a race, unless atomics put them in order: one program's
atomic releases what it did before, and another's later atomic on the same address acquires it. A
program is many threads, of which one does the atomic. It releases what all threads did up to the
last barrier, and after that only what a single lane did, which is that thread's own.

Within a program, too, a lane that loads what another lane has stored races with it, if no barrier
lies between; and a lane that overwrites what another has loaded, if nothing made the threads meet.
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
    dtype : torch.dtype or None
        Of an element; None if nothing is known but its size.
    """

    name: str
    storage: Storage
    start: int
    size: int
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    elements: np.ndarray | None
    dtype: torch.dtype | None = None

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
        start, dtype = tensor.data_ptr(), tensor.dtype
        return cls(name, storage, start, size, itemsize, shape, strides, elements, dtype)

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
    writer, reader, last_reader, atomic, atomic_reader : numpy.ndarray of int32
        The last write, the first and the last read, the last atomic that writes, the last that
        reads alone.
    write_lane, read_lane : numpy.ndarray of int32
        The lanes of the last write and of the last read.
    """

    _ARRAYS = (
        "writer", "reader", "last_reader", "atomic", "atomic_reader",
        "write_lane", "read_lane", "_lane",
    )  # fmt: skip

    def __init__(self, size: int, unit: int) -> None:
        self.unit = unit
        self.writer, self.reader, self.last_reader, self.atomic, self.atomic_reader = (
            np.zeros(-(-size // unit), dtype=np.int32) for _ in range(5)
        )
        self.write_lane, self.read_lane, self._lane = (
            np.zeros(-(-size // unit), dtype=np.int32) for _ in range(3)
        )

    def cells(self, positions: np.ndarray, itemsize: int) -> np.ndarray:
        """Return the cells of aligned items, [item] -> [item, cell]."""
        if itemsize < self.unit:
            times = self.unit // itemsize
            for name in self._ARRAYS:
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
_NOBODY: Program = (-1, -1, -1)


class VectorClock:
    """The ticks of one launch, and which of them atomics put before the running program's.

    Attributes
    ----------
    moments : list of (Program, str)
        For each tick the program, and its source line.
    """

    def __init__(self) -> None:
        self.moments: list[tuple[Program, str]] = [(_NOBODY, "")]  # tick 0 stands for nobody
        self._numbers: dict[Program, int] = {_NOBODY: 0}
        self._owner = np.zeros(1024, dtype=np.int32)  # the program's number, for each tick
        self._single = np.zeros(1024, dtype=bool)  # whether one lane alone did it
        self._barriers: dict[Program, tuple[int, int]] = {}  # the last barrier, the last exchange
        # For each address, and for each program, up to which tick another program's are released:
        # of all lanes, of single lanes.
        self._released: dict[int, dict[int, tuple[int, int]]] = {}
        self._acquired: dict[int, dict[int, tuple[int, int]]] = {}

    @property
    def now(self) -> int:
        """The last tick."""
        return len(self.moments) - 1

    def tick(self, program: Program, where: str, n_lanes: int = 1) -> None:
        """Begin an access of a program, on a source line."""
        self.moments.append((program, where))
        if self.now == len(self._owner):
            self._owner = np.concatenate([self._owner, np.zeros_like(self._owner)])
            self._single = np.concatenate([self._single, np.zeros_like(self._single)])
        self._owner[self.now] = self._numbers.setdefault(program, len(self._numbers))
        self._single[self.now] = n_lanes == 1

    def barrier(self, program: Program, *, memory: bool) -> None:
        """Note that a program's threads met; unless for `memory`, to exchange values."""
        last, _ = self._barriers.get(program, (0, 0))
        self._barriers[program] = (self.now if memory else last), self.now

    def others(self, ticks: np.ndarray) -> np.ndarray:
        """Say which ticks are another program's."""
        return (ticks > 0) & (self._owner[ticks] != self._owner[self.now])

    def unordered(self, ticks: np.ndarray, *, met: bool = False) -> np.ndarray:
        """Say which ticks are of the running program, and after its last barrier.

        With `met`, after any operation that made its threads meet.
        """
        last = self._barriers.get(self.moments[-1][0], (0, 0))[met]
        return (ticks > last) & (self._owner[ticks] == self._owner[self.now])

    def conflicts(self, ticks: np.ndarray) -> np.ndarray:
        """Say which ticks are another program's and in no order with the running one."""
        others = self.others(ticks)
        acquired = self._acquired.get(int(self._owner[self.now]))
        if acquired and others.any():
            for i in np.argwhere(others):
                tick = ticks[tuple(i)]
                all_lanes, one_lane = acquired.get(int(self._owner[tick]), (0, 0))
                others[tuple(i)] = tick > (one_lane if self._single[tick] else all_lanes)
        return others

    def was_released(self, tick: int) -> bool:
        """Say whether only a barrier is missing between a tick and its program's release."""
        acquired = self._acquired.get(int(self._owner[self.now]), {})
        return tick <= acquired.get(int(self._owner[tick]), (0, 0))[1]

    def synchronise(self, addresses: np.ndarray, kind: str = "atomic") -> None:
        """Let the running program's atomic acquire (not a store) and release (not a load)."""
        program = self.moments[-1][0]
        mine = int(self._owner[self.now])
        acquired = self._acquired.setdefault(mine, {})
        barrier = self._barriers.get(program, (0, 0))[0]
        for address in np.unique(addresses).tolist():
            released = self._released.setdefault(address, {})
            if kind != "store":
                for other, ticks in released.items():
                    before = acquired.get(other, (0, 0))
                    acquired[other] = max(before[0], ticks[0]), max(before[1], ticks[1])
            if kind == "store":
                released.clear()  # what an earlier one left there is overwritten
            if kind != "load":
                released.update(acquired)
                released[mine] = barrier, self.now
