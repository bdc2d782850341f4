"""The walk through a kernel: which accesses it makes, under which conditions, and what may wrap.

A loop is walked once, for a turn whose number is an unknown. What it carries is found out by
walking it with values of which nothing is known: what has grown by the same amount at the end of
any turn is its start plus the number of the turn times that amount, and the loop is walked again
with that. Of everything else that a loop carries nothing is known.
"""

import dataclasses
from typing import Any

import z3

from .....kernels.native.instructions.ttir import BITS, Block, Op, Type, Value
from .evaluate import Evaluate
from .kept import Kept
from .terms import Poly, poly
from .values import Symbol, is_integer

# A compare-and-swap writes only where it finds what it compares with.
SWAP = "compare-and-swap"
_ACCESSES = {"tt.load": "load", "tt.store": "store"}
_ACCESSES |= {"tt.atomic_rmw": "atomic", "tt.atomic_cas": SWAP}
_NOTHING = {
    "scf.yield", "scf.condition", "tt.return", "tt.print", "tt.assert", "llvm.intr.assume",
    "gpu.barrier", "ttg.barrier", "tt.store",
}  # fmt: skip
# Nothing is known of what these make, but they touch no memory. Any other is not followed.
_PURE = {
    "tt.dot", "tt.dot_scaled", "tt.reduce", "tt.scan", "tt.histogram", "tt.gather", "tt.cat",
    "tt.map_elementwise", "tt.bitcast", "tt.fp_to_fp", "tt.clampf", "tt.precise_sqrt",
    "tt.precise_divf", "tt.mulhiui", "tt.ptr_to_int", "tt.int_to_ptr", "ub.poison",
}  # fmt: skip
# What a load's result may be, by the argument that it was read from.
Limits = dict[str, Any]


@dataclasses.dataclass(eq=False)
class Access:
    """One load, store, atomic or compare-and-swap.

    Attributes
    ----------
    kind, where : str
        "load", "store", "atomic" or `SWAP`; "file:line".
    base : str
        The argument; "" if the address was read from memory.
    pointer : Symbol
        Its elements are offsets.
    mask : Symbol or None
    path : list of formula
        What holds where it stands: of the loops and branches around it.
    loaded : Symbol or None
        What was read.
    swapped : Symbol or None
        What a compare-and-swap writes, where it writes.
    """

    kind: str
    where: str
    base: str
    pointer: Symbol
    mask: Symbol | None
    path: list[Any]
    loaded: Symbol | None = None
    swapped: Symbol | None = None


@dataclasses.dataclass(eq=False)
class Width:
    """An integer that must fit its type.

    Attributes
    ----------
    operation, where : str
    bits : int
    value : Symbol
    path : list of formula
    """

    operation: str
    where: str
    bits: int
    value: Symbol
    path: list[Any]


class Walk(Kept):
    """Walks a kernel.

    Parameters
    ----------
    limits : dict
        For an argument the lowest and the highest number that may be read from it.
    promises_numbers : bool
        Whether anything is promised of these: what is swapped in must keep it then.
    """

    def __init__(self, limits: Limits, *, promises_numbers: bool = False) -> None:
        super().__init__()
        self.limits, self.promises_numbers = limits, promises_numbers
        self.accesses: list[Access] = []
        self.widths: list[Width] = []
        self.not_followed: list[str] = []
        self.loops: dict[str, tuple[str, Op]] = {}  # a turn's number: the loop's line
        self.exact: set[Value] = set()

    def walk(self, body: Block) -> None:
        """Walk a kernel whose arguments are known."""
        self.matters = what_matters(body, swapped=self.promises_numbers)
        self.exact = what_must_be_exact(self.matters)
        self.block(body)

    def block(self, block: Block) -> None:
        """Walk the operations of a block, in order."""
        for op in block.ops:
            self.operation(op)

    def operation(self, op: Op) -> None:
        """Walk one operation."""
        if op.name in _ACCESSES:
            self.access(op)
        elif op.name == "scf.for":
            self.for_loop(op)
        elif op.name == "scf.while":
            self.while_loop(op)
        elif op.name == "scf.if":
            self.branch(op)
        elif op.name == "tt.split":
            for i, value in enumerate(op.results):
                self.known[value] = self.half(self.known[op.operands[0]], value.type, i)
        elif op.name == "tt.reduce" and (picks := _picks(op)) is not None:
            self.reduced(op, picks)
        elif op.name in _NOTHING:
            pass
        elif not _touches_nothing(op):
            self.not_followed.append(f"{op.name} ({op.where})")
            self.forget(op)
        elif len(op.results) == 1 and not op.regions:
            made = self.known[op.results[0]] = self.evaluate(op)
            if self.may_wrap(op) and op.results[0] in self.exact:
                name = op.name.split(".")[1]
                self.width(name, op.where, self.bits(op), made)
        else:
            self.forget(op)

    def width(self, operation: str, where: str, bits: int, value: Symbol) -> None:
        """Note an integer that must fit its type."""
        self.widths.append(Width(operation, where, bits, value, list(self.path)))

    def forget(self, op: Op) -> None:
        """Know nothing of an operation's results."""
        for value in op.results:
            base = "" if value.type.is_pointer else None
            self.known[value] = self.opaque(value.type, op.name.split(".")[1] + "_", base)

    # -- memory ----------------------------------------------------------------------------------

    def access(self, op: Op) -> None:
        """Note an access; of what is read only the contract knows anything."""
        kind = _ACCESSES[op.name]
        pointer = self.known[op.operands[0]]
        given = op.operands[{"tt.load": 1, "tt.atomic_cas": 3}.get(op.name, 2) :]
        mask = self.known[given[0]] if given else None
        base = pointer.base or ""
        access = Access(kind, op.where, base, pointer, mask, list(self.path))
        access.swapped = self.known[op.operands[2]] if kind == SWAP else None
        self.accesses.append(access)
        if not op.results:
            return
        result = op.results[0].type
        other = self.known[given[1]] if op.name == "tt.load" and len(given) > 1 else None
        # Where a mask is false and nothing stands for what is not read, it may be anything.
        defined = mask is None or other is not None

        def made(element: Poly, index: tuple[Poly, ...]) -> None:
            ((name,),) = element.terms
            self.read[name] = access, index
            if is_integer(result) and base in self.limits:
                self._limit(element, access, index, defined=defined)

        # An address that a table holds is known by its table until something is done to it.
        held = f"*{base}" if base in self.addresses and mask is None else None
        read = self.opaque(result, f"{base}@", "" if result.is_pointer else held, made)
        access.loaded = read
        if mask is not None and other is not None:
            read = Symbol(
                result, lambda i: self.choice(mask.at(i), access_at(access, i), other.at(i))
            )
        self.known[op.results[0]] = read

    def _limit(self, made: Poly, access: Access, index: tuple[Poly, ...], *, defined: bool) -> None:
        """Let what is read lie where the contract says, if it is read at all."""
        known, formula = self.unknowns.unknown(made), self.unknowns.formula
        low, high = self.limits[access.base]()
        facts = [known.variable >= formula(low)] if low is not None else []
        facts += [known.variable <= formula(high)] if high is not None else []
        if access.base in self.contents:
            place = access.pointer.at(index)
            facts.append(known.variable == self.contents[access.base](formula(place)))
            facts += self.promised[access.base](place)
        mask = [access.mask.at(index)] if access.mask is not None else []
        reached = [*access.path, *mask]
        known.facts += [z3.Implies(z3.And(reached), f) for f in facts] if reached else facts
        least = self.unknowns.bounds(low)[0] if low is not None else None
        if defined and least is not None:
            known.bounds = max(known.bounds[0] or 0, least), known.bounds[1]

    def reduced(self, op: Op, axis: int) -> None:
        """Know of a largest or smallest integer that it is one of the elements."""
        x = self.known[op.operands[0]]

        def element(index: tuple[Poly, ...]) -> Any:
            lane = self.unknowns.new("picked", 0, x.shape[axis] - 1)  # each row has its own
            return x.at((*index[:axis], lane, *index[axis:]))

        self.known[op.results[0]] = Symbol(op.results[0].type, element)

    # -- branches --------------------------------------------------------------------------------

    def branch(self, op: Op) -> None:
        """Walk both sides; a result is one side's or the other's."""
        condition = self.known[op.operands[0]].number
        sides = (condition, z3.Not(condition))
        for region, holds in zip(op.regions, sides, strict=False):
            self.path.append(holds)
            self.block(region)
            self.path.pop()
        if len(op.regions) < 2:
            return
        both = zip(op.results, op.regions[0].yielded, op.regions[1].yielded, strict=True)
        for result, first, second in both:
            x, y = self.known[first], self.known[second]
            self.known[result] = self._either(result.type, condition, x, y)

    def _either(self, kind: Type, condition: Any, x: Symbol, y: Symbol) -> Symbol:
        base = x.base if x.base == y.base else ""
        return Symbol(kind, lambda i: self.choice(condition, x.at(i), y.at(i)), base)

    # -- loops -----------------------------------------------------------------------------------

    def for_loop(self, op: Op) -> None:
        """Walk a loop that counts."""
        low, high, step = (self.known[v].number for v in op.operands[:3])
        body = op.regions[0]
        index, *carried = body.arguments
        if op.text.lstrip().startswith("unsigned") and index in self.matters:
            self.not_followed.append(f"a loop over unsigned numbers ({op.where})")
        lasting = set(self.unknowns.by_name)
        turn = self.turn(op, self._most_turns(low, high, step))
        count = low + turn * step
        self.known[index] = Symbol(index.type, lambda i: count)
        formula = self.unknowns.formula
        self.path += [formula(count) < formula(high), formula(step) > 0]
        starts = op.operands[3:]
        grown, bases = self.carry(carried, starts, body, turn, lambda: self.block(body))
        bits = BITS[index.element]
        self.width("loop step", op.where, bits, Symbol(index.type, lambda i: count + step))
        kept = self.keep(carried, starts, body.yielded, grown, lasting)
        del self.path[-2:]
        self._after(op, carried, starts, grown, bases, self._turns(low, high, step))
        if kept:
            self._hold(kept[1], [self.known[op.results[i]].number for i in kept[0]])

    def turn(self, op: Op, most: int | None = None) -> Poly:
        """Make the unknown that numbers a loop's turns."""
        turn = self.unknowns.new("turn", 0, most)
        ((name,),) = turn.terms
        self.loops[name] = op.where, op
        return turn

    def _most_turns(self, low: Poly, high: Poly, step: Poly) -> int | None:
        """Bound the number of a turn by a number, if the bounds are numbers."""
        (first, _), (_, last) = self.unknowns.bounds(low), self.unknowns.bounds(high)
        size = step.constant
        if first is None or last is None or size is None or size < 1:
            return None
        return max((last - 1 - first) // size, 0)

    def _turns(self, low: Poly, high: Poly, step: Poly) -> Poly | None:
        """Make the unknown number of turns that a loop takes, if its step is a number."""
        size = step.constant
        if size is None or size < 1:
            return None
        key = "turns", low.key, high.key, size
        made = self.unknowns._made
        if key not in made:
            room = self.unknowns.least(high - low, poly(0), largest=True)
            made[key] = self.unknowns.divide(room + (size - 1), poly(size))[0]
        return made[key]

    def carry(
        self, carried: list[Value], starts: list[Value], body: Block, turn: Poly, run: Any
    ) -> tuple[dict[Value, Symbol], list[str | None]]:
        """Walk a turn, twice if something that the loop carries grows by the same in each turn.

        Returns
        -------
        dict, list
            For each value that grows, by how much; and where pointers are from: what is from one
            argument in some turns and from another in others is from nowhere that is known.
        """
        outside = set(self.unknowns.by_name) - turn.unknowns
        bases = [self.known[start].base for start in starts]
        while True:
            before = {
                value: self.opaque(value.type, "carried", base)
                for value, base in zip(carried, bases, strict=True)
            }
            self.known.update(before)
            marks = len(self.accesses), len(self.widths), len(self.not_followed)
            loops = dict(self.loops)
            run()
            then = [self.known[value].base for value in body.yielded[: len(bases)]]
            changed = [b not in ("", t) for b, t in zip(bases, then, strict=True)]
            grown = self._grown(body.yielded, carried, before, outside)
            if grown or any(changed):
                del self.accesses[marks[0] :], self.widths[marks[1] :]
                del self.not_followed[marks[2] :]
                self.loops = loops
            if not any(changed):
                break
            bases = ["" if c else b for b, c in zip(bases, changed, strict=True)]
        if grown:
            for value, start in zip(carried, starts, strict=True):
                if value in grown:
                    self.known[value] = self.after_turns(self.known[start], grown[value], turn)
            run()
        return grown, bases

    def _grown(
        self,
        yielded: list[Value],
        carried: list[Value],
        before: dict[Value, Symbol],
        outside: set[str],
    ) -> dict[Value, Symbol]:
        """Find what is, at the end of a turn, what it was plus the same as after any other turn.

        That amount may hang on nothing but unknowns from outside the loop, and on the element.
        """
        grown: dict[Value, Symbol] = {}
        for value, then in zip(carried, yielded, strict=False):
            x, y = before[value], self.known[then]
            if not is_integer(value.type) or x.base != y.base:
                continue
            index = tuple(self.unknowns.new("any", 0) for _ in x.shape)
            change = y.at(index) - x.at(index)
            mine = {name for i in index for name in i.unknowns}
            if change.unknowns <= outside | mine:
                grown[value] = _difference(y, x)
        return grown

    def after_turns(self, start: Symbol, change: Symbol, turns: Poly) -> Symbol:
        """Return what a value is that grows, after a number of turns."""
        return Symbol(start.type, lambda i: start.at(i) + turns * change.at(i), start.base)

    def _after(
        self,
        op: Op,
        carried: list[Value],
        starts: list[Value],
        grown: dict[Value, Symbol],
        bases: list[str | None],
        turns: Poly | None,
    ) -> None:
        for result, value, start, base in zip(op.results, carried, starts, bases, strict=True):
            if value in grown and turns is not None:
                self.known[result] = self.after_turns(self.known[start], grown[value], turns)
            else:
                self.known[result] = self.opaque(result.type, "result", base)

    def while_loop(self, op: Op) -> None:
        """Walk a loop that ends when a condition fails; of what it leaves nothing is known."""
        test, body = op.regions
        turn = self.turn(op)
        run = lambda: self._walk_while(test, body)  # noqa: E731
        self.carry(test.arguments, op.operands, body, turn, run)
        forwarded = test.ops[-1].operands[1:]
        for result, value in zip(op.results, forwarded, strict=True):
            self.known[result] = self.opaque(result.type, "result", self.known[value].base)

    def _walk_while(self, test: Block, body: Block) -> None:
        self.block(test)
        condition, *forwarded = test.ops[-1].operands
        for value, given in zip(body.arguments, forwarded, strict=True):
            self.known[value] = self.known[given]
        self.path.append(self.known[condition].number)
        self.block(body)
        self.path.pop()


def _difference(x: Symbol, y: Symbol) -> Symbol:
    return Symbol(x.type, lambda i: x.at(i) - y.at(i))


def access_at(access: Access, index: tuple[Poly, ...]) -> Any:
    """Return what an access reads at an index."""
    assert access.loaded is not None
    return access.loaded.at(index)


def what_matters(body: Block, *, swapped: bool = False) -> set[Value]:
    """Find the values that an address, a mask, a loop's bounds or a branch hang on.

    And those that compare-and-swaps write, if they matter.
    """
    found: set[Value] = set()
    waiting: list[Value] = []

    def collect(block: Block) -> None:
        for op in block.ops:
            if op.name in _ACCESSES:
                waiting.extend(v for v in op.operands if _steers(op, v))
                waiting.extend(op.operands[2:] if swapped and _ACCESSES[op.name] == SWAP else ())
            elif op.name == "scf.for":
                waiting.extend(op.operands[:3])
            elif op.name == "scf.if" or op.name == "scf.condition":
                waiting.append(op.operands[0])
            for region in op.regions:
                collect(region)

    collect(body)
    while waiting:
        value = waiting.pop()
        if value in found:
            continue
        found.add(value)
        waiting += _sources(value)
    return found


# A sum or product that has wrapped is right up to multiples of 2^64, and so is what these make of
# it: an address that is in bounds comes out right all the same.
_FORGIVING = {
    "arith.addi", "arith.subi", "arith.muli", "tt.addptr", "tt.splat", "tt.broadcast",
    "tt.expand_dims", "tt.trans", "tt.reshape", "tt.unsplat", "arith.select", "scf.yield",
}  # fmt: skip


def what_must_be_exact(matters: set[Value]) -> set[Value]:
    """Find the integers that must not wrap: those that are compared, divided, extended, counted."""
    found: set[Value] = set()
    waiting = [v for v in matters if any(not _forgives(op, v) for op in v.users)]
    while waiting:
        value = waiting.pop()
        if value not in found and value in matters:
            found.add(value)
            # What is read is right if its address is.
            if value.op is None or value.op.name not in _ACCESSES:
                waiting += _sources(value)
    return found


def _forgives(op: Op, value: Value) -> bool:
    """Say whether it is all the same to an operation if an operand has wrapped."""
    if op.name in _ACCESSES:
        return value.type.is_pointer
    if op.name == "tt.addptr":  # an offset of 32 bits is extended
        return value.type.is_pointer or BITS[value.element] == 64
    if op.name == "scf.for":
        return value not in op.operands[:3]
    return op.name in _FORGIVING


def _touches_nothing(op: Op) -> bool:
    """Say whether an operation is known to touch no memory, nor to hold others that do."""
    if op.name in ("tt.extern_elementwise", "tt.elementwise_inline_asm"):
        return "pure = true" in op.text
    known = op.name in _PURE or hasattr(Evaluate, f"_{op.name.replace('.', '_')}")
    return known or op.name.startswith(("arith.", "math."))


def _picks(op: Op) -> int | None:
    """Return the axis of a reduction to one of the elements, an integer; None of any other."""
    inner = [o.name for o in op.regions[0].ops]
    one = len(op.results) == 1 and is_integer(op.results[0].type)
    picks = one and inner[:1] in (["arith.maxsi"], ["arith.minsi"]) and len(inner) == 2
    return op.integer("axis") if picks else None


def _steers(op: Op, value: Value) -> bool:
    """Say whether an operand of an access is its pointer or its mask, not what is written."""
    return value.type.is_pointer or value.element == "i1"


def _sources(value: Value) -> list[Value]:
    """List what a value is made of."""
    op = value.op
    if op is None:  # an argument, of the kernel or of a region
        parent = value.block.parent if value.block is not None else None
        if parent is None or parent.name not in ("scf.for", "scf.while"):
            return []
        first = parent.name == "scf.for"
        start = parent.operands[2 + value.index] if first else None
        if first:
            index = value.index - 1
            yielded = parent.regions[0].yielded
            if index < 0:
                return list(parent.operands[:3])
            return [v for v in (start, *yielded[index : index + 1]) if v is not None]
        return [*parent.operands, *(v for r in parent.regions for v in r.ops[-1].operands)]
    ends = [r.yielded[value.index] for r in op.regions if value.index < len(r.yielded)]
    if op.name == "scf.for":
        return [op.operands[3 + value.index], *ends]
    if op.name == "scf.while":
        return [*op.operands, *(v for r in op.regions for v in r.ops[-1].operands)]
    return [*op.operands, *ends]
