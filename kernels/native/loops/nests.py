"""Loop nests: tile operations become loops over elements, as few as possible.

Elementwise operations are not executed where they stand. They are evaluated where a *root* needs
them, element for element: a root is a load, a store, a reduction, an operand of a product, a value
that a loop carries. Neighbouring roots over one shape wait in `pending` and share one nest of
loops, so that a chain like load, add, exp, sum, store is one pass. When the nest is written, a
value that is costly to compute and is needed again later is kept in a buffer; integers, pointers
and masks are computed again wherever they are needed.
"""

import contextlib
import math
from collections.abc import Iterator

from ..instructions.arithmetic import COST, pointee_bytes
from ..instructions.forms import FIRST, Index
from ..instructions.ttir import Block, Op, Value
from .evaluation import VIEWS, VIRTUAL, Buffer, steps_to, viewed
from .parts import WORTH_CUTTING, Part, Parts, Place
from .roots import Load, Nest, Root, Store
from .rows import rows_of

COSTLY = 4  # about what a store and a load of a buffer cost
WIDTH = 16  # lanes at a time: two vectors of AVX2, four of NEON
SUM_WIDTH = 32  # where each lane waits for its last sum: twice as many keep the processor busy
_SIMPLE = {
    "arith.addi", "arith.subi", "arith.muli", "arith.extsi", "arith.andi", "arith.cmpi",
    "tt.addptr",
}  # fmt: skip


class Nests(Parts):
    """Writes the loops, and decides which values to keep."""

    def __init__(self, *, checked: bool, vectors: bool) -> None:
        super().__init__(checked=checked)
        self.vectors = vectors
        self.homes: dict[Value, Buffer] = {}  # where a value is wanted, once it is computed
        self.done: set[Op] = set()
        self.pending: list[Root] = []
        self.absorbed: list[Root] = []  # loads that the pending nest reads for itself
        self.row: Index | None = None  # where a block is run row by row
        self.rows: set[Value] = set()  # what has rows then, along its first axis
        self.written: list[Value] = []  # the pointers by which it is stored
        self.ordered = False  # whether all arguments may share memory
        self.order_free: set[tuple[int, int, bool]] = (
            set()
        )  # those that must not: see `kernel.Code`

    def new_buffer(self, value: Value) -> Buffer:
        """Return memory for a value: where it is wanted, else somewhere."""
        if value in self.homes:
            return self.homes.pop(value)
        one_row = value in self.rows and all(user.block is value.block for user in value.users)
        place = (1, *value.shape[1:]) if one_row else value.shape
        return Buffer(self.arena(place, value.element), value.element, value.shape, one_row=one_row)

    @contextlib.contextmanager
    def row_by_row(self, block: Block) -> Iterator[None]:
        """Write a block as a loop over its rows, if that is possible and pays."""
        is_free = self.vectors and self.row is None
        rows = rows_of(block, self.may_be_one) if is_free else set()
        if not rows:
            yield
            return
        control = self.control
        n_rows = max(v.shape[0] for v in rows)
        name = self.open_loop(n_rows)
        self.control = len(self.scopes) - 1
        self.row, self.rows = Index(name, self.control), rows
        self.written = [op.operands[0] for op in block.ops if op.name == "tt.store"]
        yield
        self.control, self.row, self.rows = control, None, set()
        self.close_loop()
        self.buffers = {v: held for v, held in self.buffers.items() if not held.one_row}

    # -- what is worth a buffer ----------------------------------------------------------------

    def cost(self, value: Value, limit: int = 30, *, again: bool = False) -> int:
        """Estimate the instructions that compute an element, from what is in buffers.

        `again` is for a row that was just read: reading it once more costs one, or everything.
        """
        if value.shape is None or value in self.buffers or limit <= 0:
            return 0
        if value in self.bumped:
            return self.cost(self.bumped[value][0], limit, again=again)
        op = value.op
        if op is None or op.name in ("arith.constant", "tt.splat", "tt.make_range"):
            return 0
        if op.name in VIEWS:
            return self.cost(op.operands[0], limit, again=again)
        if op.name == "tt.load":
            if again:
                return 1 if self.stays_as_it_is(op) else limit
            return COSTLY
        total = COST.get(op.name, 0 if op.name in _SIMPLE else 1)
        for operand in op.operands:
            total += self.cost(operand, limit - total, again=again)
        return total

    def stays_as_it_is(self, load: Op) -> bool:
        """Say whether a row can be read again: it is in one piece, and nothing is written there."""
        pointer, last = load.operands[0], len(load.results[0].shape) - 1
        return (
            self.stride(pointer, last) == pointee_bytes(pointer.type)
            and "isVolatile" not in load.text
            and not any(steps_to(target) == steps_to(pointer) for target in self.written)
        )

    def needed_later(self, value: Value, here: set[Op], kept: dict[Value, Buffer]) -> bool:
        """Say whether anything but the roots `here` will still need a value."""
        seen: set[Value] = set()
        stack = [value]
        while stack:
            for user in stack.pop().users:
                if user in self.done or user in here:
                    continue
                result = user.results[0] if user.results else None
                if user.name not in VIRTUAL or result is None or result.shape is None:
                    return True
                if result not in self.buffers and result not in kept and result not in seen:
                    seen.add(result)
                    stack.append(result)
        return False

    def survey(self, nest: Nest) -> None:
        """Find what the nest will evaluate at each of its elements; compute the rest beforehand.

        A value that is smaller than the nest would be computed many times over.
        """
        here = {root.op for root in nest.roots if root.op is not None}
        axes = {a for a, n in enumerate(nest.shape) if n > 1}

        def walk(value: Value, place: Place) -> None:
            if value.shape is None or value in self.buffers or (value, place) in nest.seen:
                return
            nest.seen[value, place] = None
            whole = axes <= set(place)
            if whole:
                nest.places.setdefault(value, place)
            elif (
                self.cost(value) >= COSTLY
                and value.type.size < math.prod(nest.shape)
                and not self.is_read_beside(value, place, nest, here)
            ):
                self.materialise(value)
                return
            if value in self.bumped:
                walk(self.bumped[value][0], place)
            elif value.op.name in VIEWS:
                walk(value.op.operands[0], viewed(value.op, place, None))
            else:
                for operand in value.op.operands:
                    walk(operand, place)

        for value in nest.values:
            walk(value, nest.everywhere)

    def is_read_beside(self, value: Value, place: Place, nest: Nest, here: set[Op]) -> bool:
        """Say whether a value, a row of weights, say, is as near in its tensor as in a buffer."""
        while value.op is not None and value.op.name in VIEWS:
            place, value = viewed(value.op, place, None), value.op.operands[0]
        if value.op is None or value.op.name != "tt.load" or self.needed_later(value, here, {}):
            return False
        pointer = value.op.operands[0]
        if nest.lanes not in place:
            return True
        return self.stride(pointer, place.index(nest.lanes)) == pointee_bytes(pointer.type)

    def keep_what_is_needed(self, nest: Nest) -> None:
        """Give buffers to costly values that something behind the nest will read."""
        here = {root.op for root in nest.roots if root.op is not None}
        for value in sorted(nest.places, key=lambda v: -(v.op.position if v.op else -1)):
            if value in nest.kept or self.cost(value) < COSTLY or self.is_soon_computed(value):
                continue
            if self.needed_later(value, here, nest.kept):
                nest.kept[value] = self.new_buffer(value)

    def is_soon_computed(self, value: Value) -> bool:
        """Say whether a row's value is sooner computed again than written to a buffer and read.

        The nearest cache holds the row already; buffers beside it would displace it.
        """
        return self.row is not None and self.cost(value, again=True) <= COSTLY

    # -- writing a nest ------------------------------------------------------------------------

    def run_nest(
        self, shape: tuple[int, ...], roots: list[Root], keep: Value | None = None
    ) -> None:
        """Write the loops for some roots, or to keep one value."""
        values = [v for root in roots for v in root.values]
        row = 0 if self.row is not None and values[0] in self.rows else None
        nest = Nest(shape, *self.choose_lanes(shape, values, roots, row), roots, row)
        self.survey(nest)
        self.keep_what_is_needed(nest)
        if keep is not None and keep not in nest.kept:
            nest.kept[keep] = self.new_buffer(keep)
        self.out = self.scopes[self.control]
        for root in roots:
            root.before(self, nest)
        nest.at = tuple(self.row if axis == row else FIRST for axis in range(len(shape)))
        reduced = next((r.axis for r in roots if r.axis is not None), None)
        self.write_loops(nest, self.order_of_axes(nest, reduced), reduced)
        self.buffers |= nest.kept
        self.done |= {root.op for root in roots if root.op is not None}
        self.out = self.scopes[self.control]

    def order_of_axes(self, nest: Nest, reduced: int | None) -> list[int]:
        """Order the loops: the lanes' farther in than others, over a reduced axis inmost."""
        order = [a for a in range(len(nest.shape)) if a not in (nest.lanes, reduced, nest.row)]
        order += [nest.lanes] if nest.lanes is not None else []
        return order + ([reduced] if reduced is not None and reduced != nest.lanes else [])

    def write_loops(self, nest: Nest, axes: list[int], reduced: int | None) -> None:
        """Write the loops over some axes, the first of them outside, and the body."""
        if not axes:
            self.write_body(nest)
            return
        axis, *inner = axes
        before, width = nest.at, nest.width if axis == nest.lanes else None
        for part in self.parts_of_axis(nest, axis, inner):
            nest.at = (*before[:axis], self.open_part(nest, axis, part), *before[axis + 1 :])
            self.write_loops(nest, inner, reduced)
            if nest.shape[axis] > (width or 1):
                self.close_loop()
        nest.at = before
        if axis == reduced:
            for root in nest.roots:
                root.after_axis(self, nest)

    def write_body(self, nest: Nest) -> None:
        """Write what is done at each index: everything is read before anything is written."""
        nest.writes = []
        for value in nest.values:
            self.ev(value, nest.at)
        for root in nest.roots:
            root.body(self, nest)
        for value, buffer in nest.kept.items():
            at = nest.index_of(nest.places[value])
            nest.writes.append((buffer, at, self.ev(value, at)))
        self.out = self.scopes[-1]
        for buffer, at, form in nest.writes:
            self.write(buffer, at, form)

    def parts_of_axis(self, nest: Nest, axis: int, inner: list[int]) -> list[Part]:
        """Cut a long inmost loop over lanes where its masks change; others are one part."""
        n = nest.shape[axis]
        if axis != nest.lanes or inner or n < WORTH_CUTTING:
            return [Part("0", str(n))]
        lanes = Index("%lanes", len(self.scopes), nest.width)  # before the loop has a name
        nest.at = (*nest.at[:axis], lanes, *nest.at[axis + 1 :])
        masks = {key: nest.index_of(key[1]) for key in self.masks_of(nest) if axis in key[1]}
        pointers = [(value, nest.index_of(place)) for value, place in self.pointers_of(nest)]
        return self.cut(n, lanes.width, masks, pointers)

    def evaluated(self, nest: Nest) -> Iterator[tuple[Op, Place]]:
        """Yield the operations whose results the nest computes, and their places."""
        for value, place in nest.seen:
            if value.op is not None and value not in self.buffers and value not in self.bumped:
                yield value.op, place

    def pointers_of(self, nest: Nest) -> list[tuple[Value, Place]]:
        """List where the nest loads and stores."""
        found = [(root.values[0], nest.everywhere) for root in nest.stores]
        loads = [(op, place) for op, place in self.evaluated(nest) if op.name == "tt.load"]
        return list(dict.fromkeys([*found, *((op.operands[0], place) for op, place in loads)]))

    def masks_of(self, nest: Nest) -> list[tuple[Value, Place]]:
        """List what the nest loads, stores or selects by."""
        found = [(mask, nest.everywhere) for root in nest.stores for mask in root.values[2:]]
        for op, place in self.evaluated(nest):
            if op.name == "arith.select":
                found.append((op.operands[0], place))
            elif op.name == "tt.load":
                found += [(mask, place) for mask in op.operands[1:2]]
        return [key for key in dict.fromkeys(found) if key[0].shape is not None]

    def open_part(self, nest: Nest, axis: int, part: Part) -> Index:
        """Open a loop over an axis, or a part of it, and note in its scope what is known there."""
        n, width = nest.shape[axis], nest.width if axis == nest.lanes else None
        if n <= (width or 1):
            return Index("0", self.control, width) if width else FIRST
        is_all = (part.first, part.end) == ("0", str(n))
        name = self.open_loop(part.end, width or 1, part.first, guarded=not is_all)
        index, memo = Index(name, len(self.scopes) - 1, width), self.scopes[-1].memo
        memo |= part.rows
        nest.at = (*nest.at[:axis], index, *nest.at[axis + 1 :])
        memo |= {(mask, nest.index_of(place)): part.form for mask, place in part.masks}
        return index

    def choose_lanes(
        self, shape: tuple[int, ...], values: list[Value], roots: list[Root], row: int | None
    ) -> tuple[int | None, int | None]:
        """Choose the axis along which most memory is contiguous; else the last one."""
        long = [a for a, n in enumerate(shape) if n > 1 and a != row]
        if not long or not self.vectors or any(getattr(r, "scalar_only", False) for r in roots):
            return None, None
        votes = dict.fromkeys(long, 0)
        seen: set[Value] = set()

        def vote(pointer: Value, place: Place) -> None:
            if not set(long) <= set(place):
                return
            for axis, runs_along in enumerate(place):
                is_contiguous = self.stride(pointer, axis) == pointee_bytes(pointer.type)
                if runs_along is not None and is_contiguous:
                    votes[runs_along] += 4

        def walk(value: Value, place: Place) -> None:
            if value in seen or value.shape is None:
                return
            seen.add(value)
            if value in self.buffers:
                if set(long) <= set(place) and place[-1] is not None:
                    votes[place[-1]] += 1
            elif value in self.bumped:
                walk(self.bumped[value][0], place)
            elif value.op is not None and value.op.name in VIEWS:
                walk(value.op.operands[0], viewed(value.op, place, None))
            elif value.op is not None and value.op.name in VIRTUAL:
                if value.op.name == "tt.load":
                    vote(value.op.operands[0], place)
                for operand in value.op.operands:
                    walk(operand, place)

        everywhere = tuple(a if n > 1 else None for a, n in enumerate(shape))
        for value in values:
            if value.type.is_pointer:
                vote(value, everywhere)
            walk(value, everywhere)
        best = max(long, key=lambda a: (votes[a], shape[a] >= WIDTH, a))
        is_reduced = any(root.axis == best for root in roots)
        return best, min(SUM_WIDTH if is_reduced else WIDTH, shape[best])

    # -- roots that wait -----------------------------------------------------------------------

    def enqueue(self, root: Root) -> None:
        """Let a root share the nest of those that wait, or write them first."""
        if self.pending and not self.fits(root):
            if isinstance(root, Load) or not self.only_loads_wait():
                self.flush()
            else:
                self.share_loads_with(root)
        self.pending.append(root)

    def only_loads_wait(self) -> bool:
        """Say whether all that waits are loads; these may have several shapes."""
        return all(isinstance(root, Load) for root in self.pending)

    def share_loads_with(self, root: Root) -> None:
        """Leave it to a root's nest to load what it needs, and write the other loads.

        So a row of weights is read beside the rows that it scales, and not copied beforehand.
        """
        made_of = self.made_of(root.values)
        loads, self.pending = self.pending, []
        alike = [load for load in loads if load.values[0].shape == root.values[0].shape]
        beside = [
            load for load in loads
            if load not in alike and load.values[0] in made_of
            and not (isinstance(root, Store) and self.may_overlap(root, load))
        ]  # fmt: skip
        self.run_nests([load for load in loads if load not in (*alike, *beside)])
        self.pending, self.absorbed = alike, beside
        if alike and not self.fits(root):
            self.pending = []
            self.run_nests(alike)

    def flush(self) -> None:
        """Write the nests of the roots that wait."""
        roots, self.pending, self.absorbed = self.pending, [], []
        self.run_nests(roots)

    def run_nests(self, roots: list[Root]) -> None:
        """Write a nest for all roots of a shape."""
        for shape in dict.fromkeys(root.values[0].shape for root in roots):
            self.run_nest(shape, [root for root in roots if root.values[0].shape == shape])

    def fits(self, root: Root) -> bool:
        """Say whether a root can share the pending nest and still see what it should."""
        if isinstance(root, Load) and self.only_loads_wait():
            return True
        if any(root.values[0].shape != waiting.values[0].shape for waiting in self.pending):
            return False
        axes = {r.axis for r in (*self.pending, root) if r.axis is not None}
        if len(axes) > 1 or self.depends_on_pending(root.values):
            return False
        if isinstance(root, Load):
            return not any(isinstance(r, Store) for r in self.pending)
        if isinstance(root, Store):
            loads = [r for r in self.pending if isinstance(r, Load)]
            return not any(self.overtakes(root, load) for load in loads) and not any(
                self.may_overlap(root, load) for load in self.absorbed
            )
        return True

    def made_of(self, values: list[Value]) -> set[Value]:
        """Return what a nest will evaluate for some values."""
        stack, seen = list(values), set()
        while stack:
            value = stack.pop()
            if value in seen or value in self.buffers or value.shape is None:
                continue
            seen.add(value)
            if value in self.bumped:
                stack.append(self.bumped[value][0])
            elif value.op is not None and value.op.name in VIRTUAL:
                stack += value.op.operands
        return seen

    def may_overlap(self, store: Root, load: Root) -> bool:
        """Say whether a store may go where a load reads, as far as their pointers tell."""
        return self.may_be_one(load.op.operands[0], store.values[0])

    def may_be_one(self, source: Value, target: Value, *, tested: bool = True) -> bool:
        """Say whether two pointers may be to one tensor; if not, each launch may test that."""
        origins = self.origin(source), self.origin(target)
        if self.ordered or None in origins or origins[0] is origins[1]:
            return True
        read, written = self.argument_of(source), self.argument_of(target)
        if tested and read is not None and written is not None:
            self.order_free.add((read, written, steps_to(source) == steps_to(target)))
        return False

    def overtakes(self, store: Root, load: Root) -> bool:
        """Say whether a store, in one nest with a load, could overwrite what is yet to be read."""
        if not self.may_overlap(store, load):
            return False
        same = load.op.operands[0] is store.values[0]
        return not same or self.reads_elsewhere(store.values[1:], load.values[0])

    def reads_elsewhere(self, values: list[Value], loaded: Value) -> bool:
        """Say whether an element of the values needs another element of what was loaded."""
        here = tuple(range(len(loaded.shape)))
        stack, seen = [(v, here) for v in values if v.shape is not None], set()
        while stack:
            value, place = stack.pop()
            if value is loaded and place != here:
                return True
            if (value, place) in seen or value.op is None or value in self.buffers:
                continue
            seen.add((value, place))
            if value.op.name in VIEWS:
                stack.append((value.op.operands[0], viewed(value.op, place, None)))
            elif value.op.name in VIRTUAL:
                stack += [(v, place) for v in value.op.operands if v.shape is not None]
        return False

    def depends_on_pending(self, values: list[Value]) -> bool:
        """Say whether values need a result that the pending nest is about to produce."""
        results = {
            v for r in self.pending if r.op is not None and not isinstance(r, Load)
            for v in r.op.results
        }  # fmt: skip
        stack, seen = list(values), set()
        while stack:
            value = stack.pop()
            if value in results:
                return True
            if value in seen or value in self.buffers or value in self.scalars:
                continue
            seen.add(value)
            if value in self.bumped:
                stack.append(self.bumped[value][0])
            elif value.op is not None:
                stack += value.op.operands
        return False

    def materialise(self, value: Value) -> Buffer:
        """Return a buffer with a value, computing it now if it is in none."""
        if value not in self.buffers and self.depends_or_waits(value):
            self.flush()
        if value not in self.buffers:
            self.run_nest(value.shape, [Root([value])], keep=value)
        return self.buffers[value]

    def depends_or_waits(self, value: Value) -> bool:
        """Say whether the pending nest computes something that a value is made of."""
        waiting = {r.op for r in self.pending if r.op is not None}
        stack, seen = [value], set()
        while stack:
            v = stack.pop()
            if v in seen or v in self.buffers or (v.op is None and v not in self.bumped):
                continue
            seen.add(v)
            if v.op in waiting:
                return True
            stack += [self.bumped[v][0]] if v in self.bumped else v.op.operands
        return False
