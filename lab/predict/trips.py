"""How often each loop turns, in each program: a kernel's whole numbers, computed from its TTIR.

Bounds of loops come from program ids and from the arguments, by arithmetic on whole numbers. It is
done here for all programs of a launch at once, as NumPy arrays; what comes from memory or is a
float stays unknown. Beside the turns stands what one turn works: the FLOPs of `tl.dot`, the bytes
of tiles loaded and stored. By these a loop of the machine code is recognised (whole.py).
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ...kernels.native.instructions.ttir import BITS, Block, Op, Value, parse

# A whole number for each program, or one for all; None: unknown.
Number = Any

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "addi": np.add, "subi": np.subtract, "muli": np.multiply,
    "minsi": np.minimum, "minui": np.minimum, "maxsi": np.maximum, "maxui": np.maximum,
    "andi": np.bitwise_and, "ori": np.bitwise_or, "xori": np.bitwise_xor,
    "shli": np.left_shift, "shrsi": np.right_shift, "shrui": np.right_shift,
    "divsi": lambda a, b: np.where(b == 0, 0, np.trunc(a / np.where(b == 0, 1, b))).astype(int),
    "divui": lambda a, b: np.where(b == 0, 0, a // np.where(b == 0, 1, b)),
    "remsi": lambda a, b: np.where(b == 0, 0, np.fmod(a, np.where(b == 0, 1, b))),
    "remui": lambda a, b: np.where(b == 0, 0, np.fmod(a, np.where(b == 0, 1, b))),
}  # fmt: skip
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal, "ne": np.not_equal, "slt": np.less, "sle": np.less_equal,
    "sgt": np.greater, "sge": np.greater_equal, "ult": np.less, "ule": np.less_equal,
    "ugt": np.greater, "uge": np.greater_equal,
}  # fmt: skip
_UNCHANGED = ("extsi", "extui", "trunci", "index_cast", "index_castui")
MEMORY_OPS = ("tt.load", "tt.store", "tt.descriptor_load", "tt.descriptor_store")


_FOR = re.compile(r"scf\.for %\S+ = (%\S+) to (%\S+) step (%\S+)")
_SCALAR = re.compile(
    r"\s*(?P<name>%\S+) = (?P<op>arith\.\w+|tt\.get_program_id) (?P<rest>.*?)(?: loc\(|$)"
)
_NAME = re.compile(r"%[\w$.]+")


class UnknownTrips(ValueError):
    """A loop whose turns depend on data, or on what is not computed here."""


@dataclasses.dataclass(frozen=True)
class SourceLoop:
    """A loop of the source that multiplies or touches memory.

    Attributes
    ----------
    where : str
        "file:line".
    turns : np.ndarray [program]
        Of each program, the turns of the loops around it included.
    flops, bytes : float
        Of one turn of one program: of products, and of tiles loaded and stored.
    innermost : bool
        Whether it holds no other such loop.
    """

    where: str
    turns: np.ndarray
    flops: float
    bytes: float
    innermost: bool = True


def source_loops(
    ttir: str, programs: tuple[int, ...], scalars: Mapping[str, float]
) -> list[SourceLoop]:
    """Find the loops of a kernel that multiply or touch memory, and count their turns.

    Parameters
    ----------
    ttir : str
        The kernel's.
    programs : tuple of int
        Along each axis of its grid.
    scalars : dict
        Its number arguments, by name: "n_key", "query.strides.0".

    Returns
    -------
    list of SourceLoop
        In the order of the source, a loop before those that it holds.

    Raises
    ------
    UnknownTrips
        If one's turns cannot be told.
    """
    body = parse(ttir)
    return _Walk(programs, scalars).loops_of(body)


def touched(ttir: str) -> tuple[set[str], set[str]]:
    """Name the tensors that a kernel loads from, and those that it stores to.

    Parameters
    ----------
    ttir : str
        The kernel's.

    Returns
    -------
    set of str, set of str
        Names of its pointer arguments: "x_ptr", "query.ptr".
    """
    body = parse(ttir)
    origins: dict[Value, set[str]] = {
        a: {a.name.removeprefix("%")} for a in body.arguments if a.type.is_pointer
    }
    loaded: set[str] = set()
    stored: set[str] = set()

    def origin(values: Iterable[Value]) -> set[str]:
        return set().union(*(origins.get(v, set()) for v in values))

    def walk(block: Block) -> None:
        for op in block.ops:
            if op.name in MEMORY_OPS or op.name.startswith("tt.atomic"):
                into = loaded if op.name.endswith("load") else stored
                into |= origin(op.operands[:1])
                continue
            found = origin(op.operands)
            for region in op.regions:
                for argument in region.arguments:  # what a loop carries
                    origins[argument] = found
                walk(region)
                found = found | origin(region.yielded)
            for result in op.results:
                origins[result] = found

    walk(body)
    return loaded, stored


def consumer_turns(
    ttgir: str, programs: tuple[int, ...], scalars: Mapping[str, float]
) -> np.ndarray:
    """Count the turns of the loop in which a warpgroup of a specialised kernel multiplies.

    Gluon has no TTIR, and its partitions are no regions of a loop: whole numbers are read line by
    line, up to the first product within a loop.

    Parameters
    ----------
    ttgir, programs, scalars
        As of `source_loops`, in Triton's GPU IR.

    Returns
    -------
    np.ndarray [program]
        Of each program, the turns of the loops around it included.

    Raises
    ------
    UnknownTrips
        If they cannot be told.
    """
    walk = _Walk(programs, scalars)
    known: dict[str, Number] = {
        f"%{name}": np.int64(value) for name, value in scalars.items() if isinstance(value, int)
    }
    around: list[tuple[str, Number]] = []  # what begins the line that ends a loop, and its turns
    for line in ttgir.splitlines():
        if around and line.startswith(around[-1][0]):
            around.pop()
        elif found := _FOR.search(line):
            low, high, step = (known.get(name) for name in found.groups())
            turns = None
            if low is not None and high is not None and step is not None:
                turns = np.maximum(0, -((low - high) // step))
            around.append((line[: len(line) - len(line.lstrip())] + "}", turns))
        elif around and "ttng.warp_group_dot " in line:
            if any(turns is None for _, turns in around):
                break
            return math.prod([turns for _, turns in around], start=walk.everywhere)
        elif found := _SCALAR.match(line):
            known[found["name"]] = walk.scalar(found["op"], found["rest"], known)
    raise UnknownTrips("the loop of a warpgroup's products was not found, or depends on data")


class _Walk:
    """The values of whole numbers, as far as they are known."""

    def __init__(self, programs: tuple[int, ...], scalars: Mapping[str, float]) -> None:
        self.programs = (*programs, 1, 1)[:3]
        self.scalars = scalars
        self.known: dict[Value, Number] = {}
        n = int(np.prod(self.programs, dtype=np.int64))
        at = np.arange(n, dtype=np.int64)
        x, y = self.programs[:2]
        self.ids = (at % x, at // x % y, at // (x * y))  # axis 0 changes fastest
        self.everywhere = np.ones(n)
        self.found: list[SourceLoop] = []

    def loops_of(self, body: Block) -> list[SourceLoop]:
        for argument in body.arguments:
            value = self.scalars.get(argument.name.removeprefix("%"))
            whole = isinstance(value, int) and argument.shape is None
            self.known[argument] = np.int64(value) if whole else None  # type: ignore[arg-type]
        self.block(body, self.everywhere)
        return self.found

    def block(self, block: Block, times: np.ndarray) -> None:
        """Go through operations that each program does so many times."""
        for op in block.ops:
            if op.name == "scf.for":
                self.loop(op, times)
            elif op.name == "scf.if":
                self.choice(op, times)
            elif op.name == "scf.while":
                if any(_does_work(region) for region in op.regions):
                    raise UnknownTrips(f"{op.where}: a while loop, whose turns depend on data")
            elif op.results:
                self.known[op.results[0]] = self.value(op)

    def loop(self, op: Op, times: np.ndarray) -> None:
        low, high, step = (self.known.get(v) for v in op.operands[:3])
        body = op.regions[0]
        if not _does_work(body):
            return
        if low is None or high is None or step is None:
            raise UnknownTrips(f"{op.where}: a loop whose bounds depend on data")
        turns = np.maximum(0, -((low - high) // step)) * times
        flops, moved = _work(body)
        innermost = not _holds_working_loop(body)
        turns = turns * self.everywhere
        self.found.append(SourceLoop(op.where, turns, flops, moved, innermost))
        if not innermost:
            self.block(body, turns)

    def choice(self, op: Op, times: np.ndarray) -> None:
        condition = self.known.get(op.operands[0]) if op.operands else None
        if condition is None and any(_holds_loop(region) for region in op.regions):
            raise UnknownTrips(f"{op.where}: a loop under a condition that depends on data")
        share = 1.0 if condition is None else condition.astype(float)
        for region, taken in zip(op.regions, (share, 1.0 - share), strict=False):
            self.block(region, times * taken)
        yielded = [region.yielded for region in op.regions]
        if condition is not None and len(yielded) == 2:
            for result, yes, no in zip(op.results, *yielded, strict=True):
                a, b = self.known.get(yes), self.known.get(no)
                if a is not None and b is not None:
                    self.known[result] = np.where(condition, a, b)

    def scalar(self, op: str, text: str, known: Mapping[str, Number]) -> Number:
        """Compute what a line of IR says of a whole number."""
        if op == "tt.get_program_id":
            return self.ids["xyz".index(text.strip()[0])]
        if op == "arith.constant":
            return _constant(text)
        predicate, _, _ = text.partition(",")
        operands = [known.get(name) for name in _NAME.findall(text.partition(" : ")[0])]
        return _computed(op.removeprefix("arith."), predicate.strip(), operands)

    def value(self, op: Op) -> Number:
        """Compute one operation on whole numbers."""
        dialect, _, name = op.name.partition(".")
        if op.results[0].shape is not None or op.results[0].type.is_pointer:
            return None
        if op.name == "tt.get_program_id":
            return self.ids["xyz".index(op.text.strip()[0])]
        if op.name == "tt.get_num_programs":
            return np.int64(self.programs["xyz".index(op.text.strip()[0])])
        if op.name == "arith.constant":
            return _constant(op.text)
        if dialect != "arith":
            return None
        return _computed(name, op.predicate, [self.known.get(v) for v in op.operands])


def _computed(name: str, predicate: str, operands: list[Number]) -> Number:
    """Compute one operation of arith."""
    if any(v is None for v in operands):
        return None
    if name in _UNCHANGED:
        return operands[0]
    if name == "cmpi":
        return _COMPARISONS[predicate](operands[0], operands[1])
    if name == "select":
        return np.where(operands[0], operands[1], operands[2])
    if name in _ARITHMETIC:
        return _ARITHMETIC[name](operands[0], operands[1])
    return None


def _constant(text: str) -> Number:
    words = text.strip()
    if words.startswith(("true", "false")):
        return np.bool_(words.startswith("true"))
    found = re.match(r"(-?\d+) : (?:i\d+|index)", words)
    return np.int64(int(found[1])) if found else None


def _holds_loop(block: Block) -> bool:
    return any(
        op.name in ("scf.for", "scf.while") or any(_holds_loop(r) for r in op.regions)
        for op in block.ops
    )


def _holds_working_loop(block: Block) -> bool:
    return any(
        (op.name == "scf.for" and _does_work(region)) or _holds_working_loop(region)
        for op in block.ops
        for region in op.regions
    )


def _does_work(block: Block) -> bool:
    return any(
        op.name in (*MEMORY_OPS, "tt.dot") or any(_does_work(r) for r in op.regions)
        for op in block.ops
    )


def _work(block: Block) -> tuple[float, float]:
    """Sum up one turn: FLOPs of products, and bytes of tiles."""
    flops = moved = 0.0
    for op in block.ops:
        if op.name == "tt.dot":
            (m, k), (_, n) = (v.shape or (1, 1) for v in op.operands[:2])
            flops += 2.0 * m * n * k
        elif op.name in MEMORY_OPS:
            tile = op.results[0].type if op.results else op.operands[1].type
            moved += tile.size * BITS.get(tile.element, 32) / 8
        for region in op.regions:
            inner = _work(region)
            flops, moved = flops + inner[0], moved + inner[1]
    return flops, moved
