"""Floats of 8 bits: rounded as a GPU does it, and subnormal numbers kept.

Upstream rounds a tie's neighbour up without a carry into the exponent, so that 7.75 becomes 4 in
e5m2 and not 8, and makes zeros of subnormal numbers. Here each format is a table of its values, and
a number goes to the nearest of them, a tie to the even code. What lies beyond the largest number
becomes that number, infinity too, as `cvt.rn.satfinite` has it; a NaN stays one.
"""

import functools

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from .patches import extends, replaces
from .values import is_poison, narrow, widen

_FORMATS = {t.name: t for t in (tl.float8e5, tl.float8e4nv, tl.float8e5b16, tl.float8e4b8)}
_FORMATS[tl.float8e4b15.name] = tl.float8e4b15
# The one NaN of a format that has no negative zero.
_UNSIGNED_NAN = 0x80
_NAN = 0x7F


def is_float8(dtype: tl.dtype) -> bool:
    """Say whether a type is one of the float8 formats.

    Parameters
    ----------
    dtype : triton.language.dtype
    """
    return dtype.scalar.name in _FORMATS


@functools.cache
def _values(name: str) -> np.ndarray:
    """Return what each of the 256 codes means, as float32, which holds them all exactly."""
    dtype = _FORMATS[name]
    mantissa_bits, bias = dtype.fp_mantissa_width, dtype.exponent_bias
    codes = np.arange(128)
    exponent, mantissa = codes >> mantissa_bits, codes & ((1 << mantissa_bits) - 1)
    fraction = mantissa / 2.0**mantissa_bits
    subnormal = fraction * 2.0 ** (1 - bias)
    positive = np.where(exponent == 0, subnormal, (1 + fraction) * 2.0 ** (exponent - bias))
    if name == tl.float8e5.name:
        positive[124:] = [np.inf, np.nan, np.nan, np.nan]
    elif name == tl.float8e4nv.name:
        positive[127] = np.nan
    elif name == tl.float8e4b15.name:
        positive[127] = positive[126]
    both = np.concatenate([positive, -positive])
    if _has_unsigned_nan(name):
        both[_UNSIGNED_NAN] = np.nan
    return both.astype(np.float32)


def _has_unsigned_nan(name: str) -> bool:
    return name in (tl.float8e5b16.name, tl.float8e4b8.name)


def decode(codes: np.ndarray, dtype: tl.dtype) -> np.ndarray:
    """Return the numbers that codes stand for, exactly.

    Parameters
    ----------
    codes : numpy.ndarray of uint8
    dtype : triton.language.dtype
        One of the float8 formats.

    Returns
    -------
    numpy.ndarray of float32
    """
    return _values(dtype.scalar.name)[codes]


def encode(values: np.ndarray, dtype: tl.dtype, *, toward_zero: bool = False) -> np.ndarray:
    """Round numbers to a float8 format.

    Parameters
    ----------
    values : numpy.ndarray of floats
    dtype : triton.language.dtype
        One of the float8 formats.
    toward_zero : bool
        Round so, and not to the nearest.

    Returns
    -------
    numpy.ndarray of uint8
    """
    name = dtype.scalar.name
    positive = _values(name)[:128].astype(np.float64)
    finite = np.unique(positive[np.isfinite(positive)])  # their codes are 0, 1, 2, ...
    magnitude = np.minimum(np.abs(values.astype(np.float64)), finite[-1])
    below = np.searchsorted(finite, magnitude, side="right") - 1
    below = np.where(np.isnan(magnitude), 0, below)
    above = np.minimum(below + 1, len(finite) - 1)
    middle = (finite[below] + finite[above]) / 2
    up = (magnitude > middle) | ((magnitude == middle) & (below % 2 == 1))
    code = np.where(up & (above > below) & (not toward_zero), above, below).astype(np.uint8)
    negative = np.signbit(values) & ((code > 0) | (not _has_unsigned_nan(name)))
    code = np.where(negative, code | np.uint8(0x80), code)
    nan = np.uint8(_UNSIGNED_NAN if _has_unsigned_nan(name) else _NAN)
    return np.where(np.isnan(values), nan, code).astype(np.uint8)


@replaces("InterpreterBuilder.create_fp_to_fp")
def _convert(self, src, dst_type, rounding_mode):
    """Convert from, to or between float8 formats, or between others toward zero."""
    toward_zero = rounding_mode == upstream._ir.ROUNDING_MODE.RTZ
    dtype = dst_type.scalar
    values = decode(src.data, src.dtype) if is_float8(src.dtype) else widen(src).data
    if is_float8(dtype):
        return upstream.TensorHandle(encode(values, dtype, toward_zero=toward_zero), dtype)
    return _toward_zero(values, dtype) if toward_zero else narrow(values, dtype)


def _toward_zero(values: np.ndarray, dtype: tl.dtype) -> upstream.TensorHandle:
    """Cut bits off: where rounding has gone away from zero, take the neighbour toward it."""
    nearest = narrow(values, dtype)
    bits = nearest.data.view(f"u{nearest.data.itemsize}")
    beyond = np.abs(widen(nearest).data.astype(np.float64)) > np.abs(values.astype(np.float64))
    cut = np.where(beyond & ~is_poison(values), bits - 1, bits).astype(bits.dtype)
    return upstream.TensorHandle(cut.view(nearest.data.dtype), dtype)


@extends("_convert_float")
def _convert_bits(original, values, input_dtype, output_dtype, rounding_mode):
    """What a product of float8 blocks converts its operands with."""
    if not is_float8(input_dtype) or is_float8(output_dtype):
        return original(values, input_dtype, output_dtype, rounding_mode)
    wide = narrow(decode(values, input_dtype), output_dtype).data
    return wide.view(f"u{wide.itemsize}")
