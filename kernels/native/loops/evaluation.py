"""Values inside a loop nest: where tiles lie in memory, and how an element is computed.

`ev` gives the form of a value at an index. It writes the code in the outermost scope that knows
the index, once: what depends on the row alone is computed once a row.
"""

import dataclasses
import math
import re

from ..instructions.arithmetic import ELEMENTWISE, SIGNED, is_quadratic, pointee_bytes
from ..instructions.forms import FIRST, Affine, Form, Index, Mask, Uniform, Vector
from ..instructions.memory import Memory
from ..instructions.ttir import Op, Value
from ..instructions.writer import BYTES, bits_literal, float_literal, llvm_type, memory_type

VIEWS = {"tt.splat", "tt.expand_dims", "tt.broadcast", "tt.trans"}
VIRTUAL = ELEMENTWISE | VIEWS | {"arith.constant", "tt.make_range", "tt.load"}


@dataclasses.dataclass(eq=False)
class Buffer:
    """A tile in the arena: row-major, or `flipped`, with neighbours along the last axis but one.

    There may be room for `one_row`, where tiles are computed row by row.
    """

    pointer: str
    element: str
    shape: tuple[int, ...]
    flipped: bool = False
    one_row: bool = False

    def stride(self, axis: int) -> int:
        """Return how many elements lie between neighbours along an axis."""
        if self.one_row and axis == 0:
            return 0
        last = len(self.shape) - 1
        if self.flipped and axis >= last - 1:
            return 1 if axis == last - 1 else self.shape[last - 1]
        return math.prod(self.shape[axis + 1 :])


@dataclasses.dataclass(frozen=True)
class Row:
    """What a loop over lanes accesses: memory of an argument, by its number, from an address on.

    `at` is the index with which the loop begins.
    """

    pointer: Value
    at: tuple[Index, ...]
    number: int
    first: str


class Evaluation(Memory):
    """Evaluates values at an index."""

    def __init__(self, *, checked: bool) -> None:
        super().__init__(checked=checked)
        self.control = 0  # the innermost scope that is no loop of a nest
        self.scalars: dict[Value, str] = {}
        self.buffers: dict[Value, Buffer] = {}
        self.bumped: dict[Value, tuple[Value, str]] = {}  # a carried value: initial, plus a scalar
        self.arena_bytes = 256  # the first bytes are a place that belongs to nothing

    # -- memory of tiles -----------------------------------------------------------------------

    def arena(self, shape: tuple[int, ...], element: str) -> str:
        """Reserve memory for a tile."""
        n_bytes = BYTES[element] * math.prod(shape)
        pointer = "%" + self.fresh("tile")
        self.scopes[0].lines.append(
            f"  {pointer} = getelementptr inbounds i8, ptr %arena, i64 {self.arena_bytes}"
        )
        self.arena_bytes += (n_bytes + 63) // 64 * 64 + 64
        return pointer

    def address(self, buffer: Buffer, at: tuple[Index, ...]) -> str:
        """Return a pointer to an element of a buffer: the first lane's."""
        offset = "0"
        for axis, i in enumerate(at):
            if i.name != "0":
                part = self.integer("mul", "i64", i.name, str(buffer.stride(axis)))
                offset = self.integer("add", "i64", offset, part)
        if offset == "0":
            return buffer.pointer
        kind = memory_type(buffer.element)
        return self.set(f"getelementptr inbounds {kind}, ptr {buffer.pointer}, i64 {offset}")

    def read(self, buffer: Buffer, at: tuple[Index, ...]) -> Form:
        """Read an element, or lanes."""
        element, kind = buffer.element, memory_type(buffer.element)
        width, stride = _lanes(buffer, at)
        first = self.address(buffer, at)
        if width is None:
            x = self.set(f"load {kind}, ptr {first}")
            return Uniform(self.set(f"trunc i8 {x} to i1") if element == "i1" else x)
        if stride == 1:
            x = self.set(f"load <{width} x {kind}>, ptr {first}, align {BYTES[element]}")
        else:
            x = "poison"
            for lane in range(width):
                at_lane = self.set(
                    f"getelementptr inbounds {kind}, ptr {first}, i64 {lane * stride}"
                )
                one = self.set(f"load {kind}, ptr {at_lane}")
                x = self.set(f"insertelement <{width} x {kind}> {x}, {kind} {one}, i64 {lane}")
        if element == "i1":
            x = self.set(f"trunc <{width} x i8> {x} to <{width} x i1>")
        return Vector(x, width)

    def write(self, buffer: Buffer, at: tuple[Index, ...], form: Form) -> None:
        """Write an element, or lanes."""
        element = buffer.element
        width, stride = _lanes(buffer, at)
        x, kind = self.vector(form, element, width), memory_type(element, width)
        if element == "i1":
            x = self.set(f"zext {llvm_type('i1', width)} {x} to {kind}")
        first = self.address(buffer, at)
        if width is None or stride == 1:
            self.line(f"store {kind} {x}, ptr {first}, align {BYTES[element]}")
            return
        scalar = memory_type(element)
        for lane in range(width):
            at_lane = self.set(f"getelementptr inbounds {scalar}, ptr {first}, i64 {lane * stride}")
            one = self.set(f"extractelement {kind} {x}, i64 {lane}")
            self.line(f"store {scalar} {one}, ptr {at_lane}")

    # -- evaluation ----------------------------------------------------------------------------

    def constant(self, op: Op) -> str:
        """Write a constant, of a scalar or of all of a tile's elements."""
        element = op.results[0].element
        found = re.search(r"dense<([^>]*)>", op.text)
        word = (found[1] if found else op.text.split(":")[0]).strip()
        if word in ("true", "false"):
            return word
        if op.results[0].type.is_float:
            is_bits = word.startswith("0x")
            if is_bits:
                return bits_literal(int(word, 16), element)
            return float_literal(float(word), element)
        if not re.fullmatch(r"-?\d+", word):
            raise op.unsupported("a constant with elements that differ")
        return word

    def ev(self, value: Value, at: tuple[Index, ...]) -> Form:
        """Return the form of a value at an index, written where that index is first known."""
        if value.shape is None:
            return Uniform(self.scalars[value])
        depth = max([self.control, *(i.depth for i in at)])
        scope = self.scopes[depth]
        key = (value, at)
        if key not in scope.memo:
            before, self.out = self.out, scope
            scope.memo[key] = self.compute(value, at)
            self.out = before
        return scope.memo[key]

    def compute(self, value: Value, at: tuple[Index, ...]) -> Form:
        """Write the code that computes a value at an index."""
        if value in self.buffers:
            return self.read(self.buffers[value], at)
        if value in self.bumped:
            return self.compute_bumped(value, at)
        op = value.op
        if op is None or op.name not in VIRTUAL:
            raise AssertionError(f"{value.name} was not computed before it is used")
        operands = op.operands
        match op.name:
            case "arith.constant":
                return Uniform(self.constant(op))
            case "tt.splat":
                return Uniform(self.scalars[operands[0]])
            case "tt.make_range":
                base = self.resized(at[0].name, "i64", "i32")
                base = self.integer("add", "i32", base, str(op.integer("start", 0)))
                return Affine(base, 1, at[0].width) if at[0].width else Uniform(base)
            case "tt.load":
                pointer, *rest = (self.ev(v, at) for v in operands)
                mask, other = (*rest, None, None)[:2]
                row = self.row_inside(operands[0], at)
                return self.load(op, pointer, mask, other, _width(at), row)
        if op.name in VIEWS:
            return self.ev(operands[0], viewed(op, at, FIRST))
        forms = [self.ev(v, at) for v in operands]
        if self.checked and SIGNED in op.text and not self.checked_along(op, at):
            self.check_range(op, forms, _width(at))
        return self.elementwise(op, forms)

    def checked_along(self, op: Op, at: tuple[Index, ...]) -> bool:
        """Check, before the loop over the lanes' axis, that no sum along all of it overflows.

        Returns whether that could be done: the operands must be even along the axis.
        """
        axis = along_lanes(at)
        if axis is None or None in [self.stride(v, axis) for v in op.operands]:
            return False
        start = self.before_lanes(at, axis)
        forms = [self.ev(v, start) for v in op.operands]
        if any(isinstance(f, Vector | Mask) for f in forms) or is_quadratic(op, forms):
            return False
        scope = self.scopes[max([self.control, *(i.depth for i in start)])]
        if ("range", op, start) not in scope.memo:
            scope.memo["range", op, start] = True
            n = op.results[0].shape[axis]
            before, self.out = self.out, scope
            forms = [Affine(f.base, f.stride, n) if isinstance(f, Affine) else f for f in forms]
            self.check_range(op, forms, n)
            self.out = before
        return True

    def before_lanes(self, at: tuple[Index, ...], axis: int) -> tuple[Index, ...]:
        """Return the index with which a loop over lanes begins, known before the loop."""
        return (*at[:axis], Index("0", self.control, at[axis].width), *at[axis + 1 :])

    def row_inside(self, pointer: Value, at: tuple[Index, ...]) -> str:
        """Test, before the loop over the lanes' axis, if all that lies along it is within bounds.

        Returns an i1, or nothing if it has to be tested for each vector.
        """
        row = self.row_of(pointer, at)
        if row is None:
            return ""
        here = self.scopes[-1]
        if row in here.memo:  # a part of a loop, of which more is known
            return here.memo[row]
        scope = self.scopes[max([self.control, *(i.depth for i in row.at)])]
        if row not in scope.memo:
            before, self.out = self.out, scope
            scope.memo[row] = self.stretch_inside(row, str(pointer.shape[along_lanes(at)]))
            self.out = before
        return scope.memo[row]

    def row_of(self, pointer: Value, at: tuple[Index, ...]) -> Row | None:
        """Return what a loop over lanes accesses, if that is one stretch of an argument."""
        axis = along_lanes(at)
        number = self.argument_of(pointer) if self.checked else None
        if axis is None or number is None:
            return None
        if self.stride(pointer, axis) != pointee_bytes(pointer.type):
            return None
        start = self.before_lanes(at, axis)
        first = self.ev(pointer, start)
        return Row(pointer, start, number, first.base) if isinstance(first, Affine) else None

    def stretch_inside(self, row: Row, length: str) -> str:
        """Test if the first elements of a row are within bounds."""
        n_bytes = self.integer("mul", "i64", length, str(pointee_bytes(row.pointer.type)))
        return self.inside(row.number, row.first, self.integer("add", "i64", row.first, n_bytes))

    def compute_bumped(self, value: Value, at: tuple[Index, ...]) -> Form:
        """Compute a carried value that has grown evenly since the loop began."""
        initial, offset = self.bumped[value]
        form, element = self.ev(initial, at), value.element
        if isinstance(form, Vector):
            spread = self.splat(offset, element, form.width)
            kind = llvm_type(element, form.width)
            return Vector(self.set(f"add {kind} {form.v}, {spread}"), form.width)
        base = form.base if isinstance(form, Affine) else form.v
        base = self.integer("add", element, base, offset)
        return Affine(base, form.stride, form.width) if isinstance(form, Affine) else Uniform(base)

    # -- what is known of addresses ------------------------------------------------------------

    def stride(self, value: Value, axis: int) -> int | None:
        """Return how a value changes along an axis, if that is known: in bytes for pointers."""
        if value.shape is None or value.shape[axis] == 1:
            return 0
        if value in self.bumped:
            return self.stride(self.bumped[value][0], axis)
        op = value.op
        if op is None or value in self.buffers:
            return None
        operands = op.operands
        if op.name == "tt.make_range":
            return 1
        if op.name in ("arith.constant", "tt.splat"):
            return 0
        if op.name in VIEWS:
            inner = viewed(op, tuple(range(len(value.shape))), None)
            return self.stride(operands[0], inner.index(axis)) if axis in inner else 0
        strides = [self.stride(v, axis) for v in operands]
        if op.name in ("arith.extsi", "arith.extui", "arith.trunci"):
            return strides[0]
        if op.name in ("arith.addi", "arith.subi", "tt.addptr") and None not in strides:
            size = pointee_bytes(value.type) if op.name == "tt.addptr" else 1
            sign = -1 if op.name == "arith.subi" else 1
            return strides[0] + sign * size * strides[1]
        if op.name == "arith.muli":
            for a, b in ((0, 1), (1, 0)):
                factor = operands[b].op
                if (
                    factor is not None
                    and factor.name == "arith.constant"
                    and strides[a] is not None
                ):
                    return strides[a] * int(self.constant(factor))
        return 0 if all(s == 0 for s in strides) else None

    def origin(self, pointer: Value) -> Value | None:
        """Return what a pointer was computed from: most often an argument. None: from several."""
        roots: set[Value] = set()
        stack, seen = [pointer], {pointer}
        while stack:
            value = stack.pop()
            sources = _sources(value)
            roots |= set() if sources else {value}
            stack += [v for v in sources if v not in seen]
            seen.update(sources)
        return roots.pop() if len(roots) == 1 else None


def along_lanes(at: tuple[Index, ...]) -> int | None:
    """Return the axis along which a loop takes several lanes at a time."""
    return next((axis for axis, i in enumerate(at) if i.width and i.name != "0"), None)


def _lanes(buffer: Buffer, at: tuple[Index, ...]) -> tuple[int | None, int]:
    """Return how many lanes an index has, and how far apart they are in a buffer."""
    for axis, i in enumerate(at):
        if i.width:
            return i.width, buffer.stride(axis)
    return None, 1


def _width(at: tuple[Index, ...]) -> int | None:
    return next((i.width for i in at if i.width), None)


def viewed(op: Op, at: tuple, first: Index | None) -> tuple:
    """Return the index into a view's operand, given that into the view."""
    operand = op.operands[0]
    if op.name == "tt.splat":
        return ()
    if op.name == "tt.expand_dims":
        axis = op.integer("axis")
        return at[:axis] + at[axis + 1 :]
    if op.name == "tt.broadcast":
        return tuple(first if n == 1 else i for n, i in zip(operand.shape, at, strict=True))
    source = [first] * len(at)  # tt.trans
    for axis, source_axis in enumerate(op.integers("order")):
        source[source_axis] = at[axis]
    return tuple(source)


def steps_to(pointer: Value) -> list[tuple[str, object]]:
    """Return how a pointer was made of an argument: the same steps lead to the same place."""
    steps: list[tuple[str, object]] = []
    while pointer.op is not None:
        op, sources = pointer.op, _sources(pointer)
        if len(sources) != 1:
            return [("unknown", pointer)]
        steps.append((op.name, op.operands[1] if op.name == "tt.addptr" else pointer.type))
        pointer = sources[0]
    return [*steps, ("of", pointer.type)] if not _sources(pointer) else [("unknown", pointer)]


def _sources(pointer: Value) -> list[Value]:
    """Return the values that a pointer was moved from, or that it may be."""
    op = pointer.op
    if op is None:  # an argument of a region, or of the kernel
        loop = pointer.block.parent if pointer.block is not None else None
        if loop is None or loop.name not in ("scf.for", "scf.while"):
            return []
        if loop.name == "scf.while":
            before, after = loop.regions
            if pointer.block is after:
                return [before.ops[-1].operands[1 + pointer.index]]
            return [loop.operands[pointer.index], after.yielded[pointer.index]]
        carried = pointer.index - 1  # the first is the loop's counter
        return [loop.operands[3 + carried], pointer.block.yielded[carried]]
    if op.name == "scf.for":
        return [op.operands[3 + pointer.index], op.regions[0].yielded[pointer.index]]
    if op.name == "scf.while":
        return [op.regions[0].ops[-1].operands[1 + pointer.index]]
    if op.name == "scf.if":
        return [region.yielded[pointer.index] for region in op.regions]
    if op.name == "arith.select":
        return op.operands[1:]
    if op.name in ("tt.addptr", "tt.bitcast", "tt.reshape") or op.name in VIEWS:
        return op.operands[:1]
    return []
