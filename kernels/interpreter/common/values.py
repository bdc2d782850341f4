"""What the interpreter's arrays hold: bfloat16 as its bits, and poison where nothing is defined.

Poison is a value that spoils what is computed from it: NaN, or an extreme integer. A lane that on a
GPU could hold anything holds poison here, so that a kernel that depends on it fails its tests.
"""

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from .patches import adds, extends

# One quiet NaN per format, each the exact conversion of the others, so that poison is still known
# as poison after a cast. It matters to max and min alone, which on a GPU ignore an ordinary NaN.
_POISON_NAN: dict[np.dtype, Any] = {
    np.dtype(np.float16): np.uint16(0x7F58),
    np.dtype(np.float32): np.uint32(0x7FEB0000),
    np.dtype(np.float64): np.uint64(0x7FFD600000000000),
}
_POISON_BFLOAT16 = np.uint16(0x7FEB)


def poison(dtype: tl.dtype) -> Any:
    """Give the value of an undefined lane: NaN, 0x8181..., or True.

    Parameters
    ----------
    dtype : triton.language.dtype
        Its type. The value is a NumPy scalar of the type that holds it.
    """
    array_dtype = upstream._get_np_dtype(dtype)
    if array_dtype in _POISON_NAN:
        return _POISON_NAN[array_dtype].view(array_dtype)
    if dtype.scalar == tl.bfloat16:
        return _POISON_BFLOAT16
    if array_dtype == np.bool_:
        return np.True_
    # 0x7F is NaN in the float8 formats. 0x81: very negative, and odd, so that its lower bits show.
    byte = 0x7F if dtype.scalar.is_floating() else 0x81
    return np.frombuffer(bytes([byte] * array_dtype.itemsize), dtype=array_dtype)[0]


def is_poison(values: np.ndarray) -> np.ndarray:
    """Say which floats are poison, of either sign; an integer might mean what it says.

    Parameters
    ----------
    values : numpy.ndarray
        Any numbers but bfloat16.
    """
    if values.dtype not in _POISON_NAN:
        return np.zeros(values.shape, dtype=bool)
    nan = _POISON_NAN[values.dtype]
    all_but_the_sign = nan.dtype.type(np.iinfo(nan.dtype).max >> 1)
    return (values.view(nan.dtype) & all_but_the_sign) == nan


def holds_poison(contents: np.ndarray, dtype: Any) -> np.ndarray:
    """Say which items of a tensor's memory are poison.

    Parameters
    ----------
    contents : numpy.ndarray of uint8
        The bytes of whole items.
    dtype : torch.dtype or None
        The tensor's; of anything but floats of 16 to 64 bits, no item is known as poison.
    """
    name = str(dtype).rpartition(".")[2]
    if name == "bfloat16":
        return (contents.view(np.uint16) & 0x7FFF) == _POISON_BFLOAT16
    if name in ("float16", "float32", "float64"):
        return is_poison(contents.view(name))
    return np.zeros(len(contents) // getattr(dtype, "itemsize", 1), dtype=bool)


def is_bfloat16(operand: Any) -> bool:
    """Say whether `operand` is a handle that holds bfloat16.

    Parameters
    ----------
    operand : object
        Any argument of a builder's method.
    """
    return (
        isinstance(operand, upstream.TensorHandle)
        and operand.data.dtype == np.uint16  # quicker to ask than the type
        and operand.dtype.scalar == tl.bfloat16
    )


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Convert exactly.

    Parameters
    ----------
    bits : numpy.ndarray of uint16
        bfloat16, as it is held.
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round to nearest even, as PyTorch does; a NaN stays quiet and keeps its upper payload.

    Parameters
    ----------
    values : numpy.ndarray
        Any numbers; they go through float32.
    """
    values = values.astype(np.float32)
    bits = values.view(np.uint32)
    nearest_even = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, nearest_even).astype(np.uint16)


def widen(operand: Any) -> Any:
    """Make float32 of bfloat16, and leave everything else as it is.

    Parameters
    ----------
    operand : object
        Any argument of a builder's method.
    """
    if not is_bfloat16(operand):
        return operand
    return upstream.TensorHandle(bfloat16_to_float32(operand.data), tl.float32)


def narrow(values: np.ndarray, dtype: tl.dtype) -> Any:
    """Round to a floating type, and return a handle.

    Parameters
    ----------
    values : numpy.ndarray
        Ordinary numbers, not the bits of bfloat16.
    dtype : triton.language.dtype
        The type, bfloat16 or one that NumPy has.
    """
    if dtype.scalar == tl.bfloat16:
        return upstream.TensorHandle(round_to_bfloat16(values), tl.bfloat16)
    return upstream.TensorHandle(values.astype(upstream._get_np_dtype(dtype)), dtype.scalar)


@extends("InterpreterBuilder.cast_impl")
def _cast(original, self, src, dst_type):
    """Upstream truncates float32 to bfloat16, and casts the bits to and from every other type."""
    if dst_type.scalar == tl.bfloat16:
        return narrow(widen(src).data, tl.bfloat16)
    return original(self, widen(src), dst_type)


@adds("InterpreterBuilder.get_bf16")
def _bfloat16_constant(self, value):
    return narrow(np.array([value]), tl.bfloat16)


@extends("_implicit_cvt")
def _argument(original, argument):
    """Upstream leaves a Python float a float64; a compiled kernel receives a float32."""
    if isinstance(argument, float):
        return tl.tensor(narrow(np.array([argument]), tl.float32), tl.float32)
    return original(argument)


_array_dtypes: dict[str, np.dtype] = {}


@extends("_get_np_dtype")
def _array_dtype(original, dtype):
    """Upstream builds and hashes its table of 19 types on each call, a tenth of all time."""
    scalar = dtype.scalar
    if isinstance(scalar, tl.pointer_type):
        return np.dtype(np.uint64)
    if scalar.name not in _array_dtypes:
        _array_dtypes[scalar.name] = original(scalar)
    return _array_dtypes[scalar.name]
