"""Operations that move elements: gather, join, split, cat, histogram, and atomics on tiles."""

from typing import Any

from ..instructions.forms import FIRST, TRUE, Index, Uniform
from ..instructions.ttir import Op
from ..instructions.writer import Scope, llvm_type
from .evaluation import Buffer
from .reductions import Reductions
from .roots import Nest, Root


class Atomic(Root):
    """An atomic operation on a tile, one element at a time."""

    scalar_only = True

    def __init__(self, op: Op, buffer: Buffer) -> None:
        super().__init__(list(op.operands), op)
        self.buffer = buffer

    def body(self, g: Any, nest: Nest) -> None:
        """Write the operation on one element."""
        forms = [g.ev(v, nest.at).v for v in self.values]
        g.out = g.scopes[-1]
        g.write(self.buffer, nest.at, Uniform(g.atomic_on(self.op, forms)))


class Tiles(Reductions):
    """Writes operations that move elements."""

    def atomic_on(self, op: Op, operands: list[str]) -> str:
        """Write an atomic operation on one element."""
        if op.name == "tt.atomic_cas":
            pointer, expected, value = operands
            return self.atomic(op, pointer, value, expected=expected)
        pointer, value, *mask = operands
        return self.atomic(op, pointer, value, mask[0] if mask else TRUE.v)

    def execute_atomic(self, op: Op) -> None:
        """Write an atomic operation, on a scalar or on a tile."""
        self.flush()
        result = op.results[0]
        if result.shape is None:
            self.out = self.scopes[self.control]
            operands = [self.scalars[v] for v in op.operands]
            self.scalars[result] = self.atomic_on(op, operands)
            return
        buffer = self.new_buffer(result)
        self.run_nest(result.shape, [Atomic(op, buffer)])
        self.buffers[result] = buffer

    def loops(self, shape: tuple[int, ...]) -> tuple[Index, ...]:
        """Open a loop over each axis."""
        return tuple(
            FIRST if n == 1 else Index(self.open_loop(n), len(self.scopes) - 1) for n in shape
        )

    def end_loops(self, shape: tuple[int, ...]) -> None:
        """Close them."""
        for n in shape:
            if n > 1:
                self.close_loop()

    def region_scope(self, name: str) -> Scope:
        """Begin a scope for a region, inside the ones that are open."""
        scope = Scope(self.fresh(name))
        self.scopes.append(scope)
        self.control, self.out = len(self.scopes) - 1, scope
        return scope

    def any_element(self, buffer: Buffer, *, wanted: bool) -> str:
        """Test whether any truth value of a tile is the wanted one."""
        slot = self.alloca("i1")
        self.line(f"store i1 false, ptr {slot}")
        at = self.loops(buffer.shape)
        differs = self.set(f"xor i1 {self.read(buffer, at).v}, {str(not wanted).lower()}")
        so_far = self.set(f"load i1, ptr {slot}")
        self.line(f"store i1 {self.set(f'or i1 {differs}, {so_far}')}, ptr {slot}")
        self.end_loops(buffer.shape)
        return self.set(f"load i1, ptr {slot}")

    def rearrange(self, op: Op) -> None:
        """Write an operation whose elements all come from buffers."""
        sources = [self.materialise(v) for v in op.operands]
        self.flush()
        self.out = self.scopes[self.control]
        if op.name == "tt.reshape":
            source = sources[0]
            shape = op.results[0].shape
            self.buffers[op.results[0]] = Buffer(source.pointer, source.element, shape)
            return
        results = [self.new_buffer(v) for v in op.results]
        write = {
            "tt.split": self.split, "tt.gather": self.gather, "tt.join": self.join,
            "tt.cat": self.cat, "tt.histogram": self.histogram,
        }[op.name]  # fmt: skip
        write(op, sources, results)
        self.buffers.update(zip(op.results, results, strict=True))

    def split(self, op: Op, sources: list[Buffer], results: list[Buffer]) -> None:
        """Take the last axis, of two, apart."""
        at = self.loops(results[0].shape)
        for i, buffer in enumerate(results):
            self.write(buffer, at, self.read(sources[0], (*at, Index(str(i), 0))))
        self.end_loops(results[0].shape)

    def join(self, op: Op, sources: list[Buffer], results: list[Buffer]) -> None:
        """Make a last axis of two."""
        at = self.loops(sources[0].shape)
        for i, source in enumerate(sources):
            self.write(results[0], (*at, Index(str(i), 0)), self.read(source, at))
        self.end_loops(sources[0].shape)

    def cat(self, op: Op, sources: list[Buffer], results: list[Buffer]) -> None:
        """Put one behind the other."""
        at = self.loops(sources[0].shape)
        for i, source in enumerate(sources):
            first = self.integer("add", "i64", at[0].name, str(i * source.shape[0]))
            place = (Index(first, len(self.scopes) - 1), *at[1:])
            self.write(results[0], place, self.read(source, at))
        self.end_loops(sources[0].shape)

    def gather(self, op: Op, sources: list[Buffer], results: list[Buffer]) -> None:
        """Read elements by their number along an axis."""
        axis, (source, numbers), (result,) = op.integer("axis"), sources, results
        at = self.loops(result.shape)
        number = self.resized(self.read(numbers, at).v, numbers.element, "i64", signed=False)
        place = (*at[:axis], Index(number, len(self.scopes) - 1), *at[axis + 1 :])
        self.write(result, at, self.read(source, place))
        self.end_loops(result.shape)

    def histogram(self, op: Op, sources: list[Buffer], results: list[Buffer]) -> None:
        """Count the elements that fall into each bin."""
        (result,), source = results, sources[0]
        kind, element = llvm_type(result.element), source.element
        n_bins = result.shape[0]
        self.write(result, self.loops(result.shape), Uniform("0"))
        self.end_loops(result.shape)
        at = self.loops(source.shape)
        x = self.read(source, at).v
        counts = self.set(f"icmp ult {llvm_type(element)} {x}, {n_bins}")
        if len(sources) > 1:
            counts = self.set(f"and i1 {counts}, {self.read(sources[1], at).v}")
        bin_ = self.set(f"select i1 {counts}, {llvm_type(element)} {x}, {llvm_type(element)} 0")
        bin_ = self.resized(bin_, element, "i64", signed=False)
        place = (Index(bin_, len(self.scopes) - 1),)
        before = self.read(result, place).v
        one = self.set(f"zext i1 {counts} to {kind}")
        self.write(result, place, Uniform(self.set(f"add {kind} {before}, {one}")))
        self.end_loops(source.shape)
