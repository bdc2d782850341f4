"""A kernel as one function of LLVM IR that runs a range of a grid's programs.

    void run(arguments, bounds, arena, report, first, last, grid x, y, z)

`arguments` has 8 bytes for each; `bounds` the first and the end address of each tensor; `arena` is
memory for the kernel's tiles; `report` takes the first fault. Programs are numbered with x fastest.
"""

import dataclasses

from .instructions.arithmetic import C_LIBRARY, MATH
from .instructions.memory import COMPLAIN
from .instructions.ttir import Block, Op, Value, parse
from .instructions.writer import Scope, llvm_type
from .loops.control import Control

_HEAD = (
    "define void @run(ptr noalias %arguments, ptr noalias %bounds, ptr noalias align 64 %arena, "
    "ptr noalias %report, i64 %first, i64 %last, i32 %gx, i32 %gy, i32 %gz) {"
)
_PROGRAM = """\
  %gxw = zext i32 %gx to i64
  %gyw = zext i32 %gy to i64
  %pxw = urem i64 %program, %gxw
  %rest = udiv i64 %program, %gxw
  %pyw = urem i64 %rest, %gyw
  %pzw = udiv i64 %rest, %gyw
  %px = trunc i64 %pxw to i32
  %py = trunc i64 %pyw to i32
  %pz = trunc i64 %pzw to i32"""
_WEIGHTS = """\
!0 = !{!"branch_weights", i32 1, i32 100000}
!1 = !{!"branch_weights", i32 1000, i32 1}"""

_INEXACT = ("tt.dot", "tt.extern_elementwise")


@dataclasses.dataclass
class Code:
    """A kernel's code and what running it takes.

    Attributes
    ----------
    text : str
        A module of LLVM IR.
    arena_bytes : int
        Memory that a program needs.
    sites : list of (str, str)
        What a report's number means: the fault, and its line.
    library : dict of str
        Functions that must be linked: name to LLVM IR.
    together : bool
        Whether programs wait for one another.
    exact : bool
        Whether every result is the one that IEEE 754 prescribes: no sum of floats whose order is
        free, and no function that is right to a few units in the last place alone.
    apart : list of (int, int, bool)
        Arguments, by number, of which the second may be written before all of the first is read.
        The bool says if both are accessed at the same places: then they may begin together.
    """

    text: str
    arena_bytes: int
    sites: list[tuple[str, str]]
    library: dict[str, str]
    together: bool
    exact: bool
    apart: list[tuple[int, int, bool]]


class Kernel(Control):
    """Writes the function."""

    numbers: dict[Value, int]  # of the arguments that are pointers

    def argument_of(self, pointer: Value) -> int | None:
        """Return the number of the argument that a pointer came from, if that is known."""
        return self.numbers.get(self.origin(pointer))

    def write_kernel(self, body: Block) -> str:
        """Write the module of a kernel."""
        entry = self.scopes[0]
        self.numbers = {v: i for i, v in enumerate(body.arguments) if v.type.is_pointer}
        for i, value in enumerate(body.arguments):
            self.read_argument(i, value)
        self.line("%nowhere = ptrtoint ptr %arena to i64")
        scope = Scope("programs")
        self.scopes.append(scope)
        self.control, self.out = 1, scope
        scope.lines += _PROGRAM.split("\n")
        self.execute_block(body)
        lines = [
            _HEAD, "entry:", *self.allocas, *entry.lines,
            "  %any = icmp slt i64 %first, %last",
            "  br i1 %any, label %programs, label %finish",
            "programs:",
            f"  %program = phi i64 [ %first, %{entry.label} ], [ %following, %{scope.label} ]",
            *scope.lines,
            "  %following = add i64 %program, 1",
            "  %more = icmp slt i64 %following, %last",
            "  br i1 %more, label %programs, label %finish",
            "finish:", "  ret void", "}",
            *self.helpers.values(), *self.declared.values(),
            COMPLAIN if self.sites else "", _WEIGHTS,
        ]  # fmt: skip
        return "\n".join(lines)

    def read_argument(self, i: int, value: Value) -> None:
        """Load an argument from its slot, and a tensor's bounds."""
        slot = self.set(f"getelementptr i64, ptr %arguments, i64 {i}")
        if value.element == "i1":
            byte = self.set(f"load i64, ptr {slot}")
            self.scalars[value] = self.set(f"trunc i64 {byte} to i1")
        else:
            self.scalars[value] = self.set(f"load {llvm_type(value.element)}, ptr {slot}")
        if value.type.is_pointer and self.checked:
            for name, j in (("low", 2 * i), ("high", 2 * i + 1)):
                at = self.set(f"getelementptr i64, ptr %bounds, i64 {j}")
                self.line(f"%{name}{i} = load i64, ptr {at}")


def generate(
    text: str, *, checked: bool = True, vectors: bool = True, ordered: bool = False
) -> Code:
    """Translate a module of TTIR with one kernel.

    Parameters
    ----------
    text : str
        The module.
    checked : bool
        Check the bounds of each access.
    vectors : bool
        Several lanes at a time. Without, code is slower by an order of magnitude, and is compiled
        faster by as much.
    ordered : bool
        Take it that all arguments may share memory.

    Returns
    -------
    Code

    Raises
    ------
    Unsupported
        Naming the operation that this backend lacks and its line.
    """
    kernel, body = Kernel(checked=checked, vectors=vectors), parse(text)
    kernel.ordered = ordered
    module = kernel.write_kernel(body)
    told = kernel.arena_bytes, kernel.sites, kernel.library, kernel.waits, _is_exact(body)
    return Code(module, *told, sorted(kernel.order_free))


def _is_exact(block: Block) -> bool:
    """Say whether whoever executes a block correctly gets the same bits; see `Code.exact`."""
    return all(_op_is_exact(op) and all(map(_is_exact, op.regions)) for op in block.ops)


def _op_is_exact(op: Op) -> bool:
    if op.name in ("tt.reduce", "tt.scan"):
        return not any(o.name in ("arith.addf", "arith.mulf") for o in op.regions[0].ops)
    if op.name == "tt.atomic_rmw":
        return op.predicate != "fadd"
    return not (op.name in MATH or op.name in C_LIBRARY or op.name in _INEXACT)
