"""Tiles: what a kernel computes with, each a NumPy array, Triton's type and a layout.

A type that NumPy lacks, and float16, are held as float32 and rounded after every operation. Of a
layout it matters only that two operands have the same: where an element lies is not modelled.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from triton.experimental.gluon import language as gl

HELD: dict[str, Any] = {
    "int1": np.bool_, "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64,
    "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64,
    "fp64": np.float64,
}  # fmt: skip
TORCH = {
    "int1": torch.bool, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32,
    "int64": torch.int64, "uint8": torch.uint8, "uint16": torch.uint16, "uint32": torch.uint32,
    "uint64": torch.uint64, "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32,
    "fp64": torch.float64, "fp8e4nv": torch.float8_e4m3fn, "fp8e5": torch.float8_e5m2,
}  # fmt: skip
TRITON = {
    torch_type: getattr(gl, name)
    for name, torch_type in {
        "int1": torch.bool, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32,
        "int64": torch.int64, "uint8": torch.uint8, "float16": torch.float16,
        "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64,
        "float8e4nv": torch.float8_e4m3fn, "float8e5": torch.float8_e5m2,
    }.items()
}  # fmt: skip


def held(dtype: Any) -> Any:
    """Name the NumPy type that holds a Triton type."""
    return HELD.get(dtype.name, np.float32)


def rounded(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Convert numbers to a type, as an array of the type that holds it."""
    if dtype.name in HELD or dtype.name == "fp32":
        return np.asarray(values).astype(held(dtype))
    through = torch.from_numpy(np.array(values, dtype=np.float32)).to(TORCH[dtype.name])
    return through.float().numpy()


class Tile:
    """A tensor of a kernel; one without axes is a scalar.

    Parameters
    ----------
    data : numpy.ndarray
        As `rounded` gives it.
    dtype : triton.language.dtype
    layout : object
        Gluon's; None if it is not known.
    """

    __slots__ = ("data", "dtype", "layout")
    __array_ufunc__ = None  # NumPy's scalars leave operations with a tile to the tile

    def __init__(self, data: Any, dtype: Any, layout: Any = None) -> None:
        self.data = np.asarray(data)
        self.dtype = dtype
        self.layout = layout

    @property
    def shape(self) -> list[int]:
        """The length of each axis."""
        return list(self.data.shape)

    @property
    def numel(self) -> int:
        """The number of elements."""
        return self.data.size

    @property
    def type(self) -> Any:
        """What Gluon calls its type, a scalar's element type or a distributed one."""
        if not self.data.ndim:
            return self.dtype
        return gl.distributed_type(self.dtype, self.shape, self.layout or gl.AutoLayout())

    def to(self, dtype: Any, fp_downcast_rounding: Any = None, bitcast: bool = False) -> "Tile":
        """Cast; a float becomes an integer by cutting off."""
        if bitcast:
            raise NotImplementedError("a bitcast is not modelled")
        if dtype is self.dtype:
            return self
        if dtype.name == "int1":
            return Tile(self.data != 0, dtype, self.layout)
        return Tile(rounded(self.data, dtype), dtype, self.layout)

    cast = to

    def __bool__(self) -> bool:
        """Give a scalar's truth."""
        if self.data.ndim:
            raise ValueError("a tile has no single truth value: use gl.where, &, | or ~")
        return bool(self.data)

    def __index__(self) -> int:
        """Give a scalar's value."""
        return operator.index(self.data.item())

    def __int__(self) -> int:
        """Give a scalar's value."""
        return int(self.data.item())

    def __float__(self) -> float:
        """Give a scalar's value."""
        return float(self.data.item())

    def __hash__(self) -> int:
        """Tell tiles apart."""
        return id(self)

    def __getitem__(self, index: Any) -> "Tile":
        """Add axes: `x[:, None]`."""
        index = index if isinstance(index, tuple) else (index,)
        if any(part is not None and part != slice(None) for part in index):
            raise NotImplementedError("a tile can be given axes by None and :, and not be indexed")
        layout = self.layout
        if self.data.ndim:
            for axis, part in enumerate(index):
                if part is None:
                    layout = _with_axis(layout, axis)
        return Tile(self.data[index], self.dtype, layout)

    def reshape(self, *shape: Any) -> "Tile":
        """Give the elements other axes; the layout is not known then."""
        (shape,) = shape if len(shape) == 1 and not isinstance(shape[0], int) else (shape,)
        return Tile(self.data.reshape([int(n) for n in shape]), self.dtype)

    def permute(self, *order: Any) -> "Tile":
        """Change the order of axes; the layout is not known then."""
        (order,) = order if len(order) == 1 and not isinstance(order[0], int) else (order,)
        return Tile(self.data.transpose([int(n) for n in order]), self.dtype)

    trans = permute

    @property
    def T(self) -> "Tile":
        """Turn rows into columns."""
        return self.permute((1, 0))

    def __neg__(self) -> "Tile":
        """Change the sign."""
        return Tile(-self.data, self.dtype, self.layout)

    def __invert__(self) -> "Tile":
        """Turn each bit."""
        return Tile(~self.data, self.dtype, self.layout)


def _with_axis(layout: Any, axis: int) -> Any:
    """Undo a SliceLayout, and refuse an axis that it does not lack."""
    if isinstance(layout, gl.SliceLayout):
        if layout.dim != axis:
            raise ValueError(f"an axis {axis} is added to a layout that is sliced in {layout.dim}")
        return layout.parent
    return None


def sliced(layout: Any, axis: int) -> Any:
    """Name the layout that a reduction leaves."""
    return None if layout is None else gl.SliceLayout(axis, layout)


def tile(value: Any, like: Any = None) -> Tile:
    """Make a tile of a number; `like` gives its type if its kind allows it.

    Parameters
    ----------
    value : Tile or number
    like : triton.language.dtype or None
    """
    if isinstance(value, Tile):
        return value
    if not isinstance(value, (bool, int, float, np.generic)):
        raise TypeError(f"a tile or a number is expected, not {type(value).__name__}")
    if isinstance(value, (bool, np.bool_)):
        natural: Any = gl.int1
    elif isinstance(value, (int, np.integer)):
        natural = gl.int32 if -(2**31) <= value < 2**31 else gl.int64
    else:
        natural = gl.float32
    if like is not None and (like.is_floating() or (not natural.is_floating() and like != gl.int1)):
        natural = like
    return Tile(rounded(np.asarray(value), natural), natural)


def common(left: Any, right: Any, divides: bool = False) -> Any:
    """Name the type in which two types are computed, as Triton chooses it."""
    for wide in (gl.float64, gl.float32):
        if wide in (left, right):
            return wide
    if left.is_floating() or right.is_floating():
        if not (left.is_floating() and right.is_floating()):
            return left if left.is_floating() else right
        if left != right or divides:
            return gl.float32
        return left
    if left.primitive_bitwidth != right.primitive_bitwidth:
        return left if left.primitive_bitwidth > right.primitive_bitwidth else right
    return left if left.name.startswith("uint") else right


def aligned(left: Any, right: Any, divides: bool = False) -> tuple[Tile, Tile, Any]:
    """Give two operands one type and, if they fit, one layout.

    Raises
    ------
    ValueError
        If their shapes or layouts differ.
    """
    left_type = left.dtype if isinstance(left, Tile) else None
    right_type = right.dtype if isinstance(right, Tile) else None
    left, right = tile(left, right_type), tile(right, left_type)
    if left.data.ndim and right.data.ndim:
        if left.data.ndim != right.data.ndim:
            raise ValueError(f"shapes {left.shape} and {right.shape} have not the same axes")
        for n, m in zip(left.shape, right.shape, strict=True):
            if n != m and 1 not in (n, m):
                raise ValueError(f"shapes {left.shape} and {right.shape} do not fit")
        layouts = [known for known in (left.layout, right.layout) if is_known(known)]
        if len(layouts) == 2 and layouts[0] != layouts[1]:
            raise ValueError(f"layouts differ: {layouts[0]} and {layouts[1]}")
    dtype = common(left.dtype, right.dtype, divides)
    return left.to(dtype), right.to(dtype), dtype


def is_known(layout: Any) -> bool:
    """Say whether a layout can be compared with another."""
    return layout is not None and not isinstance(layout, gl.AutoLayout)


def layout_of(*tiles: Tile) -> Any:
    """Name the layout that all those share whose layout is known."""
    return next((t.layout for t in tiles if t.data.ndim and is_known(t.layout)), None)


def elementwise(
    function: Callable[..., np.ndarray], left: Any, right: Any, dtype: Any = None
) -> Tile:
    """Apply a function of two numbers, and round.

    Parameters
    ----------
    function : callable
        Of two arrays.
    left, right : Tile or number
    dtype : triton.language.dtype or None
        Of the result; None for that of the operands.
    """
    a, b, kind = aligned(left, right)
    with np.errstate(all="ignore"):
        result = function(a.data, b.data)
    dtype = dtype or kind
    return Tile(rounded(result, dtype), dtype, layout_of(a, b))


def divided(left: Any, right: Any) -> Tile:
    """Divide; integers and halves give float32."""
    a, b, dtype = aligned(left, right, divides=True)
    dtype = dtype if dtype.is_floating() else gl.float32
    with np.errstate(all="ignore"):
        result = rounded(a.data, dtype) / rounded(b.data, dtype)
    return Tile(rounded(result, dtype), dtype, layout_of(a, b))


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Divide integers as a GPU does: cut off, and not down."""
    floor = a // b
    return floor + ((a % b != 0) & ((a < 0) != (b < 0)))


_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "mod": np.fmod, "floordiv": _quotient,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift,
    "rshift": np.right_shift,
}  # fmt: skip
_COMPARED = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal,
}  # fmt: skip


def _give_operators() -> None:
    binary = {name: functools.partial(elementwise, f) for name, f in _OPERATORS.items()}
    for name, function in (binary | {"truediv": divided}).items():
        setattr(Tile, f"__{name}__", lambda a, b, f=function: f(a, b))
        setattr(Tile, f"__r{name}__", lambda a, b, f=function: f(b, a))
    for name, compare in _COMPARED.items():
        setattr(Tile, f"__{name}__", lambda a, b, f=compare: elementwise(f, a, b, gl.int1))


_give_operators()


def reduced(
    function: Callable[..., Any], value: Tile, axis: int | None, keep_dims: bool = False
) -> Tile:
    """Reduce an axis, or all of them, and round.

    Parameters
    ----------
    function : callable
        `np.max` or the like.
    value : Tile
    axis : int or None
    keep_dims : bool
        Whether the axis stays, with length 1.
    """
    if axis is None or keep_dims or value.data.ndim == 1:
        layout = None
    else:
        layout = sliced(value.layout, axis)
    dtype = gl.int32 if function is np.sum and value.dtype == gl.int1 else value.dtype
    result = function(rounded(value.data, dtype), axis=axis, keepdims=keep_dims)
    return Tile(rounded(result, dtype), dtype, layout)


def ints(values: Sequence[Any]) -> list[int]:
    """Give Python's integers of a shape or of coordinates."""
    return [int(value) for value in values]
