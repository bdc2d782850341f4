"""Which function stands for which symbol."""

import functools
import math
from collections.abc import Callable

import numpy as np

from . import integers, special
from .rounding import rounded

Function = Callable[..., np.ndarray]


def find(symbol: str) -> Function:
    """Give the function that stands for a symbol of libdevice.

    Parameters
    ----------
    symbol : str
        Such as "__nv_tanhf".

    Returns
    -------
    callable
        Of arrays of the types in the symbol's signature; the caller casts the result.

    Raises
    ------
    NotImplementedError
        If none does.
    """
    name = symbol.removeprefix("__nv_")
    table = _table()
    if name == symbol or name not in table:
        raise NotImplementedError(
            f"extern function: expected one of libdevice's that the interpreter knows, got {symbol}"
            " (likely cause: a library of one's own, or of another GPU)"
        )
    return table[name]


@functools.cache
def _table() -> dict[str, Function]:
    table = dict(_AS_THEY_COME)
    for name, function in _REAL.items():
        table[name] = function
        table[f"{name}f"] = _through_float64(function)
    for name, function in _FAST.items():
        table[f"fast_{name}f"] = _through_float64(function)
    table["fast_fdividef"] = _through_float64(_divide_fast)
    for name, function in _SAME_TYPE.items():
        table[name] = table[f"{name}f"] = function
    for mode in ("rn", "rz", "rd", "ru"):
        for operation in ("add", "sub", "mul", "div", "rcp", "sqrt"):
            table[f"f{operation}_{mode}"] = rounded(operation, mode, np.float32)
            table[f"d{operation}_{mode}"] = rounded(operation, mode, np.float64)
        table[f"fmaf_{mode}"] = rounded("fma", mode, np.float32)
        table[f"fma_{mode}"] = rounded("fma", mode, np.float64)
        table[f"double2float_{mode}"] = rounded("convert", mode, np.float32)
        for short, dtype in _INTEGERS.items():
            for source in ("float", "double"):
                table[f"{source}2{short}_{mode}"] = integers.to_integer(mode, dtype)
            table[f"{short}2float_{mode}"] = rounded("convert", mode, np.float32)
            table[f"{short}2double_{mode}"] = rounded("convert", mode, np.float64)
    table["fmaf"], table["fma"] = table["fmaf_rn"], table["fma_rn"]
    table["frsqrt_rn"] = rounded("rsqrt", "rn", np.float32)
    return table


def _through_float64(function: Function) -> Function:
    """Compute in float64 what is called in float32; the caller rounds."""

    def compute(*arrays: np.ndarray) -> np.ndarray:
        return function(*(a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays))

    return compute


# --- functions of real numbers --------------------------------------------------------------------


def _sinpi(x: np.ndarray) -> np.ndarray:
    """sin(pi x): the multiple of 1/2 is taken off exactly, so that whole numbers give 0."""
    x = np.where(np.isinf(x), np.nan, x)
    quarter = np.rint(2 * np.fmod(x, 2.0))  # x = quarter / 2 + rest, |rest| <= 1/4
    rest = np.pi * (np.fmod(x, 2.0) - quarter / 2)
    turn = np.nan_to_num(quarter).astype(np.int64) % 4
    result = np.select(
        [turn == 0, turn == 1, turn == 2],
        [np.sin(rest), np.cos(rest), -np.sin(rest)],
        -np.cos(rest),
    )
    return np.where(result == 0, np.copysign(0.0, x), result)


def _cospi(x: np.ndarray) -> np.ndarray:
    size = np.fmod(np.abs(np.where(np.isinf(x), np.nan, x)), 2.0)
    quarter = np.rint(2 * size)
    rest = np.pi * (size - quarter / 2)
    turn = np.nan_to_num(quarter).astype(np.int64) % 4
    result = np.select(
        [turn == 0, turn == 1, turn == 2],
        [np.cos(rest), -np.sin(rest), -np.cos(rest)],
        np.sin(rest),
    )
    return np.where(result == 0, 0.0, result)


def _norm(*x: np.ndarray) -> np.ndarray:
    """Euclidean norm; scaled by a power of two, so that no square overflows or vanishes."""
    scaled, exponent = _scaled_norm(*x)
    return np.ldexp(scaled, exponent)


def _reciprocal_norm(*x: np.ndarray) -> np.ndarray:
    scaled, exponent = _scaled_norm(*x)
    return np.ldexp(1 / scaled, -exponent)


def _scaled_norm(*x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    largest = functools.reduce(np.fmax, map(np.abs, x))
    _, exponent = np.frexp(np.where(np.isfinite(largest), largest, 1.0))
    squares = sum(np.square(np.ldexp(part, -exponent)) for part in x)
    infinite = functools.reduce(np.logical_or, map(np.isinf, x))  # even beside a NaN
    return np.where(infinite, np.inf, np.sqrt(squares)), exponent


def _round(x: np.ndarray) -> np.ndarray:
    """Round to the nearest whole number, halves away from zero."""
    whole = np.trunc(x)
    up = np.abs(x - whole) >= 0.5
    return np.copysign(np.abs(whole) + up.astype(x.dtype), x)


def _remainder(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """IEEE remainder: the quotient is rounded to the nearest even number."""
    valid = np.isfinite(x) & ~np.isnan(y) & (y != 0)
    safe_x, safe_y = np.where(valid, x, 0.0), np.where(valid, y, 1.0)
    exact = np.asarray(np.frompyfunc(math.remainder, 2, 1)(safe_x, safe_y), dtype=np.float64)
    return np.where(valid, exact, np.nan).astype(x.dtype)


def _positive_difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x) | np.isnan(y), np.nan, np.where(x > y, x - y, 0)).astype(x.dtype)


def _exponent(x: np.ndarray) -> np.ndarray:
    """Exponent of the leading bit as a float; infinity for an infinity, minus that for 0."""
    _, exponent = np.frexp(x)
    result = np.where(x == 0, -np.inf, (exponent - 1).astype(np.float64))
    return np.where(np.isinf(x), np.inf, np.where(np.isnan(x), np.nan, result))


def _integer_exponent(x: np.ndarray) -> np.ndarray:
    """Exponent of the leading bit; the smallest int32 for 0 and NaN, the largest for infinities."""
    info = np.iinfo(np.int32)
    special_case = np.where(np.isinf(x), info.max, info.min)
    return np.where(np.isfinite(x) & (x != 0), np.frexp(x)[1] - 1, special_case)


def _saturate(x: np.ndarray) -> np.ndarray:
    """Clamp to [0, 1]; NaN becomes 0."""
    return np.where(np.isnan(x), 0, np.clip(x, 0, 1)).astype(x.dtype)


def _divide_fast(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`__fdividef`: 0 where 2^126 < |y| < 2^128, and NaN there for an infinite x."""
    huge = (np.abs(y) > 2.0**126) & np.isfinite(y)
    return np.where(huge, np.where(np.isinf(x), np.nan, np.copysign(0.0, x / y)), x / y)


def _reciprocal_of_upper_half(x: np.ndarray) -> np.ndarray:
    """Give 1 / x from and to the upper 32 bits alone, as `rcp.approx.ftz.f64` does."""
    upper = np.uint64(0xFFFFFFFF00000000)
    argument = (np.ascontiguousarray(x).view(np.uint64) & upper).view(np.float64)
    return ((1 / argument).view(np.uint64) & upper).view(np.float64)


# Computed in float64, whether the symbol is double or float: name of the double one.
_REAL: dict[str, Function] = {
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "sinpi": _sinpi, "cospi": _cospi,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "exp": np.exp, "exp2": np.exp2, "exp10": lambda x: np.power(10.0, x), "expm1": np.expm1,
    "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p,
    "pow": np.power, "powi": np.power, "cbrt": np.cbrt, "rcbrt": lambda x: 1 / np.cbrt(x),
    "rsqrt": lambda x: 1 / np.sqrt(x), "hypot": _norm, "rhypot": _reciprocal_norm,
    "norm3d": _norm, "rnorm3d": _reciprocal_norm, "norm4d": _norm, "rnorm4d": _reciprocal_norm,
    "erf": special.erf, "erfc": special.erfc, "erfcx": special.erfcx,
    "erfinv": special.erfinv, "erfcinv": special.erfcinv,
    "normcdf": special.normcdf, "normcdfinv": special.normcdfinv,
    "tgamma": special.tgamma, "lgamma": special.lgamma,
    "j0": special.j0, "j1": special.j1, "jn": special.jn,
    "y0": special.y0, "y1": special.y1, "yn": special.yn,
    "cyl_bessel_i0": special.bessel_i0, "cyl_bessel_i1": special.bessel_i1,
}  # fmt: skip

# Hardware approximations: no less exact here, but with their edges.
_FAST: dict[str, Function] = {
    "sin": np.sin, "cos": np.cos, "tan": lambda x: np.sin(x) / np.cos(x),
    "exp": np.exp, "exp10": lambda x: np.power(10.0, x),
    "log": np.log, "log2": np.log2, "log10": np.log10,
    "pow": lambda x, y: np.exp2(y * np.log2(x)),
}  # fmt: skip

# Exact, in the type that they are given.
_SAME_TYPE: dict[str, Function] = {
    "fabs": np.abs, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "sqrt": np.sqrt,
    "rint": np.rint, "nearbyint": np.rint, "round": _round,
    "llrint": integers.to_integer("rn", np.int64),
    "llround": lambda x: integers.to_integer("rz", np.int64)(_round(x)),
    "copysign": np.copysign, "nextafter": np.nextafter, "fdim": _positive_difference,
    "fmod": np.fmod, "remainder": _remainder,
    "ldexp": np.ldexp, "scalbn": np.ldexp, "logb": _exponent, "ilogb": _integer_exponent,
}  # fmt: skip

_INTEGERS: dict[str, type] = {
    "int": np.int32, "uint": np.uint32, "ll": np.int64, "ull": np.uint64,
}  # fmt: skip

_AS_THEY_COME: dict[str, Function] = {
    "isnanf": np.isnan, "isnand": np.isnan, "isinff": np.isinf, "isinfd": np.isinf,
    "finitef": np.isfinite, "isfinited": np.isfinite,
    "signbitf": np.signbit, "signbitd": np.signbit,
    "saturatef": _saturate, "rcp64h": _reciprocal_of_upper_half,
    "abs": np.abs, "llabs": np.abs,
    "clz": integers.count_leading_zeros, "clzll": integers.count_leading_zeros,
    "ffs": integers.find_first_set, "ffsll": integers.find_first_set,
    "brev": integers.reverse_bits, "brevll": integers.reverse_bits,
    # Of the bits: NumPy counts those of the absolute value.
    "popc": lambda x: np.bitwise_count(x.view(np.uint32)),
    "popcll": lambda x: np.bitwise_count(x.view(np.uint64)),
    "byte_perm": integers.byte_perm,
    "mulhi": integers.multiply_high, "umulhi": integers.multiply_high,
    "mul64hi": integers.multiply_high, "umul64hi": integers.multiply_high,
    "mul24": integers.multiply_24, "umul24": integers.multiply_24,
    "sad": integers.add_distance, "usad": integers.add_distance,
    "hadd": integers.average(0), "uhadd": integers.average(0),
    "rhadd": integers.average(1), "urhadd": integers.average(1),
    "float_as_int": integers.as_type(np.int32), "float_as_uint": integers.as_type(np.uint32),
    "int_as_float": integers.as_type(np.float32), "uint_as_float": integers.as_type(np.float32),
    "double_as_longlong": integers.as_type(np.int64),
    "longlong_as_double": integers.as_type(np.float64),
    "hiloint2double": integers.join_halves,
    "double2hiint": lambda x: integers.half(x, upper=True),
    "double2loint": lambda x: integers.half(x, upper=False),
}  # fmt: skip
