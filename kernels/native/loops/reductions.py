"""Reductions and scans, with any function to combine two elements.

A reduction keeps 16 accumulators and combines them in a tree at the end, so that a long sum loses
no more digits than on a GPU.
"""

from typing import Any

from ..instructions.casts import _wrapped
from ..instructions.forms import FIRST, Index, Uniform, Vector
from ..instructions.ttir import BITS, Block, Op
from ..instructions.writer import Scope, float_literal, llvm_type
from .nests import WIDTH, Nests
from .roots import Nest, Root

# What leaves the other operand as it is: maxnum and minnum ignore a NaN.
_IDENTITY = {
    "arith.addf": 0.0, "arith.mulf": 1.0, "arith.maxnumf": float("nan"),
    "arith.minnumf": float("nan"), "arith.maximumf": float("-inf"), "arith.minimumf": float("inf"),
}  # fmt: skip
_INTEGER_IDENTITY = {
    "arith.addi": 0,
    "arith.muli": 1,
    "arith.ori": 0,
    "arith.xori": 0,
    "arith.andi": -1,
}


def identity(op: Op) -> str | None:
    """Return the constant that a reduction of one value can begin with, if there is one."""
    region = op.regions[0]
    if len(op.operands) > 1 or len(region.ops) != 2:
        return None
    name, element = region.ops[0].name, op.operands[0].element
    if {v.name for v in region.ops[0].operands} != {v.name for v in region.arguments}:
        return None
    if name in _IDENTITY:
        return float_literal(_IDENTITY[name], element)
    return (
        str(_wrapped(_INTEGER_IDENTITY[name], BITS[element])) if name in _INTEGER_IDENTITY else None
    )


class Reduce(Root):
    """tt.reduce along one axis.

    Where the lanes run along it, lane i's accumulator takes every 16th element, and so does a loop
    over single elements. Where they run along another axis, each lane has its own accumulator.
    """

    def __init__(self, op: Op) -> None:
        super().__init__(list(op.operands), op, op.integer("axis"))

    def before(self, g: Any, nest: Nest) -> None:
        """Reserve the accumulators."""
        self.elements = [v.element for v in self.values]
        self.single = nest.width is None
        n = nest.shape[self.axis]
        self.parts = min(WIDTH, n) if self.single else nest.width
        self.across = self.single or nest.lanes == self.axis
        self.slots = [g.alloca(llvm_type(e, self.parts)) for e in self.elements]
        self.identity = identity(self.op)

    def body(self, g: Any, nest: Nest) -> None:
        """Combine the accumulators with the elements at hand."""
        width, counter = nest.width, nest.at[self.axis]
        forms = [g.ev(v, nest.at) for v in self.values]
        g.out = g.scopes[-1]
        new = [g.vector(f, e, width) for f, e in zip(forms, self.elements, strict=True)]
        slots = self.slots
        if counter.name == "0":  # no loop
            self.put(g, new, slots, width)
            return
        if self.single:
            turn = g.set(f"and i64 {counter.name}, {self.parts - 1}")
            slots = [
                g.set(f"getelementptr {llvm_type(e)}, ptr {s}, i64 {turn}")
                for e, s in zip(self.elements, slots, strict=True)
            ]
        old = [
            g.set(f"load {llvm_type(e, width)}, ptr {s}")
            for e, s in zip(self.elements, slots, strict=True)
        ]
        combined = g.combine(self.op.regions[0], old + new, width)
        if self.identity is not None:
            self.begin_in(g.scopes[counter.depth - 1])
        else:
            is_first = g.set(f"icmp ult i64 {counter.name}, {self.parts if self.across else 1}")
            combined = [
                g.set(f"select i1 {is_first}, {llvm_type(e, width)} {n}, {llvm_type(e, width)} {c}")
                for e, n, c in zip(self.elements, new, combined, strict=True)
            ]
        self.put(g, combined, slots, width)

    def begin_in(self, outer: Scope) -> None:
        """Give the accumulator its first value, before the loop; once if that has several parts."""
        if ("begun", self) not in outer.memo:
            outer.memo["begun", self] = True
            scalar, kind = (llvm_type(self.elements[0], n) for n in (None, self.parts))
            outer.lines.append(
                f"  store {kind} splat ({scalar} {self.identity}), ptr {self.slots[0]}"
            )

    def put(self, g: Any, values: list[str], slots: list[str], width: int | None) -> None:
        """Store accumulators."""
        for v, slot, e in zip(values, slots, self.elements, strict=True):
            g.line(f"store {llvm_type(e, width)} {v}, ptr {slot}")

    def after_axis(self, g: Any, nest: Nest) -> None:
        """Combine the accumulators in a tree, and hand the result on."""
        g.out = g.scopes[-1]
        width: int | None = self.parts
        values = [
            g.set(f"load {llvm_type(e, width)}, ptr {s}")
            for e, s in zip(self.elements, self.slots, strict=True)
        ]
        if self.across:
            while width > 1:
                width //= 2
                halves = [
                    self.part(g, v, e, 2 * width, start)
                    for start in (0, width)
                    for v, e in zip(values, self.elements, strict=True)
                ]
                values = g.combine(self.op.regions[0], halves, width)
            values = [
                g.set(f"extractelement {llvm_type(e, 1)} {v}, i64 0")
                for e, v in zip(self.elements, values, strict=True)
            ]
            width = None
        at = nest.at[: self.axis] + nest.at[self.axis + 1 :]
        for result, v in zip(self.op.results, values, strict=True):
            if result.shape is None:
                g.scalars[result] = v
                continue
            if result not in g.buffers:
                g.buffers[result] = g.new_buffer(result)
            g.write(g.buffers[result], at, Vector(v, width) if width else Uniform(v))

    @staticmethod
    def part(g: Any, v: str, element: str, width: int, start: int) -> str:
        """Take half of a vector."""
        kind = llvm_type(element, width)
        lanes = ", ".join(f"i32 {start + i}" for i in range(width // 2))
        return g.set(f"shufflevector {kind} {v}, {kind} poison, <{width // 2} x i32> <{lanes}>")


class Reductions(Nests):
    """Writes scans, and the function that combines two elements."""

    def combine(self, region: Block, values: list[str], width: int | None) -> list[str]:
        """Write the function of a reduction or scan inline."""
        known = dict(zip(region.arguments, values, strict=True))

        def value(v) -> str:
            if v in known:
                return known[v]
            return self.vector(Uniform(self.scalars[v]), v.element, width)

        for op in region.ops:
            if op.name in ("tt.reduce.return", "tt.scan.return"):
                return [value(v) for v in op.operands]
            result = op.results[0]
            if op.name == "arith.constant":
                known[result] = self.vector(Uniform(self.constant(op)), result.element, width)
            elif op.regions:
                raise op.unsupported("control flow in a function that combines")
            else:
                known[result] = self.instruction(op, [value(v) for v in op.operands], width)
        raise AssertionError("a region without an end")

    def scan(self, op: Op) -> None:
        """Write a scan: one element after the other along its axis, the other axes outside."""
        axis, backwards = op.integer("axis"), "reverse = true" in op.text
        sources = [self.materialise(v) for v in op.operands]
        results = [self.new_buffer(v) for v in op.results]
        shape, elements = sources[0].shape, [b.element for b in sources]
        self.out = self.scopes[self.control]
        slots = [self.alloca(llvm_type(e)) for e in elements]
        at = [FIRST] * len(shape)
        loops = [a for a in range(len(shape)) if a != axis] + [axis]
        loops = [a for a in loops if shape[a] > 1]
        turn = "0"
        for a in loops:
            name = self.open_loop(shape[a])
            if a == axis:
                turn = name
                name = self.set(f"sub i64 {shape[a] - 1}, {name}") if backwards else name
            at[a] = Index(name, len(self.scopes) - 1)
        place = tuple(at)
        new = [self.read(b, place).v for b in sources]
        if shape[axis] > 1:
            old = [
                self.set(f"load {llvm_type(e)}, ptr {s}")
                for e, s in zip(elements, slots, strict=True)
            ]
            combined = self.combine(op.regions[0], old + new, None)
            is_first = self.set(f"icmp eq i64 {turn}, 0")
            new = [
                self.set(f"select i1 {is_first}, {llvm_type(e)} {n}, {llvm_type(e)} {c}")
                for e, n, c in zip(elements, new, combined, strict=True)
            ]
        for v, e, slot, buffer in zip(new, elements, slots, results, strict=True):
            self.line(f"store {llvm_type(e)} {v}, ptr {slot}")
            self.write(buffer, place, Uniform(v))
        for _ in loops:
            self.close_loop()
        self.buffers.update(zip(op.results, results, strict=True))
