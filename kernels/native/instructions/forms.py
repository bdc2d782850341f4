"""What a tile's elements are, seen from inside a loop that handles `width` neighbours at a time.

Most integers and pointers of a kernel are a base plus the lane's number times a constant. Kept in
that form they cost one scalar instruction, and whether memory is contiguous is known.
"""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Index:
    """One coordinate: a constant, a loop's counter, or `width` neighbours from it on.

    `depth` is the scope that defines it: what depends on it cannot stand farther out.
    """

    name: str  # an i64
    depth: int
    width: int | None = None


FIRST = Index("0", 0)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """The same in all lanes, or a scalar."""

    v: str


@dataclasses.dataclass(frozen=True)
class Affine:
    """base + lane * stride: an integer, or a pointer with the stride in bytes."""

    base: str
    stride: int
    width: int

    @property
    def v(self) -> str:
        """Refuse: the lanes differ, and no instruction has been written for them yet."""
        raise AssertionError("an affine form is no LLVM value")


@dataclasses.dataclass(frozen=True)
class Vector:
    """Any lanes."""

    v: str
    width: int


@dataclasses.dataclass(frozen=True, eq=False)
class Mask:
    """Lanes of which it is cheap to know, as an i1, whether all are active.

    `write` writes them where they are wanted: most often where not all are.
    """

    every: str
    width: int
    write: Callable[[], str]

    @property
    def v(self) -> str:
        """Refuse: the lanes have not been written yet."""
        raise AssertionError("a mask is no LLVM value")


Form = Uniform | Affine | Vector | Mask
TRUE, FALSE = Uniform("true"), Uniform("false")
