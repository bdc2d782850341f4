"""What follows about products: of two numbers that are not negative, neither is the product.

To z3 a product of unknowns that is taken for a number of its own may be anything. Here more is
said of it: each two inequalities p >= 0 and q >= 0 that are given make a third one, p · q >= 0, and
those about products that the question asks about are added to it. It stays a linear question, which
z3 answers at once where it searches long among products. (Sherali and Adams, 1990, call this the
reformulation-linearization technique.)
"""

import collections
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import z3

from .terms import Monomial, Poly, poly

# Longer sums are seldom what is to be multiplied, and make many products.
MOST_TERMS = 4


class Expansion:
    """Writes z3's numbers as polynomials over atoms: over what is neither a sum nor a product.

    Attributes
    ----------
    atoms : dict of str to term
        By the names that they have in the polynomials.
    written : dict of (int, monomial) to term
        Numbers times products, as the solver has written them.
    """

    def __init__(self) -> None:
        self.atoms: dict[str, Any] = {}
        self.written: dict[tuple[int, Monomial], Any] = {}
        # With the terms: z3 gives a term's number to another one once nobody holds it.
        self._polys: dict[int, tuple[Poly, Any]] = {}
        self._compared: dict[int, tuple[list[Poly], Any]] = {}
        self._positive: dict[int, tuple[list[Poly], Any]] = {}

    def poly(self, term: Any) -> Poly:
        """Expand a term."""
        number = term.get_id()
        if number not in self._polys:
            self._polys[number] = self._expand(term), term
        return self._polys[number][0]

    def _expand(self, term: Any) -> Poly:
        if z3.is_int_value(term):
            return poly(int(term.as_long()))
        kind = term.decl().kind()
        if kind in (z3.Z3_OP_ADD, z3.Z3_OP_SUB, z3.Z3_OP_MUL, z3.Z3_OP_UMINUS):
            first, *rest = (self.poly(child) for child in term.children())
            if kind == z3.Z3_OP_UMINUS:
                return -first
            for other in rest:
                if kind == z3.Z3_OP_MUL:
                    first = first * other
                else:
                    first = first + other if kind == z3.Z3_OP_ADD else first - other
            return first
        name = term.sexpr() if term.num_args() else term.decl().name()
        self.atoms[name] = term
        return Poly({(name,): 1})

    def compared(self, formula: Any) -> list[Poly]:
        """Return the differences of all numbers that are compared anywhere in a formula."""
        number = formula.get_id()
        if number not in self._compared:
            found: list[Poly] = []
            children = formula.children()
            if children and z3.is_int(children[0]):
                if z3.is_bool(formula) and len(children) == 2:
                    found.append(self.poly(children[0]) - self.poly(children[1]))
            else:
                found = [p for child in children for p in self.compared(child)]
            self._compared[number] = found, formula
        return self._compared[number][0]

    def not_negative(self, formula: Any) -> list[Poly]:
        """List the polynomials of which a formula says that they are not negative."""
        number = formula.get_id()
        if number not in self._positive:
            self._positive[number] = list(self._not_negative(formula)), formula
        return self._positive[number][0]

    def _not_negative(self, formula: Any) -> Iterator[Poly]:
        if z3.is_and(formula):
            for part in formula.children():
                yield from self.not_negative(part)
            return
        negated = z3.is_not(formula)
        inside = formula.arg(0) if negated else formula
        if inside.num_args() != 2 or not z3.is_int(inside.arg(0)):
            return
        kind, (difference,) = inside.decl().kind(), self.compared(inside)
        if kind == z3.Z3_OP_EQ and not negated:
            yield difference
            yield -difference
        elif kind in (z3.Z3_OP_LE, z3.Z3_OP_LT):  # a <= b; if not, a >= b + 1
            strict = kind == z3.Z3_OP_LT
            yield difference - (not strict) if negated else -difference - strict
        elif kind in (z3.Z3_OP_GE, z3.Z3_OP_GT):
            strict = kind == z3.Z3_OP_GT
            yield -difference - (not strict) if negated else difference - strict


def multiplied(expansion: Expansion, formulas: Iterable[Any]) -> list[Poly]:
    """Multiply the inequalities that are given, each two; keep those about products in question.

    Parameters
    ----------
    expansion : Expansion
    formulas : iterable of formula
        The question: what is given, and what would be wrong.

    Returns
    -------
    list of Poly
        None is negative where the formulas hold.
    """
    formulas = list(formulas)
    asked = {m for f in formulas for p in expansion.compared(f) for m in p.terms if len(m) > 1}
    if not asked:
        return []
    atoms = {name for m in asked for name in m}
    given = {p.key: p for f in formulas for p in expansion.not_negative(f)}
    factors = [
        p for p in given.values()
        if len(p.terms) <= MOST_TERMS and p.unknowns & atoms and all(len(m) < 2 for m in p.terms)
    ]  # fmt: skip
    found: list[tuple[Poly, set[Monomial]]] = []
    # A product that the question does not have serves if two have it: it cancels.
    others: collections.Counter[Monomial] = collections.Counter()
    for p, q in itertools.combinations_with_replacement(factors, 2):
        product = p * q
        about = {m for m in product.terms if len(m) > 1}
        unasked = about - asked
        if about & asked and len(unasked) <= 1:
            found.append((product, unasked))
            others.update(unasked)
    return [product for product, unasked in found if all(others[m] > 1 for m in unasked)]
