"""Gluon's functions of tiles: what they compute is NumPy's."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from triton.experimental.gluon import language as gl

from .served import LANGUAGE, serves
from .tiles import (
    Tile,
    divided,
    elementwise,
    ints,
    layout_of,
    reduced,
    rounded,
    sliced,
    tile,
)


def _serve_elementwise(name: str, function: Callable[..., np.ndarray]) -> None:
    @serves(LANGUAGE, name)
    def apply(x: Any) -> Tile:
        x = tile(x)
        with np.errstate(all="ignore"):
            return Tile(rounded(function(x.data), x.dtype), x.dtype, x.layout)


_OF_ONE: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "exp2": np.exp2, "log": np.log, "log2": np.log2, "sqrt": np.sqrt,
    "sqrt_rn": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "abs": np.abs, "sin": np.sin,
    "cos": np.cos, "floor": np.floor, "ceil": np.ceil,
    "erf": np.vectorize(math.erf, otypes=[float]),
}  # fmt: skip
for _name, _function in _OF_ONE.items():
    _serve_elementwise(_name, _function)


def _serve_pairs(name: str, function: Callable[..., np.ndarray]) -> None:
    @serves(LANGUAGE, name)
    def apply(x: Any, y: Any, propagate_nan: Any = None) -> Tile:
        return elementwise(function, x, y)


for _name, _function in {
    "maximum": np.fmax, "minimum": np.fmin, "add": np.add, "sub": np.subtract, "mul": np.multiply,
}.items():  # fmt: skip
    _serve_pairs(_name, _function)


@serves(LANGUAGE, "fdiv", "div_rn")
def divide(x: Any, y: Any) -> Tile:
    """Divide floats."""
    return divided(x, y)


@serves(LANGUAGE)
def fma(x: Any, y: Any, z: Any) -> Tile:
    """Multiply and add, rounding once."""
    x, y, z = tile(x), tile(y), tile(z)
    exact = x.data.astype(np.float64) * y.data + z.data
    return Tile(rounded(exact, x.dtype), x.dtype, layout_of(x, y, z))


@serves(LANGUAGE)
def where(condition: Any, x: Any, y: Any) -> Tile:
    """Choose lane by lane."""
    condition = tile(condition)
    chosen = elementwise(lambda a, b: np.asarray(np.where(condition.data, a, b)), x, y)
    chosen.layout = layout_of(condition, chosen)
    return chosen


@serves(LANGUAGE)
def clamp(x: Any, min: Any, max: Any, propagate_nan: Any = None) -> Tile:
    """Keep between two bounds."""
    return elementwise(np.fmax, elementwise(np.fmin, x, max), min)


@serves(LANGUAGE)
def cast(x: Any, dtype: Any, fp_downcast_rounding: Any = None, bitcast: bool = False) -> Tile:
    """Cast."""
    return tile(x).to(dtype, fp_downcast_rounding, bitcast)


@serves(LANGUAGE)
def to_tensor(x: Any) -> Tile:
    """Make a tile of a number."""
    return tile(x)


# --- making tiles ---------------------------------------------------------------------------------


@serves(LANGUAGE)
def arange(start: Any, end: Any, layout: Any = None) -> Tile:
    """Count."""
    return Tile(np.arange(int(start), int(end), dtype=np.int32), gl.int32, layout)


@serves(LANGUAGE)
def full(shape: Any, value: Any, dtype: Any, layout: Any = None) -> Tile:
    """Fill with a number."""
    value = rounded(tile(value).data, dtype)
    return Tile(np.broadcast_to(value, ints(shape)).copy(), dtype, layout)


@serves(LANGUAGE)
def zeros(shape: Any, dtype: Any, layout: Any = None) -> Tile:
    """Fill with zeros."""
    return full(shape, 0, dtype, layout)


@serves(LANGUAGE)
def full_like(
    input: Tile, value: Any, shape: Any = None, dtype: Any = None, layout: Any = None
) -> Tile:
    """Fill with a number a tile like another."""
    shape = input.shape if shape is None else shape
    return full(shape, value, dtype or input.dtype, layout or input.layout)


@serves(LANGUAGE)
def zeros_like(input: Tile, shape: Any = None, dtype: Any = None, layout: Any = None) -> Tile:
    """Fill with zeros a tile like another."""
    return full_like(input, 0, shape, dtype, layout)


# --- other axes and layouts -----------------------------------------------------------------------


@serves(LANGUAGE)
def convert_layout(value: Tile, layout: Any, assert_trivial: bool = False) -> Tile:
    """Move elements between registers: to the model, another name."""
    return Tile(value.data, value.dtype, layout)


@serves(LANGUAGE)
def set_auto_layout(value: Tile, layout: Any) -> Tile:
    """Choose the layout that was left open."""
    return Tile(value.data, value.dtype, layout)


@serves(LANGUAGE)
def expand_dims(input: Tile, axis: int) -> Tile:
    """Add an axis."""
    index: list[Any] = [slice(None)] * input.data.ndim
    index.insert(axis % (input.data.ndim + 1), None)
    return input[tuple(index)]


@serves(LANGUAGE)
def broadcast(input: Tile, other: Tile) -> tuple[Tile, Tile]:
    """Give two tiles one shape."""
    a, b = np.broadcast_arrays(input.data, other.data)
    layout = layout_of(input, other)
    return Tile(a, input.dtype, layout), Tile(b, other.dtype, layout)


@serves(LANGUAGE)
def reshape(input: Tile, *shape: Any) -> Tile:
    """Give the elements other axes."""
    return input.reshape(*shape)


@serves(LANGUAGE)
def ravel(x: Tile, can_reorder: bool = False) -> Tile:
    """Give the elements one axis."""
    return x.reshape([x.numel])


@serves(LANGUAGE)
def permute(input: Tile, *dims: Any) -> Tile:
    """Change the order of axes."""
    return input.permute(*dims)


@serves(LANGUAGE)
def join(a: Tile, b: Tile) -> Tile:
    """Put two tiles side by side, along a new last axis."""
    return Tile(np.stack(np.broadcast_arrays(a.data, b.data), axis=-1), a.dtype)


@serves(LANGUAGE)
def split(a: Tile) -> tuple[Tile, Tile]:
    """Undo `join`."""
    return Tile(a.data[..., 0], a.dtype), Tile(a.data[..., 1], a.dtype)


# --- reductions -----------------------------------------------------------------------------------


@serves(LANGUAGE, "sum")
def add_up(input: Tile, axis: Any = None, keep_dims: bool = False, dtype: Any = None) -> Tile:
    """Add up an axis."""
    return reduced(np.sum, input if dtype is None else input.to(dtype), axis, keep_dims)


@serves(LANGUAGE, "max")
def greatest(
    input: Tile, axis: Any = None, return_indices: bool = False,
    return_indices_tie_break_left: bool = True, keep_dims: bool = False,
) -> Tile:  # fmt: skip
    """Find the greatest of an axis; a NaN is passed over."""
    if return_indices:
        raise NotImplementedError("gl.max(return_indices=True) is not modelled")
    return reduced(np.fmax.reduce, input, axis, keep_dims)


@serves(LANGUAGE, "min")
def least(
    input: Tile, axis: Any = None, return_indices: bool = False,
    return_indices_tie_break_left: bool = True, keep_dims: bool = False,
) -> Tile:  # fmt: skip
    """Find the least of an axis; a NaN is passed over."""
    if return_indices:
        raise NotImplementedError("gl.min(return_indices=True) is not modelled")
    return reduced(np.fmin.reduce, input, axis, keep_dims)


@serves(LANGUAGE)
def reduce(input: Any, axis: Any, combine_fn: Callable[..., Any], keep_dims: bool = False) -> Any:
    """Reduce an axis by the kernel's own function, halves first."""
    parts: Sequence[Tile] = input if isinstance(input, tuple) else (input,)
    if axis is None:
        parts, axis = [ravel(part) for part in parts], 0
    parts = [Tile(part.data, part.dtype) for part in parts]
    while parts[0].shape[axis] > 1:
        half = parts[0].shape[axis] // 2
        halves = [
            [Tile(piece, part.dtype) for piece in np.split(part.data, [half], axis=axis)]
            for part in parts
        ]
        combined = combine_fn(*(h[0] for h in halves), *(h[1] for h in halves))
        parts = combined if isinstance(combined, (tuple, list)) else [combined]
    layout = parts_layout(input, axis)
    done = [Tile(np.squeeze(part.data, axis), part.dtype, layout) for part in parts]
    if keep_dims:
        done = [Tile(part.data, part.dtype) for part in parts]
    return tuple(done) if isinstance(input, tuple) else done[0]


def parts_layout(input: Any, axis: int) -> Any:
    """Name the layout that a reduction of one or several tiles leaves."""
    first = input[0] if isinstance(input, tuple) else input
    return sliced(first.layout, axis) if first.data.ndim > 1 else None
