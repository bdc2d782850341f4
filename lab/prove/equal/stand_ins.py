"""What a reference sees as `np`, `math` and `float`, so that its code runs unchanged on Numbers.

`__array_function__` would not do: `np.zeros(n, x.dtype)`, `float(x)` and isinstance never ask it.
A function that is given no Number, and no dtype of one, is NumPy's own.
"""

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .algebra import functions as f
from .algebra.array import DTYPE, shadow
from .algebra.degrees import CONSTANT
from .algebra.number import (
    NotFollowedError,
    Number,
    concatenate,
    full,
    lift,
    maximum,
    minimum,
    product,
    select,
)

_ABSENT = object()


def _concerned(values: Any) -> bool:
    """Say whether a Number or its dtype is among the arguments of a call."""
    return any(
        isinstance(v, Number) or v is DTYPE or (isinstance(v, (list, tuple)) and _concerned(v))
        for v in values
    )


class _ArrayMeta(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, (np.ndarray, Number))


class Array(metaclass=_ArrayMeta):
    """Stands for numpy.ndarray where isinstance asks."""


# --- functions of Numbers -------------------------------------------------------------------------


def _zeros(shape: Any, dtype: Any = None) -> Number:
    zeros = np.zeros(shape, np.int64)
    return Number(np.zeros(shape), zeros, zeros.copy(), degree=CONSTANT)


def _full(shape: Any, value: Any, dtype: Any = None) -> Number:
    return full(lift(value), np.zeros(shape, bool).shape).copy()


def _einsum(spec: str, *operands: Any) -> Number:
    """Multiply by broadcasting, then sum over the letters that are not kept."""
    sources, kept = spec.replace(" ", "").split("->")
    letters = kept + "".join(sorted(set(sources) - set(kept) - {","}))
    result: Any = 1
    for names, operand in zip(sources.split(","), operands, strict=True):
        here = [letter for letter in letters if letter in names]
        ordered = lift(operand).transpose([names.index(letter) for letter in here])
        sizes = iter(ordered.shape)
        result = result * ordered.reshape([next(sizes) if x in names else 1 for x in letters])
    for _ in range(len(letters) - len(kept)):
        result = result.sum(axis=-1)
    return result


def _cumsum(array: Any, axis: Any = None, dtype: Any = None) -> Number:
    array = lift(array).reshape(-1) if axis is None else lift(array)
    parts = array.map(lambda v: np.moveaxis(v, axis or 0, 0))
    rows = [parts[0]]
    for i in range(1, len(parts)):
        rows.append(rows[-1] + parts[i])
    return _stack(rows).map(lambda v: np.moveaxis(v, 0, axis or 0))


def _stack(parts: Any, axis: int = 0) -> Number:
    return concatenate([lift(p).map(lambda v: np.expand_dims(v, axis)) for p in parts], axis)


def _broadcast_arrays(*arrays: Any) -> list[Any]:
    shape = np.broadcast_shapes(*(np.shape(shadow(array)) for array in arrays))
    return [
        full(array, shape) if isinstance(array, Number) else np.broadcast_to(array, shape)
        for array in arrays
    ]


def _put_along_axis(array: Number, indices: Any, values: Any, axis: int) -> None:
    places = list(np.ix_(*(np.arange(size) for size in np.shape(indices))))
    places[axis] = indices
    array[tuple(places)] = values


def _dot(left: Any, right: Any) -> Number:
    return product(lift(left), lift(right))


def _moving(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make of a function that moves elements one of Numbers."""

    @functools.wraps(function)
    def moved(array: Any, *args: Any, **options: Any) -> Number:
        return lift(array).map(lambda v: function(v, *args, **options))

    return moved


def _deciding(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make of a function that decides one that asks the shadows."""

    @functools.wraps(function)
    def decided(*args: Any, **options: Any) -> Any:
        return function(*map(shadow, args), **options)

    return decided


def _reducing(name: str) -> Callable[..., Any]:
    def reduced(array: Any, *args: Any, **options: Any) -> Any:
        return getattr(lift(array), name)(*args, **options)

    return reduced


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "zeros": _zeros, "empty": _zeros, "full": _full, "einsum": _einsum, "cumsum": _cumsum,
    "ones": lambda shape, dtype=None: _full(shape, 1),
    "zeros_like": lambda array, dtype=None: _zeros(array.shape),
    "empty_like": lambda array, dtype=None: _zeros(array.shape),
    "ones_like": lambda array, dtype=None: _full(array.shape, 1),
    "full_like": lambda array, value, dtype=None: _full(array.shape, value),
    "asarray": lambda array, dtype=None: lift(array).astype(dtype),
    "ascontiguousarray": lambda array, dtype=None: lift(array).astype(dtype),
    "array": lambda array, dtype=None, **options: _gathered(array),
    "where": select, "maximum": maximum, "minimum": minimum, "clip": f.clip,
    "exp": f.exp, "log": f.log, "sqrt": f.sqrt, "tanh": f.tanh, "square": lambda x, **_: x * x,
    "exp2": lambda x: f.exp(x, base_2=True), "log2": lambda x: f.log(x, base_2=True),
    "log1p": lambda x: f.log(1 + lift(x)), "expm1": lambda x: f.exp(x) - 1,
    "logaddexp": lambda x, y: f.log(f.exp(x) + f.exp(y)),
    "abs": lambda x: abs(lift(x)), "negative": lambda x: -x, "reciprocal": lambda x: 1 / x,
    "floor": lambda x: f.whole(x, np.floor), "ceil": lambda x: f.whole(x, np.ceil),
    "rint": lambda x: f.whole(x, np.rint), "round": lambda x: f.whole(x, np.rint),
    "matmul": _dot, "dot": _dot, "stack": _stack, "concatenate": concatenate,
    "broadcast_to": lambda array, shape: full(lift(array), tuple(shape)),
    "broadcast_arrays": _broadcast_arrays, "put_along_axis": _put_along_axis,
    "promote_types": lambda *_: DTYPE, "result_type": lambda *_: DTYPE,
    "multiply": lambda x, y: lift(x) * y, "divide": lambda x, y: lift(x) / y,
    "subtract": lambda x, y: lift(x) - y, "power": lambda x, n: lift(x) ** n,
    "var": _reducing("var"),
    **{name: _reducing(name) for name in ("sum", "mean", "max", "min")},
    **{name: _moving(getattr(np, name)) for name in (
        "repeat", "moveaxis", "swapaxes", "transpose", "reshape", "expand_dims", "squeeze", "flip",
        "ravel", "roll", "take", "take_along_axis", "tile", "triu", "tril", "diagonal",
    )},
    **{name: _deciding(getattr(np, name)) for name in (
        "isfinite", "isnan", "isinf", "isneginf", "isposinf", "argsort", "argmax", "argmin",
        "searchsorted", "count_nonzero", "any", "all", "sign", "nonzero", "flatnonzero", "shape",
        "ndim", "size", "array_equal",
    )},
}  # fmt: skip


def _gathered(array: Any) -> Number:
    return array.copy() if isinstance(array, Number) else _stack(array)


class _Add:
    """np.add, of which `at` is used."""

    def __call__(self, left: Any, right: Any, **options: Any) -> Any:
        return left + right if _concerned((left, right)) else np.add(left, right, **options)

    @staticmethod
    def at(array: Any, indices: Any, values: Any) -> None:
        if not isinstance(array, Number):
            np.add.at(array, indices, values)
            return
        values = lift(values)
        for i, row in enumerate(np.asarray(indices).reshape(-1)):
            array[int(row)] = array[int(row)] + values[i]


class StandIn:
    """A module, but for what is given Numbers."""

    def __init__(self, module: Any, own: dict[str, Any]) -> None:
        self._module, self._own = module, own

    def __getattr__(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        theirs, ours = getattr(self._module, name), FUNCTIONS.get(name)
        if not callable(theirs) or isinstance(theirs, type):
            return theirs
        if self._module is math and ours is None:  # it asks for a float, and may have the shadow
            return theirs

        @functools.wraps(theirs)
        def call(*args: Any, **options: Any) -> Any:
            if not _concerned((*args, *options.values())):
                return theirs(*args, **options)
            if ours is None:
                raise NotFollowedError(f"np.{name} of Numbers")
            return ours(*args, **options)

        return call


NUMPY = StandIn(np, {"ndarray": Array, "add": _Add()})
MATH = StandIn(math, {})


def _float(value: Any = 0.0) -> Any:
    return value if isinstance(value, Number) else float(value)


@contextlib.contextmanager
def standing_in(prefixes: tuple[str, ...]) -> Iterator[None]:
    """Let modules see the stand-ins while the context lasts.

    Parameters
    ----------
    prefixes : tuple of str
        A module is concerned if its name begins with one of them.
    """
    before: list[tuple[dict[str, Any], str, Any]] = []

    def put(names: dict[str, Any], name: str, value: Any) -> None:
        before.append((names, name, names.get(name, _ABSENT)))
        names[name] = value

    for name, module in list(sys.modules.items()):
        names = getattr(module, "__dict__", {})
        if not name.startswith(prefixes):
            continue
        for key, value in list(names.items()):
            if value is np:
                put(names, key, NUMPY)
                put(names, "float", _float)
            elif value is math:
                put(names, key, MATH)
            elif isinstance(value, np.vectorize) and value.pyfunc is math.erf:
                put(names, key, f.erf)
    try:
        yield
    finally:
        for names, name, value in reversed(before):
            if value is _ABSENT:
                del names[name]
            else:
                names[name] = value
