"""An array of Numbers as NumPy's users see one: its parts, what moves them, what shadows decide.

The parts are explained in number.py, which computes with them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .constants import Meaning
from .degrees import UNKNOWN, Degree

# What a Number's `dtype` says: core asks for it and passes it on.
DTYPE = np.dtype("f8", metadata={"number": True})


class Mask(np.ndarray):
    """What a comparison gives; a reference takes the mean of it, as of numbers."""

    @staticmethod
    def of(bools: Any) -> "Mask":
        """Make one of bools."""
        return np.asarray(bools).view(Mask)

    def mean(self, *args: Any, dtype: Any = None, **kwargs: Any) -> Any:
        """Average, in Numbers if they are asked for."""
        plain: Any = np.asarray(self)
        if dtype is DTYPE:
            from .number import lift

            return lift(plain).mean(*args, **kwargs)
        return plain.mean(*args, dtype=dtype, **kwargs)


class Array:
    """The parts of Numbers, moved and compared as NumPy does it."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("const", "degree", "log", "p", "q", "rest", "unit", "x")

    def __init__(
        self,
        x: np.ndarray,
        p: np.ndarray,
        q: Any = None,  # these four: an array or None, the last three together
        log: Any = None,
        unit: Any = None,
        rest: Any = None,
        const: Any = None,  # a Meaning or None
        degree: Degree = UNKNOWN,
    ) -> None:
        self.x, self.p, self.q = x, p, q
        self.log, self.unit, self.rest = log, unit, rest
        self.const, self.degree = const, degree

    # --- what an array is asked -------------------------------------------------------------------

    dtype = property(lambda self: DTYPE)
    shape = property(lambda self: self.x.shape)
    ndim = property(lambda self: self.x.ndim)
    size = property(lambda self: self.x.size)
    flags = property(lambda self: self.x.flags)
    T = property(lambda self: self.transpose())

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Number({self.x}, {self.p})"

    def item(self) -> float:
        """Return the shadow of the only element."""
        return float(self.x.reshape(-1)[0])

    __float__ = item

    def tolist(self) -> Any:
        """Return the shadows."""
        return self.x.tolist()

    # --- views ------------------------------------------------------------------------------------

    def map(self, view: Callable[[np.ndarray], np.ndarray], const: Meaning | None = None) -> Any:
        """Apply a function that moves elements to every part."""
        others = (self.q, self.log, self.unit, self.rest)
        q, log, unit, rest = (None if v is None else view(v) for v in others)
        return type(self)(view(self.x), view(self.p), q, log, unit, rest, const, self.degree)

    def reshape(self, *shape: Any) -> Any:
        """See NumPy."""
        return self.map(lambda v: v.reshape(*shape), self.const)

    def swapaxes(self, i: int, j: int) -> Any:
        """See NumPy."""
        return self.map(lambda v: v.swapaxes(i, j), self.const)

    def transpose(self, *axes: Any) -> Any:
        """See NumPy."""
        return self.map(lambda v: v.transpose(*axes), self.const)

    def squeeze(self, axis: Any = None) -> Any:
        """See NumPy."""
        return self.map(lambda v: v.squeeze(axis), self.const)

    def ravel(self) -> Any:
        """See NumPy."""
        return self.reshape(-1)

    def astype(self, dtype: Any = None, copy: bool = True) -> Any:
        """Stay as it is for a dtype of floats; for another one give the shadows in it."""
        if dtype in (DTYPE, None, float, np.float16, np.float32, np.float64):
            return self
        return self.x.astype(dtype)

    def copy(self) -> Any:
        """See NumPy."""
        return self.map(np.array, self.const)

    def __getitem__(self, index: Any) -> Any:
        return self.map(lambda v: np.asarray(v[index]), self.const)

    # --- what the shadow decides ------------------------------------------------------------------

    def __lt__(self, other: Any) -> Any:
        return Mask.of(self.x < shadow(other))

    def __le__(self, other: Any) -> Any:
        return Mask.of(self.x <= shadow(other))

    def __gt__(self, other: Any) -> Any:
        return Mask.of(self.x > shadow(other))

    def __ge__(self, other: Any) -> Any:
        return Mask.of(self.x >= shadow(other))

    def __eq__(self, other: Any) -> Any:
        return Mask.of(self.x == shadow(other))

    def __ne__(self, other: Any) -> Any:
        return Mask.of(self.x != shadow(other))

    def any(self, **options: Any) -> Any:
        """Say whether a shadow is not 0."""
        return (self.x != 0).any(**options)

    def argmax(self, axis: Any = None) -> Any:
        """Return where the greatest shadow is."""
        return self.x.argmax(axis)

    def argmin(self, axis: Any = None) -> Any:
        """Return where the least shadow is."""
        return self.x.argmin(axis)


def shadow(value: Any) -> Any:
    """Return the shadow of a Number, and anything else as it is."""
    return value.x if isinstance(value, Array) else value
