"""Casts as a GPU rounds them: the five float8 formats, rounding to zero, and floats to integers.

Upstream moves bits (`_convert_float`): it forgets the carry of what it rounds up, half of the ties,
and the subnormals, so that one in ten float32 becomes another float8 than on a GPU. Here a format
is the table of its 256 numbers, and the nearest of them is looked up.
"""

import functools
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from ..common.patches import extends, replaces
from ..common.values import bfloat16_to_float32, is_poison, poison, round_to_bfloat16
from ..libdevice.integers import to_integer

# Format: bits of the exponent, and those that stand for NaN, as (from, to) of the lower seven bits
# or as the one code that is -0 elsewhere. float8e5 has infinities, float8e4b15 has no NaN.
_EXPONENT_BITS = {"fp8e5": 5, "fp8e5b16": 5, "fp8e4nv": 4, "fp8e4b8": 4, "fp8e4b15": 4}
_NO_NEGATIVE_ZERO = ("fp8e5b16", "fp8e4b8")  # its code is their NaN


@functools.cache
def float8_values(name: str) -> np.ndarray:
    """Give the numbers that the 256 codes of a format stand for.

    Parameters
    ----------
    name : str
        As Triton calls the format, such as "fp8e4nv".

    Returns
    -------
    numpy.ndarray of float32 [256]
    """
    bits = _EXPONENT_BITS[name]
    mantissa_bits, bias = 7 - bits, tl.dtype(name).exponent_bias
    code = np.arange(128)
    exponent, mantissa = code >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
    leading = np.where(exponent == 0, 0, 1 << mantissa_bits)  # 0: subnormal
    size = np.ldexp(leading + mantissa, np.maximum(exponent, 1) - bias - mantissa_bits)
    if name == "fp8e5":
        size[0x7C], size[0x7D:] = np.inf, np.nan
    if name == "fp8e4nv":
        size[0x7F] = np.nan
    if name == "fp8e4b15":
        size[0x7F] = size[0x7E]  # as triton/language/extra/cuda/utils.py has it
    values = np.concatenate([size, -size]).astype(np.float32)
    if name in _NO_NEGATIVE_ZERO:
        values[0x80] = np.nan
    return values


def to_float8(values: np.ndarray, name: str, *, to_zero: bool = False) -> np.ndarray:
    """Round to a float8 format, to nearest even, or to zero; what is too large to the largest.

    Parameters
    ----------
    values : numpy.ndarray
        Ordinary numbers.
    name : str
        The format.
    to_zero : bool
        Whether to cut off instead.

    Returns
    -------
    numpy.ndarray of uint8
        Codes. Infinities become the largest number, too: `cvt.rn.satfinite` (PTX ISA, cvt).
    """
    table = float8_values(name)[:128].astype(np.float64)
    finite = np.unique(table[np.isfinite(table)])  # ascending; a code is its number's place
    size = np.minimum(np.abs(values.astype(np.float64)), finite[-1])
    code = np.searchsorted(finite, size, side="right") - 1
    if not to_zero:
        above = np.minimum(code + 1, len(finite) - 1)
        middle = (finite[code] + finite[above]) / 2
        up = (size > middle) | ((size == middle) & (code % 2 == 1))
        code = np.where(up, above, code)
    code = np.where(np.signbit(values), code | 0x80, code)
    if name in _NO_NEGATIVE_ZERO:
        code = np.where(code == 0x80, 0, code)
        nan = 0x80
    else:
        nan = 0x7F
    return np.where(np.isnan(values), nan, code).astype(np.uint8)


@replaces("_convert_float")
def _convert_float(array, input_dtype, output_dtype, rounding_mode):
    """Return the bits of the converted numbers."""
    to_zero = rounding_mode == upstream._ir.ROUNDING_MODE.RTZ
    values = _numbers(array, input_dtype.scalar)
    name = output_dtype.scalar.name
    if name in _EXPONENT_BITS:
        return to_float8(values, name, to_zero=to_zero)
    if output_dtype.scalar == tl.bfloat16:
        if to_zero:
            bits = values.astype(np.float32).view(np.uint32) >> 16
            return np.where(np.isnan(values), bits | 0x40, bits).astype(np.uint16)
        return round_to_bfloat16(values)
    rounded = values.astype(upstream._get_np_dtype(output_dtype))
    if to_zero:
        beyond = np.abs(rounded) > np.abs(values)
        rounded = np.where(beyond, np.nextafter(rounded, rounded.dtype.type(0)), rounded)
    return rounded.view(f"u{rounded.itemsize}")


def _numbers(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Give the numbers that an array's bits stand for."""
    if dtype.name in _EXPONENT_BITS:
        return float8_values(dtype.name)[array.view(np.uint8)]
    if dtype == tl.bfloat16:
        return bfloat16_to_float32(array.view(np.uint16))
    return array.view(upstream._get_np_dtype(dtype))


@extends("InterpreterBuilder.create_fp_to_si", "InterpreterBuilder.create_fp_to_ui")
def _to_integer(original, self, src, dst_type):
    """Clamp as `cvt.rzi` does, NaN to 0; NumPy gives what the CPU happens to."""
    dtype = upstream._get_np_dtype(dst_type)
    if src.data.dtype.kind != "f" or dtype.kind not in "iu":
        return original(self, src, dst_type)
    by_way_of = np.dtype(f"{dtype.kind}{max(dtype.itemsize, 2)}").type  # PTX has none of 8 bits
    data = to_integer("rz", by_way_of)(src.data).astype(dtype)
    data = np.where(is_poison(src.data), poison(dst_type), data)
    return upstream.TensorHandle(data, dst_type.scalar)
