"""A kernel, run on Numbers: TTIR's operations one after another, program by program.

Decisions hang on shadows. Each is kept by its line, with the ways that it went: what went one way
only says nothing of the other way.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .....kernels.native.instructions.ttir import BITS, Block, Op, Unsupported
from .....kernels.native.instructions.ttir import Value as Name
from ..algebra import functions as f
from ..algebra.number import NotFollowedError, Number, concatenate, full, lift, product, select
from .elementwise import (
    CASTS,
    EXTREMES,
    INTEGERS,
    PURE,
    Value,
    cast,
    compare_integers,
    compare_numbers,
    from_library,
    literal,
    real,
)
from .memory import FLOATS, Memory

# Of a loop under a condition: programs run one after another, and one may wait for a later one.
MOST_TURNS = 100_000
_ENDS = frozenset(
    ("scf.yield", "tt.reduce.return", "tt.scan.return", "scf.condition", "tt.return",
     "tt.map_elementwise.return")
)  # fmt: skip
_NOTHING = frozenset(
    ("llvm.intr.assume", "gpu.barrier", "ttg.barrier", "tt.print", "ttg.local_barrier")
)


@dataclasses.dataclass
class Machine:
    """What runs kernels, and what they did.

    Attributes
    ----------
    memory : Memory
    decisions : dict
        Line and operation to the ways that shadows decided it, True and False.
    trips : dict
        Line of a loop to the most times that it ran, at most 2.
    kernels : set of str
        What was launched.
    axes : dict
        Kernel to the largest grid along each axis, at most 2.
    launches, programs : int
    """

    memory: Memory = dataclasses.field(default_factory=Memory)
    decisions: dict[tuple[str, str], set[bool]] = dataclasses.field(default_factory=dict)
    trips: dict[str, int] = dataclasses.field(default_factory=dict)
    kernels: set[str] = dataclasses.field(default_factory=set)
    launches: int = 0
    programs: int = 0

    def launch(
        self, name: str, body: Block, grid: tuple[int, int, int], kinds: list[Any], args: Any
    ) -> None:
        """Run every program of a grid."""
        values: list[Value] = []
        _take(kinds, args, values, self.memory)
        self.launches += 1
        self.kernels.add(name)
        with np.errstate(all="ignore"):
            for z in range(grid[2]):
                for y in range(grid[1]):
                    for x in range(grid[0]):
                        self.programs += 1
                        Program(self, (x, y, z), grid).block(body, values)

    def decide(self, op: Op, ways: Any) -> None:
        """Keep the ways that a decision went."""
        seen = self.decisions.setdefault((op.where.rsplit("/", 1)[-1], op.name), set())
        if len(seen) < 2:
            ways = np.asarray(ways)
            if ways.any():
                seen.add(True)
            if not ways.all():
                seen.add(False)


def _take(kinds: Any, args: Any, values: list[Value], memory: Memory) -> None:
    """Turn a launch's arguments into values, as Triton flattens them."""
    for kind, value in zip(kinds, args, strict=True):
        if kind == "constexpr":
            continue
        if isinstance(kind, tuple):
            _take(kind, value, values, memory)
        elif kind.startswith("*"):
            if isinstance(value, torch.Tensor):
                memory.know(value)
            address = value.data_ptr() if hasattr(value, "data_ptr") else int(value)
            values.append(np.asarray(address, np.int64))
        elif kind[:2] in ("fp", "bf"):
            values.append(value if isinstance(value, Number) else real(float(value)))
        elif kind.startswith("tensordesc"):
            raise NotFollowedError("a tensor descriptor of the host")
        else:
            element = kind.replace("u", "i", 1) if kind[0] == "u" else kind
            wrapped = np.asarray(int(value) % 2**64, np.uint64).astype(np.int64)
            values.append(wrapped.astype(INTEGERS[element]))


class Program:
    """One program of a grid."""

    def __init__(self, machine: Machine, at: tuple[int, ...], grid: tuple[int, ...]) -> None:
        self.machine, self.memory = machine, machine.memory
        self.at, self.grid = at, grid
        self.values: dict[Name, Value] = {}

    def block(self, block: Block, arguments: list[Value]) -> list[Value]:
        """Run a block's operations, and return what it yields."""
        values = self.values
        values.update(zip(block.arguments, arguments, strict=True))
        for op in block.ops:
            operands = [values[name] for name in op.operands]
            if op.name in _ENDS:
                return operands
            try:
                result = self.operation(op, operands)
            except NotFollowedError as error:
                if hasattr(error, "located"):
                    raise
                located = NotFollowedError(f"{op.where.rsplit('/', 1)[-1]}: {error}")
                located.located = True  # type: ignore[attr-defined]
                raise located from error
            if len(op.results) == 1:
                values[op.results[0]] = result
            else:
                values.update(zip(op.results, result or (), strict=True))
        return []

    def operation(self, op: Op, operands: list[Value]) -> Any:
        """Run one operation; one result is returned as it is, several as a list."""
        name = op.name
        if (pure := PURE.get(name)) is not None:
            return pure(*operands)
        if (rule := RULES.get(name)) is not None:
            return rule(self, op, operands)
        if (extreme := EXTREMES.get(name)) is not None:
            self.machine.decide(op, operands[0].x >= operands[1].x)
            return extreme(*operands)
        if name in CASTS:
            return cast(op, operands[0])
        if name in _NOTHING:
            return ()
        raise NotFollowedError(name)


def _mapped(value: Value, view: Callable[[np.ndarray], np.ndarray]) -> Value:
    """Move the elements of a value."""
    return value.map(view, value.const) if isinstance(value, Number) else view(np.asarray(value))


def _one_or_all(values: list[Value]) -> Any:
    return values[0] if len(values) == 1 else values


# --- shapes ---------------------------------------------------------------------------------------


def _broadcast(program: Program, op: Op, operands: list[Value]) -> Value:
    shape = op.results[0].shape or ()
    return _mapped(operands[0], lambda v: np.broadcast_to(v, shape))


def _reshape(program: Program, op: Op, operands: list[Value]) -> Value:
    return _mapped(operands[0], lambda v: v.reshape(op.results[0].shape or ()))


def _expand(program: Program, op: Op, operands: list[Value]) -> Value:
    return _mapped(operands[0], lambda v: np.expand_dims(v, op.integer("axis")))


def _transpose(program: Program, op: Op, operands: list[Value]) -> Value:
    return _mapped(operands[0], lambda v: v.transpose(op.integers("order")))


def _joined(operands: list[Value], axis: int) -> Value:
    if isinstance(operands[0], Number):
        return concatenate(operands, axis)
    return np.concatenate(operands, axis)


def _join(program: Program, op: Op, operands: list[Value]) -> Value:
    return _joined([_mapped(v, lambda w: w[..., None]) for v in operands], -1)


def _split(program: Program, op: Op, operands: list[Value]) -> list[Value]:
    return [_mapped(operands[0], lambda v, i=i: v[..., i]) for i in (0, 1)]  # type: ignore[misc]


def _gather(program: Program, op: Op, operands: list[Value]) -> Value:
    axis = op.integer("axis")
    return _mapped(operands[0], lambda v: np.take_along_axis(v, np.asarray(operands[1]), axis))


# --- decisions ------------------------------------------------------------------------------------


def _compare_integers(program: Program, op: Op, operands: list[Value]) -> Value:
    return compare_integers(op.predicate, *operands)


def _compare_numbers(program: Program, op: Op, operands: list[Value]) -> Value:
    result = compare_numbers(op.predicate, *operands)
    program.machine.decide(op, result)
    return result


def _select(program: Program, op: Op, operands: list[Value]) -> Value:
    condition, yes, no = operands
    if not isinstance(yes, Number):
        return np.where(condition, yes, no)
    if np.ndim(condition) == 0:
        return yes if condition else no
    return select(condition, yes, no)


def _clamp(program: Program, op: Op, operands: list[Value]) -> Value:
    value, low, high = operands
    program.machine.decide(op, (value.x > low.x) & (value.x < high.x))
    return f.clip(value, low, high)


# --- memory ---------------------------------------------------------------------------------------


def _add_pointer(program: Program, op: Op, operands: list[Value]) -> Value:
    size = max(BITS[op.results[0].type.pointee] // 8, 1)
    return operands[0] + np.asarray(operands[1]).astype(np.int64) * size


def _said(op: Op, what: str) -> str:
    return f"{op.where.rsplit('/', 1)[-1]}: {what}"


def _load(program: Program, op: Op, operands: list[Value]) -> Value:
    at, kind = np.asarray(operands[0]), op.results[0].type
    mask = np.broadcast_to(operands[1] if len(operands) > 1 else True, at.shape)
    lanes, what = at[mask], _said(op, "load")
    if not kind.is_float:
        if kind.element not in INTEGERS:
            raise NotFollowedError(f"numbers of {kind.element}")
        dtype = np.int8 if kind.element == "i1" else INTEGERS[kind.element]
        other = operands[2] if len(operands) > 2 else np.zeros((), dtype)
        integers = np.broadcast_to(other, at.shape).astype(dtype)
        integers[mask] = program.memory.load(lanes, dtype, what)
        return integers.astype(bool) if kind.element == "i1" else integers
    loaded = program.memory.load_numbers(lanes, _float_kind(kind.element), what)
    if mask.all():
        return loaded.reshape(at.shape)
    other = operands[2] if len(operands) > 2 else lift(np.nan)
    result = full(other, at.shape).copy()
    result.const = None
    result[mask] = loaded
    return result


def _float_kind(element: str) -> str:
    if element not in FLOATS:
        raise NotFollowedError(f"numbers of {element}")
    return element


def _store(program: Program, op: Op, operands: list[Value]) -> tuple:
    at, value = np.asarray(operands[0]), operands[1]
    mask = np.broadcast_to(operands[2] if len(operands) > 2 else True, at.shape)
    what = _said(op, "store")
    if isinstance(value, Number):
        kind = _float_kind(op.operands[1].element)
        program.memory.store_numbers(at[mask], full(value, at.shape)[mask], kind, what)
    else:
        array = np.broadcast_to(value, at.shape)[mask]
        if array.dtype == bool:
            array = array.astype(np.int8)
        program.memory.store(at[mask], array, what)
    return ()


_ATOMIC: dict[str, Callable[[Any, Any], Any]] = {
    "fadd": lambda old, new: old + new, "add": np.add, "max": np.maximum, "min": np.minimum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "exch": lambda old, new: new,
}  # fmt: skip


def _atomic(program: Program, op: Op, operands: list[Value]) -> Value:
    """Change memory lane by lane: two lanes may share an address."""
    how, memory, what = op.predicate, program.memory, _said(op, "atomic")
    if how not in _ATOMIC:
        raise NotFollowedError(f"an atomic {how}")
    at, value = np.asarray(operands[0]), operands[1]
    mask = np.broadcast_to(operands[2] if len(operands) > 2 else True, at.shape).reshape(-1)
    flat = at.reshape(-1)
    if isinstance(value, Number):
        kind = _float_kind(op.operands[1].element)
        values = full(value, at.shape).reshape(-1)
        result: Any = lift(np.zeros(flat.shape, np.int64))
        for i in np.flatnonzero(mask):
            lane = flat[i : i + 1]
            held = memory.load_numbers(lane, kind, what)
            memory.store_numbers(lane, _ATOMIC[how](held, values[i : i + 1]), kind, what)
            result[i : i + 1] = held
    else:
        array = np.broadcast_to(value, at.shape).reshape(-1)
        result = np.zeros_like(array)
        for i in np.flatnonzero(mask):
            lane = flat[i : i + 1]
            old = memory.load(lane, array.dtype, what)
            memory.store(lane, _ATOMIC[how](old, array[i : i + 1]).astype(array.dtype), what)
            result[i] = old[0]
    return _mapped(result, lambda v: v.reshape(at.shape))


def _compare_and_swap(program: Program, op: Op, operands: list[Value]) -> Value:
    at, expected, value = (np.asarray(v) for v in operands)
    if value.dtype.kind not in "iub" or at.ndim:
        raise NotFollowedError("compare-and-swap of anything but one integer")
    lane = at.reshape(1)
    old = program.memory.load(lane, value.dtype, _said(op, "atomic"))
    if old[0] == expected:
        program.memory.store(lane, value.reshape(1), _said(op, "atomic"))
    return old.reshape(())


# --- many elements --------------------------------------------------------------------------------


def _dot(program: Program, op: Op, operands: list[Value]) -> Value:
    left, right, start = operands
    if not isinstance(left, Number):
        return (left.astype(np.int64) @ right.astype(np.int64)).astype(start.dtype) + start
    return start + product(left, right)


def _reduce(program: Program, op: Op, operands: list[Value]) -> Any:
    """Combine halves, and halves of those; sums at once."""
    axis, region = op.integer("axis"), op.regions[0]
    parts = [_mapped(v, lambda w: np.moveaxis(w, axis, 0)) for v in operands]
    if len(region.ops) == 2 and region.ops[0].name in ("arith.addf", "arith.addi"):
        part = parts[0]
        if isinstance(part, Number):
            return part.sum(axis=0)
        return np.asarray(part.sum(axis=0, dtype=part.dtype))
    while len(parts[0]) > 1:
        halves = ([_mapped(v, lambda w, i=i: w[i::2]) for v in parts] for i in (0, 1))  # type: ignore[misc]
        parts = program.block(region, [v for half in halves for v in half])
    return _one_or_all([_mapped(v, lambda w: w[0]) for v in parts])


def _scan(program: Program, op: Op, operands: list[Value]) -> Any:
    """Combine each element with those before it, twice as far at each step."""
    axis, region = op.integer("axis"), op.regions[0]
    order = slice(None, None, -1 if op.word("reverse") == "true" else 1)
    parts = [_mapped(v, lambda w: np.moveaxis(w, axis, 0)[order]) for v in operands]
    reach = 1
    while reach < len(parts[0]):
        before = [_mapped(v, lambda w: w[:-reach]) for v in parts]  # noqa: B023
        after = [_mapped(v, lambda w: w[reach:]) for v in parts]  # noqa: B023
        combined = program.block(region, before + after)
        first = [_mapped(v, lambda w: w[:reach]) for v in parts]  # noqa: B023
        parts = [_joined([a, b], 0) for a, b in zip(first, combined, strict=True)]
        reach *= 2
    return _one_or_all([_mapped(v, lambda w: np.moveaxis(w[order], 0, axis)) for v in parts])


def _histogram(program: Program, op: Op, operands: list[Value]) -> Value:
    values = np.asarray(operands[0])
    values = values[operands[1]] if len(operands) > 1 else values
    n = op.results[0].type.size
    return np.bincount(values, minlength=n)[:n].astype(INTEGERS[op.results[0].element])


# --- control --------------------------------------------------------------------------------------


def _for(program: Program, op: Op, operands: list[Value]) -> Any:
    low, high, step, *carried = operands
    kind, n = np.asarray(low).dtype, 0
    for i in range(int(low), int(high), int(step)):
        carried = program.block(op.regions[0], [np.asarray(i, kind), *carried])
        n += 1
    trips = program.machine.trips
    where = op.where.rsplit("/", 1)[-1]
    trips[where] = max(trips.get(where, 0), min(n, 2))
    return _one_or_all(carried) if carried else ()


def _if(program: Program, op: Op, operands: list[Value]) -> Any:
    region = 0 if operands[0] else 1
    if region >= len(op.regions):
        return ()
    yielded = program.block(op.regions[region], [])
    return _one_or_all(yielded) if yielded else ()


def _while(program: Program, op: Op, operands: list[Value]) -> Any:
    values = operands
    for _ in range(MOST_TURNS):
        go_on, *values = program.block(op.regions[0], values)
        if not go_on:
            return _one_or_all(values) if values else ()
        values = program.block(op.regions[1], values)
    raise NotFollowedError(
        f"a loop that turns more than {MOST_TURNS} times, as one that waits does"
    )


def _axis(op: Op) -> int:
    return "xyz".index(op.text.split(":")[0].strip()[0])


def _assert(program: Program, op: Op, operands: list[Value]) -> tuple:
    if not np.all(operands[0]):
        raise NotFollowedError("an assertion of the kernel's that fails")
    return ()


RULES: dict[str, Callable[[Program, Op, list[Value]], Any]] = {
    "arith.constant": lambda program, op, operands: literal(op),
    "tt.splat": _broadcast, "tt.broadcast": _broadcast, "tt.expand_dims": _expand,
    "tt.reshape": _reshape, "tt.unsplat": _reshape, "tt.trans": _transpose,
    "tt.join": _join, "tt.split": _split, "tt.gather": _gather,
    "tt.cat": lambda program, op, operands: _joined(operands, 0),
    "tt.make_range": lambda program, op, operands: np.arange(
        op.integer("start"), op.integer("end"), dtype=np.int32
    ),
    "tt.get_program_id": lambda program, op, operands: np.asarray(program.at[_axis(op)], np.int32),
    "tt.get_num_programs": lambda program, op, operands: np.asarray(
        program.grid[_axis(op)], np.int32
    ),
    "tt.addptr": _add_pointer, "tt.load": _load, "tt.store": _store,
    "tt.atomic_rmw": _atomic, "tt.atomic_cas": _compare_and_swap,
    "arith.cmpi": _compare_integers, "arith.cmpf": _compare_numbers, "arith.select": _select,
    "tt.clampf": _clamp, "tt.dot": _dot, "tt.reduce": _reduce, "tt.scan": _scan,
    "tt.histogram": _histogram, "tt.assert": _assert,
    "tt.extern_elementwise": lambda program, op, operands: from_library(op, operands),
    "scf.for": _for, "scf.if": _if, "scf.while": _while,
}  # fmt: skip

__all__ = ["Machine", "Program", "Unsupported"]
