"""What a kernel says: tl.device_assert's failures, integers that left their range, tl.device_print.

Prints have a GPU's words, an element a line, and go to the C library's standard output.
"""

import re

from ..instructions.casts import computed_in
from ..instructions.ttir import BITS, Op
from .products import Products

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\([0-9A-F]{2}|\\)")


class Reports(Products):
    """Writes what is reported, at once or at a program's end."""

    def assertion(self, op: Op) -> None:
        """Report tl.device_assert's message where its condition fails, for any element."""
        condition = op.operands[0]
        if condition.shape is None:
            self.flush()
            self.out = self.scopes[self.control]
            wrong = self.set(f"xor i1 {self.scalars[condition]}, true")
        else:
            buffer = self.materialise(condition)
            self.out = self.scopes[self.control]
            wrong = self.any_element(buffer, wanted=False)
        self.complain_if(wrong, f"tl.device_assert {_quoted(op)!r}", op.where)

    def print_values(self, op: Op) -> None:
        """Print tl.device_print's operands, element by element."""
        self.flush()
        prefix = _quoted(op).replace("%", "%%")
        self.out = self.scopes[self.control]
        if not op.operands:
            self.print_line(f"pid (%d, %d, %d){prefix}")
        for number, value in enumerate(op.operands):
            shape = value.shape or ()
            index = ", ".join(f"%{len(str(n - 1))}lld" for n in shape)
            label = f"(operand {number}) " if len(op.operands) > 1 else ""
            signed = op.integers("isSigned")[number] == 1
            element = _format(value.element, signed=signed, hexadecimal="hex = true" in op.text)
            if value.shape is not None:
                buffer = self.materialise(value)
                self.out = self.scopes[self.control]
                at = self.loops(shape)
                x = self.read(buffer, at).v
            else:
                at, x = (), self.scalars[value]
            printed = self.as_printed(x, value.element, signed=signed)
            counters = [("i64", i.name) for i in at]
            self.print_line(
                f"pid (%d, %d, %d) idx ({index}){prefix}{label}{element}", *counters, printed
            )
            self.end_loops(shape)

    def as_printed(self, x: str, element: str, *, signed: bool) -> tuple[str, str]:
        """Make of a number what C's printf takes: a double or 64 bits; return its type, too."""
        if element[0] in "fb":
            x = self.widened(x, element, None)
            return "double", self.converted(x, computed_in(element), "f64", None)
        return "i64", self.resized(x, element, "i64", signed=signed and element != "i1")

    def print_line(self, text: str, *values: tuple[str, str]) -> None:
        """Call C's printf, and let the line be seen before whatever Python prints next."""
        text += "\n"
        data = "".join(f"\\{byte:02X}" for byte in (*text.encode(), 0))
        name = f"@text.{len(self.helpers)}"
        kind = f"[{len(text.encode()) + 1} x i8]"
        self.helpers[name] = f'{name} = private unnamed_addr constant {kind} c"{data}"'
        self.declared["printf"] = "declare i32 @printf(ptr, ...)"
        given = ", ".join(f"{k} {v}" for k, v in (*(("i32", f"%p{a}") for a in "xyz"), *values))
        self.set(f"call i32 (ptr, ...) @printf(ptr {name}, {given})")
        self.call("i32", "fflush", ("ptr", "null"))


def _quoted(op: Op) -> str:
    """Return the first text in quotes of an operation's line."""
    found = _QUOTED.search(op.text)
    data = _ESCAPED.sub(
        lambda m: "\\" if m[1] == "\\" else chr(int(m[1], 16)), found[1] if found else ""
    )
    return data.encode("latin-1", "replace").decode("utf-8", "replace")


def _format(element: str, *, signed: bool, hexadecimal: bool) -> str:
    """Return how printf shows an element."""
    if hexadecimal:
        return f"0x%0{max(1, BITS[element] // 4)}llx"
    if element == "ptr":
        return "0x%llx"
    if element[0] in "fb":
        return "%f"
    return "%lld" if signed else "%llu"
