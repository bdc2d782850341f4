"""LLVM IR as text, written into scopes that stay open.

A scope is a stretch of code with one entry and one end: the function's body, a loop's, a branch's.
While an inner scope is open, code can still be added to an outer one, and will stand before it. So
a value is computed in the outermost loop that knows its indices, and no pass has to move code.
"""

import contextlib
import dataclasses
import struct
from collections.abc import Callable, Iterator

LLVM_TYPES = {
    "i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "index": "i64", "ptr": "i64",
    "f16": "half", "bf16": "i16", "f32": "float", "f64": "double",
    "f8E5M2": "i8", "f8E4M3FN": "i8", "f8E4M3FNUZ": "i8", "f8E5M2FNUZ": "i8",
}  # fmt: skip
# What an element takes in memory; a truth value takes a byte there.
BYTES = {
    "i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "index": 8, "ptr": 8,
    "f16": 2, "bf16": 2, "f32": 4, "f64": 8,
    "f8E5M2": 1, "f8E4M3FN": 1, "f8E4M3FNUZ": 1, "f8E5M2FNUZ": 1,
}  # fmt: skip


def llvm_type(element: str, width: int | None = None) -> str:
    """Name a type. bfloat16 and float8 are held as their bits, a pointer as an integer."""
    scalar = LLVM_TYPES[element]
    return f"<{width} x {scalar}>" if width else scalar


def memory_type(element: str, width: int | None = None) -> str:
    """Name the type that an element has in memory."""
    return llvm_type("i8" if element == "i1" else element, width)


def float_literal(value: float, element: str = "f32") -> str:
    """Write a number as a constant of a floating-point type."""
    if element == "f16":
        return bits_literal(int.from_bytes(struct.pack("<e", value), "little"), element)
    if element in ("f32", "bf16"):
        bits = int.from_bytes(struct.pack("<f", value), "little")
        if element == "f32" or value != value:
            return bits_literal(bits, "f32") if element == "f32" else str(bits >> 16)
        return str(bits + 0x7FFF + (bits >> 16 & 1) >> 16)  # to nearest, ties to even
    if element == "f64":
        return f"0x{int.from_bytes(struct.pack('<d', value), 'little'):016X}"
    raise NotImplementedError(f"a constant of type {element}")


def bits_literal(bits: int, element: str) -> str:
    """Write the number that has these bits."""
    if element == "f16":
        return f"0xH{bits:04X}"
    if element == "f64":
        return f"0x{bits:016X}"
    if element != "f32":
        return str(bits)
    sign, exponent, mantissa = bits >> 31, bits >> 23 & 0xFF, bits & 0x7FFFFF
    if exponent == 0xFF:  # LLVM writes float32 as float64; Python's cast would quieten a NaN
        return f"0x{sign << 63 | 0x7FF << 52 | mantissa << 29:016X}"
    (single,) = struct.unpack("<f", struct.pack("<I", bits))
    return f"0x{int.from_bytes(struct.pack('<d', single), 'little'):016X}"


def literal(text: str) -> int | None:
    """Return the integer that an LLVM value is, if it is a constant."""
    if text in ("true", "false"):
        return int(text == "true")
    return int(text) if text.lstrip("-").isdigit() else None


@dataclasses.dataclass(eq=False)
class Scope:
    """Code that is being written.

    `label` names the basic block that the next line falls into; `memo` what has been computed.
    `index`, `start`, `count` and `step` are of a loop, which may have no turn if it is `guarded`.
    """

    first: str
    lines: list[str] = dataclasses.field(default_factory=list)
    memo: dict = dataclasses.field(default_factory=dict)
    label: str = ""
    index: str = ""
    start: str = "0"
    count: int | str = 0
    step: int = 1
    guarded: bool = False

    def __post_init__(self) -> None:
        self.label = self.label or self.first


class Writer:
    """A function that is being written."""

    def __init__(self) -> None:
        self.n_names = 0
        self.scopes = [Scope("entry")]
        self.out = self.scopes[0]
        self.declared: dict[str, str] = {}  # functions that are called, by name
        self.allocas: list[str] = []

    # -- lines ---------------------------------------------------------------------------------

    def fresh(self, prefix: str = "v") -> str:
        """Return a name that is not in use, without its sigil."""
        self.n_names += 1
        return f"{prefix}{self.n_names}"

    def line(self, text: str) -> None:
        """Write a line."""
        self.out.lines.append("  " + text)

    def set(self, text: str) -> str:
        """Write an instruction; return the name of its result."""
        name = "%" + self.fresh()
        self.out.lines.append(f"  {name} = {text}")
        return name

    def begin(self, label: str) -> None:
        """Begin a basic block."""
        self.out.lines.append(f"{label}:")
        self.out.label = label

    def jump(self, label: str) -> None:
        """End a basic block: go to another."""
        self.line(f"br label %{label}")

    def fork(self, condition: str, then: str, otherwise: str, likely: bool | None = None) -> None:
        """End a basic block: go to one of two."""
        weights = {True: ", !prof !1", False: ", !prof !0", None: ""}[likely]
        self.line(f"br i1 {condition}, label %{then}, label %{otherwise}{weights}")

    def alloca(self, kind: str) -> str:
        """Reserve a slot on the stack, once for the whole function."""
        name = "%" + self.fresh("slot")
        self.allocas.append(f"  {name} = alloca {kind}, align 64")
        return name

    def call(self, result: str, name: str, *arguments: tuple[str, str]) -> str:
        """Call a function; arguments are (type, value)."""
        kinds = ", ".join(kind for kind, _ in arguments)
        self.declared.setdefault(name, f"declare {result} @{name}({kinds})")
        given = ", ".join(f"{kind} {value}" for kind, value in arguments)
        if result == "void":
            self.line(f"call void @{name}({given})")
            return ""
        return self.set(f"call {result} @{name}({given})")

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Forget, at the end, what was computed in between: it stands in a branch."""
        scope = self.out
        before, scope.memo = scope.memo, dict(scope.memo)
        yield
        scope.memo = before

    def branch(self, condition: str, write: Callable[[], None]) -> None:
        """Write code that runs if a condition holds."""
        if literal(condition) == 1:
            write()
            return
        then, end = self.fresh("then"), self.fresh("end")
        self.fork(condition, then, end)
        self.begin(then)
        with self.apart():
            write()
        self.jump(end)
        self.begin(end)

    # -- loops ---------------------------------------------------------------------------------

    def open_loop(
        self, count: int | str, step: int = 1, start: str = "0", *, guarded: bool = False
    ) -> str:
        """Open the scope of a loop from `start` to `count`; return its index, an i64.

        It runs at least once, unless it is guarded.
        """
        scope = Scope(
            self.fresh("body"), index="%" + self.fresh("i"), start=start, count=count, step=step,
            guarded=guarded,
        )  # fmt: skip
        self.scopes.append(scope)
        self.out = scope
        return scope.index

    def close_loop(self) -> None:
        """Close the innermost scope, which is a loop's."""
        scope, outer = self.scopes.pop(), self.scopes[-1]
        self.out = outer
        following, more, done = "%" + self.fresh(), "%" + self.fresh(), self.fresh("done")
        if scope.guarded:
            some = self.set(f"icmp ult i64 {scope.start}, {scope.count}")
            self.fork(some, scope.first, done)
        else:
            self.jump(scope.first)
        outer.lines += [
            f"{scope.first}:",
            f"  {scope.index} = phi i64 [ {scope.start}, %{outer.label} ], "
            f"[ {following}, %{scope.label} ]",
            *scope.lines,
            f"  {following} = add nuw nsw i64 {scope.index}, {scope.step}",
            f"  {more} = icmp ult i64 {following}, {scope.count}",
            f"  br i1 {more}, label %{scope.first}, label %{done}",
            f"{done}:",
        ]
        outer.label = done
