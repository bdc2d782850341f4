"""Reductions and scans: a whole half of the lanes at once, and on a GPU's tree.

Upstream calls the kernel's `combine_fn` once for each element. Combining halves takes only the
logarithm of the length in calls, and adds in an order that rounds like a GPU's.
"""

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from ..common.events import left_out, tell
from ..common.patches import replaces
from ..common.values import is_poison, poison


@replaces("ReduceOps.apply_impl")
def _reduce(self, inputs):
    dtypes = [tensor.dtype for tensor in inputs]
    arrays = [tensor.handle.data for tensor in inputs]
    if self.axis is None:
        axes = tuple(range(arrays[0].ndim))
        arrays = [array.reshape(-1) for array in arrays]
    else:
        axes = self.axis
        arrays = [np.moveaxis(array, axes, 0) for array in arrays]
    arrays = _reduce_leading_axis(self, arrays, dtypes)
    if self.keep_dims:
        arrays = [np.expand_dims(array, axes) for array in arrays]
    return list(map(self.to_tensor, arrays, dtypes))


def _reduce_leading_axis(
    operation: Any, arrays: list[np.ndarray], dtypes: list[tl.dtype]
) -> list[np.ndarray]:
    """Reduce by NumPy where it has the operation, else by `combine_fn`."""
    tell("exchange")
    standard, combine, first = tl.standard, operation.combine_fn, arrays[0]
    if combine is standard._sum_combine and first.dtype.itemsize >= 4:  # 16 bits round each step
        first = left_out(first, is_poison(first), 0)
        return [first.sum(axis=0, dtype=first.dtype)]
    if dtypes[0] != tl.bfloat16 and combine is standard._elementwise_max:
        return [_extreme(np.fmax, left_out(first, is_poison(first), -np.inf), dtypes[0])]
    if dtypes[0] != tl.bfloat16 and combine is standard._elementwise_min:
        return [_extreme(np.fmin, left_out(first, is_poison(first), np.inf), dtypes[0])]
    while len(arrays[0]) > 1:
        # neighbours first: the order is kept, so combine_fn need not commute
        arrays = _combine(operation, [a[0::2] for a in arrays], [a[1::2] for a in arrays], dtypes)
    return [array[0] for array in arrays]


def _extreme(ufunc: np.ufunc, values: np.ndarray, dtype: tl.dtype) -> np.ndarray:
    return np.where(is_poison(values).any(axis=0), poison(dtype), ufunc.reduce(values, axis=0))


@replaces("ScanOps.apply_impl")
def _scan(self, inputs):
    """Sklansky's prefix network: every block's last prefix is combined into the block after it."""
    tell("exchange")
    dtypes = [tensor.dtype for tensor in inputs]
    order = slice(None, None, -1 if self.reverse else 1)
    leading = [np.moveaxis(tensor.handle.data, self.axis, 0)[order] for tensor in inputs]
    arrays = [np.array(array, order="C") for array in leading]  # a copy, written in place
    length, half = len(arrays[0]), 1
    while half < length:
        pairs = [a.reshape(length // (2 * half), 2, half, *a.shape[1:]) for a in arrays]
        right = [pair[:, 1] for pair in pairs]
        left = [np.broadcast_to(p[:, 0, -1:], r.shape) for p, r in zip(pairs, right, strict=True)]
        for pair, result in zip(pairs, _combine(self, left, right, dtypes), strict=True):
            pair[:, 1] = result
        half *= 2
    arrays = [np.ascontiguousarray(np.moveaxis(array[order], 0, self.axis)) for array in arrays]
    return list(map(self.to_tensor, arrays, dtypes))


def _combine(
    operation: Any, left: list[np.ndarray], right: list[np.ndarray], dtypes: list[tl.dtype]
) -> list[np.ndarray]:
    """Call the kernel's `combine_fn` on whole blocks of lanes."""
    results = operation.combine_fn(*map(operation.to_tensor, left + right, dtypes + dtypes))
    if not isinstance(results, (tuple, tl.tuple)):
        results = (results,)
    semantic = upstream.interpreter_semantic
    tensors = map(semantic.cast, map(semantic.to_tensor, results), dtypes)
    return [np.broadcast_to(tensor.handle.data, left[0].shape) for tensor in tensors]
