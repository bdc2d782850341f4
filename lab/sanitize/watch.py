"""Every launch is run, watched and run again: each access is checked before memory is touched.

The first pass over a launch has its programs in order, and every value that nobody can know is
poison. In the second the programs are shuffled, and such values are 0 and 100 in turn. Both begin
with the same memory, and must leave the same, bit for bit; if not, a third pass, shuffled and with
poison, tells the two causes apart. The program that launched goes on with what the first pass left.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from triton.runtime.errors import InterpreterError

from ...kernels import interpreter
from ..pretend.frames import launched_at
from .passes import (
    RANKS,
    Items,
    Memory,
    Pass,
    difference_of,
    kind_of,
    numbers,
    rank_of,
    restore,
    short,
    zeros,
)
from .shadow import Argument, Shadow
from .storages import LastWrite, Storage, Storages
from .violation import KINDS, Violation, bounds_of

_AGAIN = " (programs shuffled, undefined values 0 and 100)"


class Watch:
    """Follows the launches of a program.

    Parameters
    ----------
    storages : Storages
        The memory.
    is_input : callable
        Says whether a storage is the caller's, not to be written.
    seed : int
        Of the shuffled order.
    updates : sequence of str
        Arguments that may be written all the same.

    Attributes
    ----------
    violations : dict
        `Violation.key` to the first violation with it, which counts the rest.
    inputs_written : dict
        The same for writes to inputs, to the storages that were written.
    kernels : set of str
        Those launched so far.
    last_launch : LastWrite or None
        The last one, of no argument.
    n_launches, n_accesses : int
        Launches, and loads, stores and atomics of their first passes.
    """

    def __init__(
        self,
        storages: Storages,
        is_input: Callable[[Storage], bool],
        seed: int = 0,
        updates: Sequence[str] = (),
    ) -> None:
        self.storages = storages
        self.violations: dict[tuple[str, str, str], Violation] = {}
        self.inputs_written: dict[tuple[str, str, str], set[Storage]] = {}
        self.kernels: set[str] = set()
        self.last_launch: LastWrite | None = None
        self.n_launches = 0
        self.n_accesses = 0
        self.name = ""  # of the target, if it has one
        self.configuration = ""  # of the autotuned kernel that is being launched
        self._is_input = is_input
        self._updates = frozenset(updates)
        self._random = np.random.default_rng(seed)
        self._shuffled = False
        self._pass: Pass
        self._undone: dict[Storage, Memory] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Check every launch while the context lasts."""
        interpreter.install()  # else nothing would be seen
        with (
            interpreter.follow(self),
            interpreter.observe(self.check),
            interpreter.listen(self.hear),
            self.storages,
            self.storages.lending(),
        ):
            yield

    @contextmanager
    def undoing(self, tensors: list[Any]) -> Iterator[None]:
        """Give memory back what it held, when the context ends: `tensors`' and all that is written.

        Parameters
        ----------
        tensors : list of torch.Tensor
        """
        self._undone = {s: Memory.of(s) for s in map(self.storages.of, tensors)}
        try:
            yield
        finally:
            for storage, memory in self._undone.items():
                memory.restore(storage)
            self._undone = None

    # --- a follower of launches -------------------------------------------------------------------

    def launch(self, launch: interpreter.Launch, run: Callable[[], None]) -> None:
        """Run a launch, watch it, and run it again."""
        self.storages.forget_freed()
        self.kernels.add(launch.kernel)
        self.n_launches += 1
        known = set(self.violations)
        try:
            self._launch(launch, run, known)
        finally:
            for key, violation in self.violations.items():
                if key not in known:
                    violation.case = self.describe()

    def describe(self) -> str:
        """Say which test, or which line of the program, launches, and with which configuration."""
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
        parts = self.name or test or launched_at(), self.configuration
        return ", ".join(part for part in parts if part)

    def _launch(self, launch: interpreter.Launch, run: Callable[[], None], known: set[Any]) -> None:
        first = self._run(launch, run)
        for storage in first.before:
            storage.last_write = self._last_write(first, storage)
        self.last_launch = LastWrite(launch.kernel, (0, 0, 0), "", launch.where)
        for argument in first.arguments:
            user = LastWrite(launch.kernel, (0, 0, 0), argument.name, launch.where)
            argument.storage.last_user = user
        after = {storage: Memory.of(storage) for storage in first.before}
        n_accesses = self.n_accesses
        self._run_again(first, after, run)
        kept = after
        undefined = [
            violation
            for violation in self.violations.values()
            if violation.kind == "undefined lane" and violation.kernel == launch.kernel
        ]
        if undefined and first.undefined:  # found in this launch, or in an earlier one
            kept = self._rank(first, run, undefined)
        restore(kept)
        for storage in kept:
            storage.forget_if_written()
        self.n_accesses = n_accesses

    def order(self, n_programs: int) -> Sequence[int]:
        """Shuffle in a second pass, so that the first and the last change their order, too."""
        if not self._shuffled:
            return range(n_programs)
        shuffled = self._random.permutation(n_programs).tolist()
        first_is_earlier = n_programs > 1 and shuffled.index(0) < shuffled.index(n_programs - 1)
        return shuffled[::-1] if first_is_earlier else shuffled

    def _run(
        self, launch: interpreter.Launch, run: Callable[[], None], *, shuffled: bool = False
    ) -> Pass:
        """Run all programs once. What a kernel raises is a finding, too."""
        arguments = [
            Argument.of(n, tensor, self.storages.of(tensor)) for n, tensor in launch.tensors
        ]
        self._pass, self._shuffled = Pass(launch, arguments), shuffled
        try:
            run()
        except InterpreterError as error:
            self._find_failure(launch, error)
            raise
        finally:
            if self._undone is not None:
                for storage, memory in self._pass.before.items():
                    self._undone.setdefault(storage, memory)
        return self._pass

    def _run_again(
        self, first: Pass, after: dict[Storage, Memory], run: Callable[[], None]
    ) -> None:
        """Shuffle the programs and let undefined values be numbers; compare what is left."""
        found, self.violations = self.violations, {}
        restore(first.before)
        try:
            with interpreter.undefined_as(numbers):
                second = self._run(first.launch, run, shuffled=True)
        except InterpreterError:
            second = self._pass
        difference = difference_of(first, second, after)
        found_again, self.violations = self.violations, found
        for key, violation in found_again.items():
            if violation.kind in ("failure", "endless wait", "out of bounds") and key not in found:
                violation.detail += _AGAIN
                self.violations[key] = violation
        failed = any(v.kind in ("failure", "endless wait") for v in found_again.values())
        restore(second.before)
        if difference is None or failed:
            return
        kind = "order dependence"
        if first.undefined:
            found, self.violations = self.violations, {}
            third = self._run(first.launch, run, shuffled=True)
            still = difference_of(first, third, after)
            self.violations = found
            restore(third.before)
            if still is None:
                kind = kind_of(first)
            difference = still or difference
        self._find_difference(kind, *difference)

    def _rank(
        self,
        first: Pass,
        run: Callable[[], None],
        violations: list[Violation],
    ) -> dict[Storage, Memory]:
        """Tell what is wrong even with zeros from what zeros make right; keep what zeros leave.

        Today's compilers give zeros. A kernel whose results are the same as if the undefined lanes
        took no part in any sum, maximum or minimum is right with them, by luck.
        """
        found, self.violations = self.violations, {}
        left = []
        for filler in (zeros, None):
            restore(first.before)
            with contextlib.ExitStack() as stack:
                if filler is not None:
                    stack.enter_context(interpreter.undefined_as(filler))
                else:
                    stack.enter_context(interpreter.leaving_out_undefined())
                with contextlib.suppress(InterpreterError):
                    self._run(first.launch, run)
            left.append({storage: Memory.of(storage) for storage in first.before})
            restore(self._pass.before)
        self.violations = found
        rank = rank_of(first, *left)
        for violation in violations:
            violation.rank = max(violation.rank, rank, key=RANKS.index)
        return left[0]

    def _last_write(self, done: Pass, storage: Storage) -> LastWrite:
        shadow = done.shadows[storage]
        tick = max(shadow.writer.max(), shadow.atomic.max())
        program, where = done.clock.moments[tick]
        name = done.argument_of(storage).name
        return LastWrite(done.launch.kernel, program, name, where)

    # --- an observer of accesses ------------------------------------------------------------------

    def hear(self, event: interpreter.Event) -> None:
        """Note barriers, and what leaves values undefined."""
        if event.kind in ("barrier", "exchange"):
            self._pass.clock.barrier(event.program, memory=event.kind == "barrier")
        elif (event.kind, event.where) not in self._pass.undefined:
            self._pass.undefined.append((event.kind, event.where))

    def check(self, access: interpreter.Access) -> np.ndarray | None:
        """Check one access; return the lanes that must not touch memory."""
        self.n_accesses += 1
        self._pass.clock.tick(access.program, access.where, access.mask.size)
        if access.leaves_undefined and ("load", access.where) not in self._pass.undefined:
            self._pass.undefined.append(("load", access.where))
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

    def _by_argument(self, access: interpreter.Access, refused: np.ndarray) -> Iterator[Items]:
        """Tell an access's active lanes apart by the tensors that their pointers came from."""
        lanes = np.flatnonzero(access.mask)
        addresses = access.addresses.reshape(-1)[lanes].astype(np.int64)
        assert access.tensors is not None, "launches are followed"
        numbers = access.tensors.reshape(-1)[lanes]
        # An offset beyond 2^48, such as an undefined one, has spoilt the number, too.
        numbers = np.where(numbers > len(self._pass.arguments), 0, numbers)
        # Nearly always all lanes are of one tensor, and sorting them takes long.
        one = numbers[:1] if (numbers == numbers[:1]).all() else np.unique(numbers)
        for number in one:
            own = numbers == number
            if number:
                argument = self._pass.arguments[number - 1]
                yield Items(access, argument, addresses[own], lanes[own])
                continue
            lost = own  # an address that was read from memory
            for storage in self.storages.at(addresses[own]):
                inside = own & (storage.start <= addresses) & (addresses < storage.end)
                argument = Argument.whole(storage, access.itemsize)
                yield Items(access, argument, addresses[inside], lanes[inside])
                lost = lost & ~inside
            if lost.any():
                refused[lanes[lost]] = True
                self._find_lost(access, addresses[lost])

    def _check_items(self, items: Items) -> None:
        """Check items that lie in their tensor, and note who touched them."""
        access, storage = items.access, items.argument.storage
        if access.kind != "store":
            unwritten = storage.is_unwritten(items.positions, access.itemsize)
            if unwritten.any():
                self._find("unwritten read", items.where(unwritten))
        if access.kind != "load":
            if storage not in self._pass.before:
                self._pass.before[storage] = Memory.of(storage)
            if items.argument.name not in self._updates and self._is_input(storage):
                self._find("write to an input", items)
                key = "write to an input", access.where, items.argument.name
                self.inputs_written.setdefault(key, set()).add(storage)
            undefined = access.stores_undefined().reshape(-1)[items.lanes]
            # else an earlier launch left it, which was reported there
            if self._pass.undefined and undefined.any():
                self._find("undefined lane", items.where(undefined), self._pass.why_undefined())
            storage.write(items.positions, access.itemsize)
        self._check_races(items)

    def _check_races(self, items: Items) -> None:
        access, storage, clock = items.access, items.argument.storage, self._pass.clock
        if storage not in self._pass.shadows:
            size, unit = storage.end - storage.start, items.argument.itemsize
            self._pass.shadows[storage] = Shadow(size, unit)
        shadow = self._pass.shadows[storage]
        cells = shadow.cells(items.positions, access.itemsize)
        if access.synchronises:
            clock.synchronise(items.addresses, access.kind)
        answers = access.kind == "atomic" or (access.kind == "load" and access.atomically)
        if answers and access.mask.size == 1:
            clock.barrier(access.program, memory=True)  # all threads learn one's answer

        def conflict(kind: str, ticks: np.ndarray, did: str, judge: Any = clock.conflicts) -> None:
            conflicting = judge(ticks[cells]).any(axis=1)
            if conflicting.any():
                tick = ticks[cells[conflicting][0]].max()
                program, where = clock.moments[tick]
                detail = f"program {program} {did} it, at {short(where)}"
                if judge == clock.conflicts and clock.was_released(tick):
                    detail += "; its release needs a tl.debug_barrier() before it, for one thread "
                    detail += "releases, and the others may not have stored yet"
                self._find(kind, items.where(conflicting), detail)

        conflict("read race" if access.kind == "load" else "write race", shadow.writer, "wrote")
        if access.kind == "load" and access.atomically:
            shadow.atomic_reader[cells] = clock.now
            return
        if access.kind == "load":
            conflict("read race", shadow.atomic, "changed")
            self._check_threads(items, shadow.writer, shadow.write_lane, cells, "stored", met=False)
            unread = shadow.reader[cells] == 0
            shadow.reader[cells[unread]] = clock.now
            shadow.last_reader[cells] = clock.now
            shadow.read_lane[cells] = items.lanes[:, None]
            return
        conflict("read race", shadow.reader, "read")
        conflict("read race", shadow.last_reader, "read")
        repeated, others = shadow.repeated(cells)
        if access.kind == "store":
            self._check_lanes(items, repeated, others)
        if access.kind == "store" and not access.atomically:
            conflict("write race", shadow.atomic, "changed")
            conflict("read race", shadow.atomic_reader, "read")
            lanes = shadow.read_lane
            self._check_threads(items, shadow.last_reader, lanes, cells, "loaded", met=True)
            shadow.writer[cells] = clock.now
            shadow.write_lane[cells] = items.lanes[:, None]
            return
        if access.kind == "atomic" and access.element.is_floating():
            conflict("atomic order", shadow.atomic, "changed", clock.others)
            if len(repeated):
                self._find("atomic order", items.where(repeated), "by lanes of one program")
        shadow.atomic[cells] = clock.now

    def _check_threads(
        self,
        items: Items,
        ticks: np.ndarray,
        lanes: np.ndarray,
        cells: np.ndarray,
        did: str,
        *,
        met: bool,
    ) -> None:
        """Find lanes that touch what other lanes of their own program touched, with no barrier."""
        clock = self._pass.clock
        racing = clock.unordered(ticks[cells], met=met) & (lanes[cells] != items.lanes[:, None])
        racing = racing.any(axis=1)
        if racing.any():
            first = cells[racing][0]
            _, where = clock.moments[ticks[first].max()]
            detail = f"lane {lanes[first].max()} {did} it, at {short(where)}"
            self._find("thread race", items.where(racing), detail)

    def _check_lanes(self, items: Items, repeated: np.ndarray, others: np.ndarray) -> None:
        """Find lanes of one store that write different values to one address."""
        if len(repeated):
            assert items.access.values is not None
            values = np.ascontiguousarray(items.access.values).reshape(-1)[items.lanes]
            bits = values.view(f"u{values.itemsize}")
            different = repeated[bits[repeated] != bits[others]]
            if len(different):
                self._find("duplicate lanes", items.where(different))

    # --- violations -------------------------------------------------------------------------------

    def _find_failure(self, launch: interpreter.Launch, error: InterpreterError) -> None:
        """Report what a kernel raised; the interpreter adds where that was."""
        found = _FAILURE.fullmatch(str(error))
        message, where, program = str(error), launch.where, (0, 0, 0)
        if found is not None:
            message, where = found[1], found[5]
            program = int(found[2]), int(found[3]), int(found[4])
        kind = "failure"
        if isinstance(error.__cause__, interpreter.EndlessWait):
            kind, message = "endless wait", str(error.__cause__)
        violation = Violation(
            kind, launch.kernel, where, program, "", "", (), "", message, KINDS[kind][1]
        )
        self.violations.setdefault(violation.key, violation)

    def _find_difference(self, kind: str, done: Pass, storage: Storage, byte: int) -> None:
        """Report a byte that differs, unless its launch is known for that already."""
        kernel = done.launch.kernel
        if any(f.kind == kind and f.kernel == kernel for f in self.violations.values()):
            return
        argument = done.argument_of(storage)
        program, where = done.clock.moments[done.last_touch(storage, byte)]
        detail = "" if kind == "order dependence" else done.why_undefined()
        index = argument.index(storage.start + byte)
        violation = Violation(
            kind, kernel, where, program, "", argument.name, index, bounds_of(argument), detail,
            KINDS[kind][1],
        )  # fmt: skip
        self.violations[violation.key] = violation

    def _find_missing(self, items: Items) -> None:
        """Tell a neighbour's memory from the gaps of a view."""
        storage, itemsize = items.argument.storage, items.access.itemsize
        addresses = items.addresses
        in_storage = (storage.start <= addresses) & (addresses + itemsize <= storage.end)
        for kind, which in (("outside the view", in_storage), ("out of bounds", ~in_storage)):
            if which.any():
                first = addresses[which][:1]
                neighbours = [
                    f"that is {argument.name}[{', '.join(map(str, argument.index(int(first[0]))))}]"
                    for argument in self._pass.arguments
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

    def _find(self, kind: str, items: Items, detail: str = "") -> None:
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


_FAILURE = re.compile(r"(.*): kernel \w+, program \((\d+), (\d+), (\d+)\), at (.*)", re.DOTALL)
