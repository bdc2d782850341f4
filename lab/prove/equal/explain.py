"""What differs, and the term to look at: a ratio, a constant, and the line that stored it."""

import dataclasses
from typing import Any

import numpy as np
import torch

from .algebra import number as n
from .algebra.array import shadow
from .algebra.modular import inverse
from .algebra.number import Number, disagreements
from .evaluation.memory import KINDS, Memory, addresses

# Elements that are asked what they have in common.
ASKED = 64


@dataclasses.dataclass(frozen=True)
class Difference:
    """A result that differs from the reference's.

    Attributes
    ----------
    name : str
    n_differing, n_elements : int
    index : tuple of int
        The first element that differs.
    expected, got : float
        Its shadows.
    relation : str
        What kernel and reference have in common where they differ; empty if nothing short.
    line : str
        Where the element was stored.
    """

    name: str
    n_differing: int
    n_elements: int
    index: tuple[int, ...]
    expected: float
    got: float
    relation: str = ""
    line: str = ""

    @classmethod
    def of_integers(
        cls, name: str, wanted: Any, result: torch.Tensor, same: np.ndarray
    ) -> "Difference":
        """Describe integers that differ."""
        at = _first(~same)
        expected, got = float(np.asarray(shadow(wanted))[at]), float(result.numpy()[at])
        return cls(name, int((~same).sum()), same.size, at, expected, got)

    @classmethod
    def of_shapes(cls, name: str, wanted: Any, found: Any) -> "Difference":
        """Describe a result of another shape."""
        relation = f"its shape is {tuple(found)}, the reference's {tuple(wanted)}"
        return cls(name, 1, 1, (), np.nan, np.nan, relation)

    def __str__(self) -> str:
        """Say it in a line."""
        text = f"{self.name}: {self.n_differing} of {self.n_elements} elements differ"
        if self.index or self.expected == self.expected:
            text += f", the first at {list(self.index)}"
        text += f": {self.relation or self._values}"
        return text + (f" (stored by {self.line})" if self.line else "")

    @property
    def _values(self) -> str:
        """Name both values, so that one sees by how much they differ."""
        away = self.got - self.expected
        if abs(away) > 1e-6 * abs(self.expected):
            return f"{self.got:.9g} where the reference has {self.expected:.9g}"
        if away == 0:
            return f"{self.got:.9g} in float64 on both sides, yet another function"
        return (
            f"{self.got:.9g}, {abs(away):.2g} {'more' if away > 0 else 'less'} than the reference"
        )


def _first(differs: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(differs)), differs.shape))


def differences(
    name: str, wanted: Number, found: Number, memory: Memory, tensor: torch.Tensor
) -> Difference | None:
    """Compare a result, and describe what differs; None if nothing does."""
    differs = disagreements(wanted, found)
    if not differs.any():
        return None
    at = _first(differs)
    places = np.flatnonzero(differs.reshape(-1))[:ASKED]
    relation = _relation(wanted.reshape(-1)[places], found.reshape(-1)[places])
    where = addresses(tensor)[places[:1]]
    line = memory.stored_by(where, KINDS[tensor.dtype])
    expected, got = float(wanted.x[at]), float(found.x[at])
    return Difference(name, int(differs.sum()), differs.size, at, expected, got, relation, line)


def _relation(wanted: Number, found: Number) -> str:
    """Say in what a kernel's elements differ from the reference's, if all do alike.

    The field says whether they do, the shadows by how much.
    """
    finite = np.isfinite(wanted.x).all() and np.isfinite(found.x).all()
    if len(wanted) < 2 or not finite:
        return ""
    if (found.p == 0).all():
        return "the kernel has 0"
    P = n.run.field.P
    shift = (found.p - wanted.p) % P
    if (shift == shift[0]).all():
        by = float(np.median(found.x - wanted.x))
        return f"the kernel has the reference's {'plus' if by > 0 else 'minus'} {abs(by):.3g}"
    if (wanted.p != 0).all():
        ratio = found.p * inverse(wanted.p, P) % P
        if (ratio == ratio[0]).all():
            times = float(np.median(found.x / wanted.x))
            return f"the kernel has the reference's times {times:.9g}"
    return ""
