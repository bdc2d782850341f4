"""What a kernel's values are: functions from the indices of a tile's element to an unknown.

A tile is never written out: its element is asked for by its indices, which may be unknowns, and
the answer is a polynomial (an integer), a formula (a bool) or a number's code (a float). Of floats
only constants are told apart: a load gives its `other` where its mask is false, and a kernel may
ask for that.
"""

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import z3

from .....kernels.native.instructions.ttir import BITS, Type
from .terms import ZERO, Poly, Unknowns, poly

Index = tuple[Poly, ...]

# Of the floats that kernels compare with: the code by which each is known.
FLOATS = {0.0: 0, math.inf: 1, -math.inf: 2, 1.0: 3}
_COMPARED = {
    "eq": operator.eq, "gt": operator.gt, "ge": operator.ge,
    "lt": operator.lt, "le": operator.le, "ne": operator.ne,
}  # fmt: skip


@dataclasses.dataclass(eq=False)
class Symbol:
    """A value of the kernel.

    Attributes
    ----------
    type : Type
    element : callable
        Its element at an index: a `Poly`, a formula, or a float's code.
    base : str or None
        Of a pointer the argument that it came from; its element is then the offset from there, in
        elements. "" if it was read from memory.
    """

    type: Type
    element: Callable[[Index], Any]
    base: str | None = None
    _known: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def at(self, index: Index) -> Any:
        """Return the element at an index."""
        key = tuple(i.key for i in index)
        if key not in self._known:
            self._known[key] = self.element(index)
        return self._known[key]

    @property
    def shape(self) -> tuple[int, ...]:
        """The tile's shape; () of a scalar."""
        return self.type.shape or ()

    @property
    def number(self) -> Any:
        """A scalar's only element."""
        return self.at(())


def is_integer(kind: Type) -> bool:
    """Say whether a type's elements are integers of more than one bit, or addresses."""
    return kind.is_pointer or (not kind.is_float and BITS.get(kind.element, 64) > 1)


def reach(bits: int) -> tuple[int, int]:
    """Return the least and the largest signed integer of so many bits."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


class Values:
    """Makes values of which nothing, or something, is known."""

    def __init__(self) -> None:
        self.unknowns = Unknowns()
        self._count = itertools.count(1)

    def opaque(
        self,
        kind: Type,
        name: str = "value",
        base: str | None = None,
        made: Callable[[Poly, Index], None] = lambda element, index: None,
    ) -> Symbol:
        """Make a value of which nothing is known but its type, and that it is one value.

        Parameters
        ----------
        kind : Type
        name : str
        base : str, optional
            Of a pointer.
        made : callable
            Told of each number that is made, and of its index.
        """
        number = next(self._count)

        def element(index: Index) -> Any:
            label = f"{name}{number}[{', '.join(map(repr, index))}]"
            if not kind.is_float and not is_integer(kind):
                return self.unknowns.truth(label)
            limits = reach(BITS.get(kind.element, 64)) if is_integer(kind) else (None, None)
            unknown = self.unknowns.new(label, *limits)
            made(unknown, index)
            return unknown

        return Symbol(kind, element, base)

    def constant(self, kind: Type, value: Any) -> Symbol:
        """Make a constant."""
        if kind.is_float:
            code = FLOATS.get(value)
            return self.opaque(kind) if code is None else Symbol(kind, lambda i: poly(code))
        if is_integer(kind):
            number = poly(int(value))
            return Symbol(kind, lambda i: number)
        truth = z3.BoolVal(bool(value))
        return Symbol(kind, lambda i: truth)

    def choice(self, condition: Any, x: Any, y: Any) -> Any:
        """Return x where a formula holds, else y."""
        if isinstance(x, Poly):
            return self.unknowns.choose(condition, x, y)
        if z3.is_true(condition) or x.eq(y):
            return x
        return y if z3.is_false(condition) else z3.If(condition, x, y)

    def compared_floats(self, predicate: str, a: Poly, b: Poly, otherwise: Any) -> Any:
        """Compare floats; only constants are known, and no NaN is among them."""
        compare = _COMPARED.get(predicate[1:])
        result = otherwise
        if compare is None:
            return result
        for p, m in FLOATS.items():
            for q, n in FLOATS.items():
                if (a.constant in (None, m)) and (b.constant in (None, n)):
                    both = z3.And(self._is(a, m), self._is(b, n))
                    result = self.choice(both, z3.BoolVal(compare(p, q)), result)
        return result

    def _is(self, code: Poly, number: int) -> Any:
        if code.constant is not None:
            return z3.BoolVal(code.constant == number)
        return self.unknowns.formula(code) == number


def first_of(shape: tuple[int, ...], index: Index) -> Index:
    """Turn an index of a tile into one of a tile that was broadcast to it."""
    return tuple(ZERO if n == 1 else i for n, i in zip(shape, index, strict=True))
