"""Arithmetic as a GPU does it: bfloat16 through float32, tf32, max and min, and integers."""

import functools
import operator
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from ..common.events import left_out, tell, undefined
from ..common.patches import extends, replaces
from ..common.values import is_bfloat16, is_poison, narrow, widen


@extends(
    "InterpreterBuilder.unary_op",
    "InterpreterBuilder.binary_op",
    "InterpreterBuilder.create_rsqrt",
    "InterpreterBuilder.create_erf",
)
def _through_float32(original, self, *operands):
    """Upstream computes on the bits of bfloat16, and labels `a < b` with the type of `a`."""
    result = original(self, *map(widen, operands))
    if result.data.dtype == np.bool_:
        result.dtype = tl.int1
    elif any(map(is_bfloat16, operands)):
        result = narrow(result.data, tl.bfloat16)
    return result


@replaces("InterpreterBuilder.create_fma")
def _fma(self, x, y, z):
    """Round once, not twice: in float64 a product of two float32 values is exact."""
    product = widen(x).data.astype(np.float64) * widen(y).data
    return narrow(product + widen(z).data, z.dtype)


@extends("InterpreterBuilder.create_dot")
def _dot(original, self, a, b, d, input_precision, *rest):
    """Multiply in float32 (BLAS), accumulate in float32, round to the accumulator's type once.

    "tf32x3" recovers nearly all of float32 from three tf32 products: it is computed like "ieee".
    """
    tell("exchange")
    if a.dtype.scalar not in (tl.float32, tl.float16, tl.bfloat16):
        return original(self, a, b, d, input_precision, *rest)
    left, right = (np.ascontiguousarray(widen(h).data, dtype=np.float32) for h in (a, b))
    left, right = left_out(left, is_poison(left), 0), left_out(right, is_poison(right), 0)
    if a.dtype.scalar == tl.float32 and input_precision == upstream._ir.INPUT_PRECISION.TF32:
        left, right = _truncate_to_tf32(left), _truncate_to_tf32(right)
    return narrow(np.matmul(left, right) + widen(d).data, d.dtype)


def _truncate_to_tf32(values: np.ndarray) -> np.ndarray:
    """Keep 10 of the 23 mantissa bits.

    cvt.rna.tf32.f32 would round to nearest, ties away from zero, but Triton (3.7 and 3.8, sm_80 and
    sm_90) emits it only for "tf32x3". For "tf32" it hands the float32 registers to the tensor core,
    which does not read the 13 low bits: the operands are truncated toward zero.
    """
    bits = values.view(np.uint32) & np.uint32(0xFFFFE000)
    return np.where(np.isnan(values), values, bits.view(np.float32))


# --- max and min ----------------------------------------------------------------------------------


def _select_number(ufunc: np.ufunc, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """Ignore a NaN, as a GPU's fmax and fmin do (and as upstream's do since 3.8).

    Poison is not ignored: which number the GPU would have found in that lane, nobody knows.
    """
    result = ufunc(lhs, rhs)
    for operand in (lhs, rhs):
        result = np.where(is_poison(operand), operand, result)
    return result


@extends(
    "InterpreterBuilder.create_gather",
    "InterpreterBuilder.create_trans",
    "InterpreterBuilder.create_reshape",
    "InterpreterBuilder.create_cat",
    "InterpreterBuilder.create_histogram",
)
def _exchange(original, self, *args):
    tell("exchange")
    return original(self, *args)


@replaces("InterpreterBuilder.create_maxnumf")
def _max(self, lhs, rhs):
    return self.binary_op(lhs, rhs, functools.partial(_select_number, np.fmax))


@replaces("InterpreterBuilder.create_minnumf")
def _min(self, lhs, rhs):
    return self.binary_op(lhs, rhs, functools.partial(_select_number, np.fmin))


@replaces("InterpreterBuilder.create_clampf")
def _clamp(self, x, low, high, propagate_nan):
    if propagate_nan == upstream._ir.PROPAGATE_NAN.NONE:  # ignored upstream before 3.8
        return self.create_minnumf(self.create_maxnumf(x, low), high)
    return self.create_minimumf(self.create_maximumf(x, low), high)


# --- integers -------------------------------------------------------------------------------------


@extends(
    "InterpreterBuilder.create_idiv",
    "InterpreterBuilder.create_srem",
    "InterpreterBuilder.create_urem",
)
def _divide(original, self, lhs, rhs):
    """NumPy says that x // 0 is 0; on a GPU an integer division by zero may give anything."""
    result = original(self, lhs, rhs)
    return _undefined_where(rhs.data == 0, result, "division by zero")


@extends(
    "InterpreterBuilder.create_shl",
    "InterpreterBuilder.create_lshr",
    "InterpreterBuilder.create_ashr",
)
def _shift(original, self, lhs, rhs):
    """NumPy shifts all bits out; to LLVM a shift by the type's width or more may give anything."""
    result = original(self, lhs, rhs)
    width = lhs.dtype.scalar.int_bitwidth
    return _undefined_where((rhs.data < 0) | (rhs.data >= width), result, "shift")


def _undefined_where(lanes: np.ndarray, result: Any, why: str) -> Any:
    if lanes.any():
        tell(why)
        lost = undefined(result.dtype, result.data.shape)
        result.data = np.where(lanes, lost, result.data)
    return result


@replaces("interpreter_semantic.binary_op_sanitize_overflow_impl")
def _check_overflow(lhs, rhs, binary_op):
    """Raise where signed arithmetic wraps; unsigned numbers wrap by definition, as hashes want.

    Upstream answers with a dozen operations of the language for each integer operation (two thirds
    of a matmul's time) and then drops the answer. The extremes of a sum, a difference or a product
    lie at the extremes of its operands; the lanes are computed only if these leave the range.
    """
    dtype = lhs.type.scalar
    if not 1 < dtype.int_bitwidth < 64 or not dtype.is_int_signed():
        return
    low, high = dtype.get_int_min_value(), dtype.get_int_max_value()
    op = getattr(operator, binary_op.__name__)  # add, sub or mul
    left, right = lhs.handle.data, rhs.handle.data
    bounds = [(int(operand.min()), int(operand.max())) for operand in (left, right)]
    corners = [op(x, y) for x in bounds[0] for y in bounds[1]]  # Python's integers do not wrap
    if low <= min(corners) and max(corners) <= high:
        return
    exact = op(left.astype(np.int64), right.astype(np.int64))
    if not ((low <= exact) & (exact <= high)).all():
        raise AssertionError(f"{dtype} overflow detected for operation {binary_op.__name__}")
