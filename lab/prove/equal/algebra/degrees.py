"""Degrees: how likely it is that two different numbers agree in a field by chance.

Two counts are kept, since either may be the smaller one. `above` and `below` are the degrees of a
fraction of its own: sums of different fractions multiply their denominators. `over` and `depth`
write every number of a run over one common denominator, all that was ever divided by, each at most
`depth` times: the polynomial above it is of a degree that is greater by `over` at most.
"""

from typing import NamedTuple

import numpy as np


class Degree(NamedTuple):
    """Of the greatest element of an array."""

    over: float = 1.0
    depth: float = 0.0
    above: float = 1.0
    below: float = 0.0

    def plus(self, other: "Degree") -> "Degree":
        """Return that of a sum."""
        return Degree(
            max(self.over, other.over),
            max(self.depth, other.depth),
            max(self.above + other.below, other.above + self.below),
            self.below + other.below,
        )

    def times(self, other: "Degree") -> "Degree":
        """Return that of a product."""
        return Degree(*(a + b for a, b in zip(self, other, strict=True)))

    def summed(self, n: int) -> "Degree":
        """Return that of a sum of n of these."""
        more = max(n - 1, 0)
        return self._replace(above=self.above + more * self.below, below=max(n, 1) * self.below)

    def inverted(self, divided_by: float) -> "Degree":
        """Return that of 1 / this, when this much was divided by before."""
        return Degree(self.depth * divided_by, 1.0, self.below, self.above)

    def or_that(self, other: "Degree") -> "Degree":
        """Return the greater of each."""
        return Degree(*map(max, self, other))

    def total(self, divided_by: float) -> float:
        """Return the degree of an equation between this and a polynomial, the smaller of both."""
        return min(self.over + self.depth * divided_by, self.above + self.below)

    @classmethod
    def greatest(cls, rows: np.ndarray) -> "Degree":
        """Return the greatest of rows [element, 4]; of none, a constant's."""
        return cls(*map(float, rows.max(axis=0))) if len(rows) else CONSTANT


CONSTANT = Degree(0.0, 0.0, 0.0, 0.0)
UNKNOWN = Degree()
