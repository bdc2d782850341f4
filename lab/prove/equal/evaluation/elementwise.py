"""What TTIR's elementwise operations mean: Numbers for floats, NumPy's integers for the others."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .....kernels.native.instructions.ttir import Op
from ..algebra import functions as f
from ..algebra.constants import meaning
from ..algebra.number import (
    NotFollowedError,
    Number,
    add,
    constant,
    lift,
    maximum,
    minimum,
    multiply,
)

Value = Any  # a Number, or an array of integers or bools; scalars have no axes

INTEGERS: dict[str, Any] = {
    "i1": np.bool_, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "index": np.int64, "ptr": np.int64,
}  # fmt: skip
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
_FLOAT_BITS = {"f16": np.float16, "f32": np.float32, "f64": np.float64}


def unsigned(value: Value) -> np.ndarray:
    """View integers as unsigned ones."""
    array = np.asarray(value)
    return array.view(np.uint8 if array.dtype == bool else _UNSIGNED[array.dtype.itemsize])


def _signed(function: Callable[..., Any]) -> Callable[..., Value]:
    """Make of a function of unsigned integers one of signed ones that hold the same bits."""

    def call(*values: Value) -> Value:
        result = np.asarray(function(*map(unsigned, values)))
        return result.view(np.asarray(values[0]).dtype)

    return call


def _quotient(a: Value, b: Value) -> Value:
    """Divide towards 0; by 0 gives anything."""
    wide = np.asarray(a).astype(np.int64)  # the least integer has no absolute value
    b = np.where(b == 0, 1, b).astype(np.int64)
    quotient = np.sign(wide) * np.sign(b) * (np.abs(wide) // np.abs(b))
    return quotient.astype(np.asarray(a).dtype)


def _remainder(a: Value, b: Value) -> Value:
    return (a - _quotient(a, b) * b).astype(np.asarray(a).dtype)


def _high_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.itemsize > 4:
        raise NotFollowedError("the high half of a product of 64 bits")
    half = np.uint64(8 * a.dtype.itemsize)
    return (a.astype(np.uint64) * b.astype(np.uint64) >> half).astype(a.dtype)


PURE: dict[str, Callable[..., Value]] = {
    "arith.addi": np.add, "arith.subi": np.subtract, "arith.muli": np.multiply,
    "arith.andi": np.bitwise_and, "arith.ori": np.bitwise_or, "arith.xori": np.bitwise_xor,
    "arith.maxsi": np.maximum, "arith.minsi": np.minimum,
    "arith.divsi": _quotient, "arith.remsi": _remainder,
    "arith.floordivsi": np.floor_divide,
    "arith.shli": np.left_shift, "arith.shrsi": np.right_shift,
    "arith.shrui": _signed(np.right_shift),
    "arith.divui": _signed(np.floor_divide), "arith.remui": _signed(np.remainder),
    "arith.maxui": _signed(np.maximum), "arith.minui": _signed(np.minimum),
    "tt.mulhiui": _signed(_high_product), "math.absi": np.abs,
    "arith.addf": add, "arith.subf": lambda a, b: a - b, "arith.mulf": multiply,
    "arith.divf": lambda a, b: a / b, "tt.precise_divf": lambda a, b: a / b,
    "arith.negf": lambda a: -a, "math.absf": abs, "math.fma": lambda a, b, c: a * b + c,
    "math.exp": f.exp, "math.exp2": lambda a: f.exp(a, base_2=True),
    "math.log": f.log, "math.log2": lambda a: f.log(a, base_2=True),
    "math.sqrt": f.sqrt, "tt.precise_sqrt": f.sqrt, "math.rsqrt": lambda a: 1 / f.sqrt(a),
    "math.erf": f.erf, "math.tanh": f.tanh,
    "math.floor": lambda a: f.whole(a, np.floor), "math.ceil": lambda a: f.whole(a, np.ceil),
    "arith.extf": lambda a: a, "arith.truncf": lambda a: a, "tt.fp_to_fp": lambda a: a,
}  # fmt: skip

# Those whose result hangs on which of two shadows is greater.
EXTREMES: dict[str, Callable[[Value, Value], Number]] = {
    "arith.maxnumf": maximum, "arith.maximumf": maximum,
    "arith.minnumf": minimum, "arith.minimumf": minimum,
}  # fmt: skip

LIBDEVICE: dict[str, Callable[..., Number]] = {
    "tanh": f.tanh, "erf": f.erf, "exp": f.exp, "log": f.log, "sqrt": f.sqrt,
    "log1p": lambda a: f.log(1 + a), "expm1": lambda a: f.exp(a) - 1,
    "rsqrt": lambda a: 1 / f.sqrt(a), "exp2": lambda a: f.exp(a, base_2=True),
    "log2": lambda a: f.log(a, base_2=True), "fabs": abs,
    "rint": lambda a: f.whole(a, np.rint), "nearbyint": lambda a: f.whole(a, np.rint),
    "round": lambda a: f.whole(a, lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x)),
    "floor": lambda a: f.whole(a, np.floor), "ceil": lambda a: f.whole(a, np.ceil),
    "trunc": lambda a: f.whole(a, np.trunc), "fma": lambda a, b, c: a * b + c,
    "fast_expf": f.exp, "fast_logf": f.log, "fast_dividef": lambda a, b: a / b,
    "div_rn": lambda a, b: a / b,
}  # fmt: skip


def from_library(op: Op, values: list[Value]) -> Number:
    """Call a function of CUDA's library by its symbol, such as __nv_tanhf."""
    symbol = op.word("symbol").removeprefix("__nv_")
    function = LIBDEVICE.get(symbol) or LIBDEVICE.get(symbol.removesuffix("f"))
    if function is None:
        raise NotFollowedError(f"{symbol} of CUDA's library")
    return function(*values)


def compare_integers(how: str, a: Value, b: Value) -> Value:
    """Compare by MLIR's word, such as "slt"."""
    if how in ("eq", "ne"):
        return _COMPARISONS[how](a, b)
    if how[0] == "u":
        a, b = unsigned(a), unsigned(b)
    return _COMPARISONS[how[1:]](a, b)


def compare_numbers(how: str, a: Number, b: Number) -> Value:
    """Compare shadows by MLIR's word: "oeq" is false, "ueq" true where one is NaN."""
    nan = np.isnan(a.x) | np.isnan(b.x)
    if how in ("ord", "uno"):
        return nan == (how == "uno")
    if how in ("true", "false"):
        return np.full(nan.shape, how == "true")
    holds = _COMPARISONS[how[1:]](a.x, b.x)
    return holds | nan if how[0] == "u" else holds & ~nan


def literal(op: Op) -> Value:
    """Read a constant."""
    kind = op.results[0].type
    found = re.search(r"dense<([^>]*)>", op.text)
    word = (found[1] if found else op.text.split(":")[0]).strip().split(" ")[0]
    if word.startswith("["):
        raise NotFollowedError("a constant with elements that differ")
    if not kind.is_float:
        number = {"true": 1, "false": 0}.get(word)
        number = int(word, 0) if number is None else number
        array = np.asarray(number).astype(INTEGERS[kind.element])
        return np.broadcast_to(array, kind.shape or ())
    return real(_float(word, kind.element), kind.shape or ())


def real(value: float, shape: tuple[int, ...] = ()) -> Number:
    """Make a Number of a kernel's float: what it was meant to be."""
    if np.isfinite(value):
        return constant(meaning(value), shape)
    return lift(np.full(shape, value))


def _float(word: str, element: str) -> float:
    if not word.startswith("0x"):
        value = float(word)
        return float(np.float32(value)) if element == "f32" else value
    bits = int(word, 16)
    if element == "bf16":
        return float(np.array([bits << 16], np.uint32).view(np.float32)[0])
    dtype = _FLOAT_BITS[element]
    return float(np.array([bits], _UNSIGNED[np.dtype(dtype).itemsize]).view(dtype)[0])


def cast(op: Op, value: Value) -> Value:
    """Convert between integers, bools, addresses and Numbers."""
    name, target = op.name, op.results[0].element
    if isinstance(value, Number):
        if name in ("arith.fptosi", "arith.fptoui"):
            return _truncated(value.x, INTEGERS[target])
        if op.results[0].type.is_float:
            return value
        if op.operands[0].element == "bf16":
            bits = value.x.astype(np.float32).view(np.uint32) >> 16
            return bits.astype(np.uint16).view(np.int16)
        dtype = _FLOAT_BITS[op.operands[0].element]
        return value.x.astype(dtype).view(INTEGERS[target])  # bits follow the shadow
    array = np.asarray(value)
    if name == "arith.extsi" and array.dtype == bool:
        return -array.astype(INTEGERS[target])
    if name in ("arith.sitofp", "arith.uitofp"):
        if array.dtype == bool:
            return lift(-array.astype(int) if name == "arith.sitofp" else array)
        return lift(unsigned(array) if name == "arith.uitofp" else array)
    if name == "arith.extui":
        return (array if array.dtype == bool else unsigned(array)).astype(INTEGERS[target])
    if op.results[0].type.is_float:  # bits
        return lift(array.view(_FLOAT_BITS[target]).astype(float))
    if target == "i1":
        return (array & 1).astype(bool)
    return array.astype(INTEGERS[target])


CASTS = frozenset(
    f"arith.{name}"
    for name in (
        "extsi", "extui", "trunci", "index_cast", "index_castui", "sitofp", "uitofp", "fptosi",
        "fptoui", "bitcast",
    )
) | {"tt.bitcast", "tt.int_to_ptr", "tt.ptr_to_int"}  # fmt: skip


def _truncated(x: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(np.int64).astype(dtype)
