"""Offsets taken apart: which row, which column."""

import dataclasses
from collections.abc import Iterator

from ..symbolic.terms import ZERO, Poly


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor argument, of any size.

    Attributes
    ----------
    name : str
        As in the contract.
    shape, strides : tuple of Poly
        In elements.
    packed : bool
        Whether it lies row after row.
    """

    name: str
    shape: tuple[Poly, ...]
    strides: tuple[Poly, ...]
    packed: bool


def coordinates_of(offset: Poly, tensor: Tensor) -> tuple[list[Poly], Poly]:
    """Take an offset apart: what each stride is multiplied with, and what no stride divides.

    Any way to take it apart is right, if each coordinate then proves to lie on its axis.
    """
    order = sorted(
        range(len(tensor.strides)), key=lambda i: _degree(tensor.strides[i]), reverse=True
    )
    found: dict[int, Poly] = {}
    rest = offset
    for i in order:
        stride = tensor.strides[i]
        if len(stride.terms) != 1:
            found[i] = ZERO
            continue
        ((monomial, factor),) = stride.terms.items()
        inside, left = rest.divided(monomial)
        whole = Poly({m: c // factor for m, c in inside.terms.items() if c % factor == 0})
        over = Poly({m: c for m, c in inside.terms.items() if c % factor})
        constant = over.terms.get((), 0)
        if factor > 1 and constant:
            whole, over = whole + constant // factor, over - constant // factor * factor
        found[i] = whole
        rest = left + over * Poly({monomial: 1})
    return [found[i] for i in range(len(tensor.strides))], rest


def moved_on(coordinates: list[Poly], tensor: Tensor) -> Iterator[list[Poly]]:
    """Move what is constant in a coordinate to the next one: a row is as many columns.

    Backwards from the end of a row a kernel writes `row · n + n − 1 − column`.
    """
    for i, n in enumerate(tensor.shape[1:]):
        constant = coordinates[i].terms.get((), 0)
        if constant:
            moved = list(coordinates)
            moved[i], moved[i + 1] = moved[i] - constant, moved[i + 1] + n * constant
            yield moved


def _degree(stride: Poly) -> tuple[int, int]:
    ((monomial, factor), *_) = stride.terms.items() or [((), 0)]
    return len(monomial), factor
