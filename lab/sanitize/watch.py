"""One instrumented run: each access of each launch is checked before memory is touched."""

import ctypes
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...kernels import interpreter
from .shadow import Argument, Shadow, VectorClock
from .storages import Storage, Storages
from .violation import KINDS, Violation, bounds_of


@dataclasses.dataclass(eq=False)
class Written:
    """What a launch left in the memory of one argument, and who touched it."""

    argument: Argument
    memory: np.ndarray  # a copy, in bytes
    shadow: Shadow


@dataclasses.dataclass(eq=False)
class Done:
    """A launch: its clock, what it wrote, and the lines of loads that left lanes undefined."""

    launch: interpreter.Launch
    arguments: list[Argument]
    clock: VectorClock = dataclasses.field(default_factory=VectorClock)
    written: list[Written] = dataclasses.field(default_factory=list)
    careless: list[str] = dataclasses.field(default_factory=list)

    def left_undefined(self) -> str:
        """Name the loads that left lanes undefined."""
        lines = ", ".join(map(_short, self.careless))
        return f"lanes were left undefined by the load at {lines}" if lines else ""


@dataclasses.dataclass(frozen=True, eq=False)
class _Items:
    """Those items of one access that lie in one argument: their bytes there, and their lanes."""

    access: interpreter.Access
    argument: Argument
    addresses: np.ndarray
    lanes: np.ndarray

    def where(self, which: np.ndarray) -> "_Items":
        return dataclasses.replace(self, addresses=self.addresses[which], lanes=self.lanes[which])

    @property
    def positions(self) -> np.ndarray:
        """The items' first bytes, counted from the storage's."""
        return self.addresses - self.argument.storage.start


class Watch:
    """Follows one run of an operation.

    Parameters
    ----------
    storages : Storages
        The memory.
    is_input : callable
        Says whether a storage is the caller's, not to be written.
    order : callable
        Gives the order of so many programs.

    Attributes
    ----------
    violations : dict
        `Violation.key` to the first violation with it, which counts the rest.
    inputs_written : dict
        The same for writes to inputs, to the storages that were written.
    done : list of Done
        The launches so far.
    n_accesses : int
        Loads, stores and atomics so far.
    """

    def __init__(
        self,
        storages: Storages,
        is_input: Callable[[Storage], bool],
        order: Callable[[int], Sequence[int]] = range,
    ) -> None:
        self.storages = storages
        self.violations: dict[tuple[str, str, str], Violation] = {}
        self.inputs_written: dict[tuple[str, str, str], set[Storage]] = {}
        self.done: list[Done] = []
        self.n_accesses = 0
        self.order = order
        self._is_input = is_input
        self._shadows: dict[Storage, Shadow] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Check every launch while the context lasts."""
        with interpreter.follow(self), interpreter.observe(self.check), self.storages:
            yield

    # --- a follower of launches -------------------------------------------------------------------

    def start(self, launch: interpreter.Launch) -> None:
        """Take up the arguments; nobody has touched them in this launch."""
        self.storages.forget_freed()
        arguments = [
            Argument.of(name, tensor, self.storages.of(tensor)) for name, tensor in launch.tensors
        ]
        self._shadows = {}
        self.done.append(Done(launch, arguments))

    def finish(self) -> None:
        """Keep what the launch wrote."""
        for storage, shadow in self._shadows.items():
            if shadow.writer.any() or shadow.atomic.any():
                owners = [a for a in self.done[-1].arguments if a.storage is storage]
                argument = owners[0] if owners else Argument.whole(storage, shadow.unit)
                memory = _memory(storage).copy()
                self.done[-1].written.append(Written(argument, memory, shadow))

    # --- an observer of accesses ------------------------------------------------------------------

    def check(self, access: interpreter.Access) -> np.ndarray | None:
        """Check one access; return the lanes that must not touch memory."""
        launch = self.done[-1]
        self.n_accesses += 1
        launch.clock.tick(access.program, access.where)
        if access.leaves_undefined and access.where not in launch.careless:
            launch.careless.append(access.where)
        refused = np.zeros(access.mask.size, dtype=bool)
        for items in self._by_argument(access, refused):
            missing = items.argument.misses(items.addresses, access.itemsize)
            misaligned = ~missing & (items.addresses % access.itemsize != 0)
            if missing.any():
                self._find_missing(items.where(missing))
                refused[items.lanes[missing]] = True
            if misaligned.any():
                self._find("misaligned", items.where(misaligned))
            good = ~(missing | misaligned)
            if good.all():
                self._check_items(items)
            elif good.any():
                self._check_items(items.where(good))
        return refused.reshape(access.mask.shape) if refused.any() else None

    def _by_argument(self, access: interpreter.Access, refused: np.ndarray) -> Iterator[_Items]:
        """Tell an access's active lanes apart by the tensors that their pointers came from."""
        lanes = np.flatnonzero(access.mask)
        addresses = access.addresses.reshape(-1)[lanes].astype(np.int64)
        assert access.tensors is not None, "launches are followed"
        numbers = access.tensors.reshape(-1)[lanes]
        for number in np.unique(numbers):
            own = numbers == number
            if number:
                argument = self.done[-1].arguments[number - 1]
                yield _Items(access, argument, addresses[own], lanes[own])
                continue
            lost = own  # an address that was read from memory
            for storage in self.storages.at(addresses[own]):
                inside = own & (storage.start <= addresses) & (addresses < storage.end)
                argument = Argument.whole(storage, access.itemsize)
                yield _Items(access, argument, addresses[inside], lanes[inside])
                lost = lost & ~inside
            if lost.any():
                refused[lanes[lost]] = True
                self._find_lost(access, addresses[lost])

    def _check_items(self, items: _Items) -> None:
        """Check items that lie in their tensor, and note who touched them."""
        access, storage = items.access, items.argument.storage
        if access.kind != "store":
            unwritten = storage.is_unwritten(items.positions, access.itemsize)
            if unwritten.any():
                self._find("unwritten read", items.where(unwritten))
        if access.kind != "load":
            if self._is_input(storage):
                self._find("write to an input", items)
                key = "write to an input", access.where, items.argument.name
                self.inputs_written.setdefault(key, set()).add(storage)
            undefined = access.stores_undefined().reshape(-1)[items.lanes]
            # else an earlier launch left it, which was reported there
            if self.done[-1].careless and undefined.any():
                self._find("undefined lane", items.where(undefined), self.done[-1].left_undefined())
            storage.write(items.positions, access.itemsize)
        self._check_races(items)

    def _check_races(self, items: _Items) -> None:
        access, storage, clock = items.access, items.argument.storage, self.done[-1].clock
        if storage not in self._shadows:
            size, unit = storage.end - storage.start, items.argument.itemsize
            self._shadows[storage] = Shadow(size, unit)
        shadow = self._shadows[storage]
        cells = shadow.cells(items.positions, access.itemsize)
        if access.synchronises:
            clock.synchronise(items.addresses)

        def conflict(kind: str, ticks: np.ndarray, did: str, judge: Any = clock.conflicts) -> None:
            conflicting = judge(ticks[cells]).any(axis=1)
            if conflicting.any():
                program, where = clock.moments[ticks[cells[conflicting][0]].max()]
                detail = f"program {program} {did} it, at {_short(where)}"
                self._find(kind, items.where(conflicting), detail)

        conflict("read race" if access.kind == "load" else "write race", shadow.writer, "wrote")
        if access.kind == "load":
            conflict("read race", shadow.atomic, "changed")
            unread = shadow.reader[cells] == 0
            shadow.reader[cells[unread]] = clock.now
            return
        conflict("read race", shadow.reader, "read")
        repeated, others = shadow.repeated(cells)
        if access.kind == "store":
            conflict("write race", shadow.atomic, "changed")
            self._check_lanes(items, repeated, others)
            shadow.writer[cells] = clock.now
            return
        if access.element.is_floating():
            conflict("atomic order", shadow.atomic, "changed", clock.others)
            if len(repeated):
                self._find("atomic order", items.where(repeated), "by lanes of one program")
        shadow.atomic[cells] = clock.now

    def _check_lanes(self, items: _Items, repeated: np.ndarray, others: np.ndarray) -> None:
        """Find lanes of one store that write different values to one address."""
        if len(repeated):
            assert items.access.values is not None
            values = np.ascontiguousarray(items.access.values).reshape(-1)[items.lanes]
            bits = values.view(f"u{values.itemsize}")
            different = repeated[bits[repeated] != bits[others]]
            if len(different):
                self._find("duplicate lanes", items.where(different))

    # --- violations -------------------------------------------------------------------------------

    def _find_missing(self, items: _Items) -> None:
        """Tell a neighbour's memory from the gaps of a view."""
        storage, itemsize = items.argument.storage, items.access.itemsize
        addresses = items.addresses
        in_storage = (storage.start <= addresses) & (addresses + itemsize <= storage.end)
        for kind, which in (("outside the view", in_storage), ("out of bounds", ~in_storage)):
            if which.any():
                first = addresses[which][:1]
                neighbours = [
                    f"that is {argument.name}[{', '.join(map(str, argument.index(int(first[0]))))}]"
                    for argument in self.done[-1].arguments
                    if argument is not items.argument and not argument.misses(first, itemsize)[0]
                ]
                self._find(kind, items.where(which), "".join(neighbours[:1]))

    def _find_lost(self, access: interpreter.Access, addresses: np.ndarray) -> None:
        key = "out of bounds", access.where, ""
        if key in self.violations:
            self.violations[key].count += len(addresses)
            return
        self.violations[key] = Violation(
            "out of bounds", access.kernel, access.where, access.program, access.kind, "",
            (int(addresses[0]),), "no tensor is at this address", "",
            "an address that was kept longer than its tensor, or a wrong column of a table",
            len(addresses),
        )  # fmt: skip

    def _find(self, kind: str, items: _Items, detail: str = "") -> None:
        """Note a fault of some items; only the first of a kind, on a line, is described."""
        access, argument = items.access, items.argument
        key = kind, access.where, argument.name
        found = self.violations.get(key)
        if found is not None:
            found.count += len(items.addresses)
            return
        self.violations[key] = Violation(
            kind, access.kernel, access.where, access.program, access.kind, argument.name,
            argument.index(int(items.addresses[0])), bounds_of(argument), detail, KINDS[kind][1],
            len(items.addresses),
        )  # fmt: skip


def _memory(storage: Storage) -> np.ndarray:
    """View a storage's bytes."""
    size = storage.end - storage.start
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(storage.start))


def _short(where: str) -> str:
    return where.rpartition("/")[2]
