"""libdevice's functions of integers and of bits, and its conversions to integers.

What it has of real numbers, `functions` and the C library have; see `arithmetic`.
"""

import re
from typing import TYPE_CHECKING

from .ttir import BITS, Op
from .writer import llvm_type

if TYPE_CHECKING:
    from .arithmetic import Arithmetic

# llrint, llround, float2uint_rd ...
_TO_INTEGER = re.compile(
    r"(?:float|double)2(?P<unsigned>u?)(?:int|ll)_r(?P<rounding>[nzdu])|ll?(?P<nearest>rint|round)f?"
)
_ROUNDINGS = {
    "n": "roundeven", "z": "trunc", "d": "floor", "u": "ceil", "rint": "roundeven",
    "round": "round",
}  # fmt: skip
_BITS_OF = (
    "float_as_int", "float_as_uint", "int_as_float", "uint_as_float", "double_as_longlong",
    "longlong_as_double",
)  # fmt: skip
_EXTREMES = {
    "max": "smax", "min": "smin", "umax": "umax", "umin": "umin", "llmax": "smax",
    "llmin": "smin", "ullmax": "umax", "ullmin": "umin",
}  # fmt: skip
_COUNTS = {
    "clz": "ctlz", "clzll": "ctlz", "popc": "ctpop", "popcll": "ctpop", "ffs": "cttz",
    "ffsll": "cttz", "brev": "bitreverse", "brevll": "bitreverse", "abs": "abs", "llabs": "abs",
}  # fmt: skip
_HIGH = {"mulhi": "sext", "umulhi": "zext", "mul64hi": "sext", "umul64hi": "zext"}
_MEANS = {"hadd": ("sext", 0), "uhadd": ("zext", 0), "rhadd": ("sext", 1), "urhadd": ("zext", 1)}


def name_of(op: Op) -> str:
    """Return the name of a libdevice function that is written here, else nothing."""
    name = op.word("symbol").removeprefix("__nv_")
    known = {*_BITS_OF, *_EXTREMES, *_COUNTS, *_HIGH, *_MEANS}
    return name if name in known or _TO_INTEGER.fullmatch(name) else ""


def call(g: "Arithmetic", name: str, op: Op, operands: list[str], width: int | None) -> str:
    """Write a function that `name_of` has named."""
    source, target = op.operands[0].element, op.results[0].element
    kind = llvm_type(source, width)
    if found := _TO_INTEGER.fullmatch(name):
        rounding = _ROUNDINGS[found["nearest"] or found["rounding"]]
        whole = g.intrinsic(rounding, source, width, operands)
        opcode = "fptoui" if found["unsigned"] else "fptosi"
        return g.to_integer(opcode, whole, source, target, width)
    if name in _BITS_OF:
        return g.set(f"bitcast {kind} {operands[0]} to {llvm_type(target, width)}")
    if name in _EXTREMES:
        return g.intrinsic(_EXTREMES[name], source, width, operands)
    if name in _COUNTS:
        more = [("i1", "false")] if _COUNTS[name] in ("ctlz", "cttz", "abs") else []
        result = g.intrinsic(_COUNTS[name], source, width, operands, *more)
        if _COUNTS[name] == "cttz":  # the first bit is number 1, and there is none in 0
            zero, one = (g.number(n, source, width) for n in (0, 1))
            is_zero = g.set(f"icmp eq {kind} {operands[0]}, {zero}")
            result = g.set(f"add {kind} {result}, {one}")
            mask = llvm_type("i1", width)
            result = g.set(f"select {mask} {is_zero}, {kind} {zero}, {kind} {result}")
        return g.resized(result, source, target, width)
    opcode, more_by = (_HIGH[name], 0) if name in _HIGH else _MEANS[name]
    shift = BITS[source] if name in _HIGH else 1
    wide = f"<{width} x i{2 * BITS[source]}>" if width else f"i{2 * BITS[source]}"
    a, b = (g.set(f"{opcode} {kind} {v} to {wide}") for v in operands)
    result = g.set(f"{'mul' if name in _HIGH else 'add'} {wide} {a}, {b}")

    def constant(n: int) -> str:
        return f"splat (i{2 * BITS[source]} {n})" if width else str(n)

    if more_by:
        result = g.set(f"add {wide} {result}, {constant(more_by)}")
    result = g.set(f"lshr {wide} {result}, {constant(shift)}")
    return g.set(f"trunc {wide} {result} to {kind}")
