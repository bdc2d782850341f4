"""tt.dot: the operands are packed as float32, then a function of the library multiplies them.

The library's functions are compiled once, not again with each kernel. A tile of 4 x 16 of the
result stays in registers: for each k, 16 neighbours of b are loaded, and each of 4 numbers of a is
spread over a vector and multiplied with them: 8 accumulators of AVX2, as many as two multiply-add
units with a latency of 4 keep busy. AVX-512 has registers for 8 x 16, which loads less.

An operand is packed along the axis that is contiguous in memory, with whole vectors. The product
reads a by any two strides; b, if its columns are contiguous, is transposed in between.
"""

import functools
from typing import Any

from ..instructions.arithmetic import ELEMENTWISE, Arithmetic, pointee_bytes
from ..instructions.casts import computed_in
from ..instructions.forms import Uniform, Vector
from ..instructions.ttir import BITS, Op, Value
from ..instructions.writer import llvm_type
from ..machine import has_many_registers
from .evaluation import Buffer
from .roots import Copy, Nest, Root
from .tiles import Tiles

COLUMNS, UNROLL = 16, 4
BLOCK = 8  # a transpose takes squares of so many rows and columns


class Pack(Root):
    """Writes an operand row-major, in the type that the product is computed in."""

    def __init__(self, value: Value, buffer: Buffer, *, truncate: bool) -> None:
        super().__init__([value])
        self.buffer, self.truncate = buffer, truncate

    def body(self, g: Any, nest: Nest) -> None:
        """Convert the elements at hand."""
        form = g.ev(self.values[0], nest.at)
        g.out = g.scopes[-1]
        element, inner = self.values[0].element, self.buffer.element
        width = None if isinstance(form, Uniform) else form.width
        v = g.vector(form, element, width)
        if inner == "i32":
            v = g.resized(v, element, inner, width)
        else:
            v = g.converted(g.widened(v, element, width), computed_in(element), inner, width)
        if self.truncate:
            v = g.tf32(v, width)
        nest.writes.append((self.buffer, nest.at, Vector(v, width) if width else Uniform(v)))


class Products(Tiles):
    """Writes products of matrices."""

    def __init__(self, *, checked: bool, vectors: bool) -> None:
        super().__init__(checked=checked, vectors=vectors)
        self.library: dict[str, str] = {}  # functions that this kernel needs, by name

    def tf32(self, v: str, width: int | None) -> str:
        """Cut the 13 low bits of a float32, which a tensor core does not read."""
        words, floats = llvm_type("i32", width), llvm_type("f32", width)
        bits = self.set(f"bitcast {floats} {v} to {words}")
        cut = self.set(f"and {words} {bits}, {self.number(-(1 << 13), 'i32', width)}")
        is_nan = self.set(f"fcmp uno {floats} {v}, {v}")
        cut = self.set(f"bitcast {words} {cut} to {floats}")
        mask = llvm_type("i1", width)
        return self.set(f"select {mask} {is_nan}, {floats} {v}, {floats} {cut}")

    def dot(self, op: Op) -> None:
        """Write d = a b + c for one or, with three axes, many pairs of matrices."""
        a, b, c = op.operands
        result = op.results[0]
        inner = result.element
        if inner not in ("f32", "f64", "i32"):
            raise op.unsupported(f"a product in {inner}")
        *batch, m, n = result.shape
        k = a.shape[-1]
        truncate = a.element == "f32" and op.word("inputPrecision", "ieee") == "tf32"
        left = self.packed(a, inner, truncate=truncate)
        right = self.packed(b, inner, truncate=truncate)
        buffer = self.new_buffer(result)
        is_zero = c.op is not None and c.op.name == "arith.constant" and _is_zero(c.op)
        start = buffer
        if c in self.buffers:
            start = self.buffers[c]
        elif not is_zero:
            self.enqueue(Copy(c, buffer))
        self.flush()
        self.out = self.scopes[self.control]
        n_pairs = batch[0] if batch else 1
        right = self.row_major(right, n_pairs)
        rows, columns = min(8 if has_many_registers() else 4, m), min(COLUMNS, n)
        unroll = min(UNROLL, k)
        name = f"product.{inner}.{rows}.{columns}.{unroll}"
        self.library.setdefault(name, product(name, inner, rows, columns, unroll))
        pair = self.open_loop(n_pairs) if n_pairs > 1 else "0"
        self.call(
            "void", name,
            self.matrix(left, pair), *(("i64", str(left.stride(len(batch) + i))) for i in (0, 1)),
            self.matrix(right, pair), self.matrix(start, pair), self.matrix(buffer, pair),
            ("i64", str(m)), ("i64", str(n)), ("i64", str(k)), ("i1", str(not is_zero).lower()),
        )  # fmt: skip
        if n_pairs > 1:
            self.close_loop()
        self.buffers[result] = buffer

    def matrix(self, held: Buffer, pair: str) -> tuple[str, str]:
        """Return an argument: where one of several matrices begins."""
        offset = self.integer("mul", "i64", pair, str(held.shape[-2] * held.shape[-1]))
        kind = llvm_type(held.element)
        return "ptr", self.set(f"getelementptr inbounds {kind}, ptr {held.pointer}, i64 {offset}")

    def packed(self, value: Value, inner: str, *, truncate: bool) -> Buffer:
        """Return a buffer with matrices in the type that the product is computed in."""
        is_view = value.op is not None and value.op.name == "tt.trans" and value not in self.buffers
        if is_view and value.op.integers("order") == (1, 0):
            source = self.packed(value.op.operands[0], inner, truncate=truncate)
            return Buffer(source.pointer, inner, value.shape, not source.flipped)
        if value in self.buffers and value.element == inner and not truncate:
            return self.buffers[value]
        pointer = self.arena(value.shape, inner)
        buffer = Buffer(pointer, inner, value.shape, self.runs_down(value))
        self.enqueue(Pack(value, buffer, truncate=truncate))
        return buffer

    def runs_down(self, value: Value) -> bool:
        """Say whether a matrix is read from memory where neighbours are below one another."""
        if value.op is None or value in self.buffers or value in self.bumped:
            return False
        if value.op.name == "tt.load":
            pointer = value.op.operands[0]
            return self.stride(pointer, len(value.shape) - 2) == pointee_bytes(pointer.type)
        return value.op.name in ELEMENTWISE and any(map(self.runs_down, value.op.operands))

    def row_major(self, held: Buffer, n_pairs: int) -> Buffer:
        """Return matrices row by row, transposed if they are not."""
        rows, columns = held.shape[-2:]
        if not held.flipped:
            return held
        result = Buffer(self.arena(held.shape, held.element), held.element, held.shape)
        block = min(BLOCK, rows, columns)
        name = f"transpose.{held.element}.{block}"
        self.library.setdefault(name, transpose(name, held.element, block))
        pair = self.open_loop(n_pairs) if n_pairs > 1 else "0"
        sizes = ("i64", str(columns)), ("i64", str(rows))
        self.call("void", name, self.matrix(held, pair), self.matrix(result, pair), *sizes)
        if n_pairs > 1:
            self.close_loop()
        return result


def _is_zero(op: Op) -> bool:
    return "dense<0.000000e+00>" in op.text or "dense<0>" in op.text


class _Function(Arithmetic):
    """A function of the library, being written."""

    def element(self, pointer: str, kind: str, offset: str) -> str:
        """Return a pointer to an element."""
        return self.set(f"getelementptr inbounds {kind}, ptr {pointer}, i64 {offset}")

    def times(self, a: str, b: str) -> str:
        """Multiply."""
        return self.integer("mul", "i64", a, b)

    def plus(self, a: str, b: str) -> str:
        """Add."""
        return self.integer("add", "i64", a, b)

    def halves_swapped(
        self, upper: str, lower: str, kind: str, width: int, distance: int
    ) -> tuple[str, str]:
        """Let the right parts of one row, `distance` long, change places with another's left."""

        def shuffled(first: int) -> str:
            lanes = ", ".join(
                f"i32 {lane + first if not lane & distance else width + lane - distance + first}"
                for lane in range(width)
            )
            return self.set(
                f"shufflevector {kind} {upper}, {kind} {lower}, <{width} x i32> <{lanes}>"
            )

        return shuffled(0), shuffled(distance)

    def module(self, head: str) -> str:
        """Return the function, and what it declares."""
        (scope,) = self.scopes
        lines = [head, "entry:", *self.allocas, *scope.lines, "  ret void", "}"]
        return "\n".join([*lines, *self.declared.values()]) + "\n"


@functools.cache
def product(name: str, inner: str, rows: int, columns: int, unroll: int) -> str:
    """Write d[m, n] = a[m, k] b[k, n] (+ c[m, n] if %add); a lies by two strides.

    Parameters
    ----------
    name : str
        Of the function.
    inner : str
        "f32", "f64" or "i32".
    rows, columns : int
        The tile that stays in registers.
    unroll : int
        Steps of k in a turn.

    Returns
    -------
    str
        A module of LLVM IR.
    """
    f = _Function()
    kind, scalar = llvm_type(inner, columns), llvm_type(inner)
    j = f.open_loop("%n", columns)
    panel = f.element("%b", scalar, j)
    i = f.open_loop("%m", rows)
    left = f.element("%a", scalar, f.times(i, "%a_row"))
    corner = f.plus(f.times(i, "%n"), j)
    row_offsets = [f.times(str(r), "%a_row") for r in range(rows)]
    offsets = [f.plus(corner, f.times(str(r), "%n")) for r in range(rows)]
    slots = [f.alloca(kind) for _ in range(rows)]
    for slot in slots:
        f.line(f"store {kind} zeroinitializer, ptr {slot}")

    def begin_with_c() -> None:
        for slot, offset in zip(slots, offsets, strict=True):
            x = f.set(f"load {kind}, ptr {f.element('%c', scalar, offset)}, align 4")
            f.line(f"store {kind} {x}, ptr {slot}")

    f.branch("%add", begin_with_c)
    k = f.open_loop("%k", unroll)
    for u in range(unroll):
        here = f.plus(k, str(u))
        neighbours = f.element(panel, scalar, f.times(here, "%n"))
        neighbours = f.set(f"load {kind}, ptr {neighbours}, align 4")
        column = f.element(left, scalar, f.times(here, "%a_k"))
        for slot, offset in zip(slots, row_offsets, strict=True):
            one = f.set(f"load {scalar}, ptr {f.element(column, scalar, offset)}, align 4")
            spread = f.splat(one, inner, columns)
            old = f.set(f"load {kind}, ptr {slot}")
            if inner == "i32":
                new = f.set(f"add {kind} {old}, {f.set(f'mul {kind} {spread}, {neighbours}')}")
            else:
                new = f.intrinsic("fma", inner, columns, [spread, neighbours, old])
            f.line(f"store {kind} {new}, ptr {slot}")
    f.close_loop()
    for slot, offset in zip(slots, offsets, strict=True):
        x = f.set(f"load {kind}, ptr {slot}")
        f.line(f"store {kind} {x}, ptr {f.element('%d', scalar, offset)}, align 4")
    f.close_loop()
    f.close_loop()
    return f.module(
        f"define void @{name}(ptr noalias %a, i64 %a_row, i64 %a_k, ptr noalias %b, ptr %c, ptr %d,"
        " i64 %m, i64 %n, i64 %k, i1 %add) {"
    )


def transpose(name: str, element: str, block: int) -> str:
    """Write b[n, m] = a[m, n] transposed, square by square: rows are read, columns are written.

    Parameters
    ----------
    name : str
        Of the function.
    element : str
        "f32", "f64" or "i32".
    block : int
        Rows and columns of a square: a power of two that divides both sizes.

    Returns
    -------
    str
        A module of LLVM IR.
    """
    f = _Function()
    kind, scalar = llvm_type(element, block), llvm_type(element)
    align = BITS[element] // 8
    i = f.open_loop("%m", block)
    j = f.open_loop("%n", block)
    corner = f.plus(f.times(i, "%n"), j)
    rows = []
    for r in range(block):
        at = f.element("%a", scalar, f.plus(corner, f.times(str(r), "%n")))
        rows.append(f.set(f"load {kind}, ptr {at}, align {align}"))
    # Halves change places between rows that are half a square apart, then quarters, and so on.
    distance = block // 2
    while distance:
        for r in range(block):
            if not r & distance:
                rows[r], rows[r + distance] = f.halves_swapped(
                    rows[r], rows[r + distance], kind, block, distance
                )
        distance //= 2
    corner = f.plus(f.times(j, "%m"), i)
    for r in range(block):
        at = f.element("%b", scalar, f.plus(corner, f.times(str(r), "%m")))
        f.line(f"store {kind} {rows[r]}, ptr {at}, align {align}")
    f.close_loop()
    f.close_loop()
    return f.module(f"define void @{name}(ptr noalias %a, ptr noalias %b, i64 %m, i64 %n) {{")
