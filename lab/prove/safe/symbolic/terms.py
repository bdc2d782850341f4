"""Integers as polynomials over named unknowns; what is known of each unknown stands beside it.

An address is a sum of products: row · stride + column. Kept as a polynomial, the coefficient of
each stride can be taken out and bounded apart, where a solver that is given the whole sum gives
up. What is no polynomial (a quotient, a minimum, a choice) becomes an unknown of its own, with
constraints that define it.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Union

import z3

Monomial = tuple[str, ...]
Number = Union["Poly", int]


class Poly:
    """A polynomial with integer coefficients; never changed once made.

    Parameters
    ----------
    terms : mapping of tuple of str to int
        Products of unknowns, sorted, to coefficients. () is the constant.
    """

    __slots__ = ("key", "terms")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms = {m: c for m, c in terms.items() if c}
        self.key = frozenset(self.terms.items())

    def __add__(self, other: Number) -> "Poly":
        """Add."""
        terms = dict(self.terms)
        for m, c in poly(other).terms.items():
            terms[m] = terms.get(m, 0) + c
        return Poly(terms)

    def __mul__(self, other: Number) -> "Poly":
        """Multiply."""
        terms: dict[Monomial, int] = {}
        for m, c in self.terms.items():
            for n, d in poly(other).terms.items():
                both = tuple(sorted(m + n))
                terms[both] = terms.get(both, 0) + c * d
        return Poly(terms)

    def __neg__(self) -> "Poly":
        """Negate."""
        return Poly({m: -c for m, c in self.terms.items()})

    def __sub__(self, other: Number) -> "Poly":
        """Subtract."""
        return self + -poly(other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Number) -> "Poly":
        """Subtract this."""
        return poly(other) - self

    def __repr__(self) -> str:
        """Write it as a sum."""
        parts = [
            "*".join([*([] if c == 1 and m else [str(c)]), *m])
            for m, c in sorted(self.terms.items())
        ]
        return " + ".join(parts) or "0"

    @property
    def constant(self) -> int | None:
        """The number that it is, if it is one."""
        if not self.terms:
            return 0
        return self.terms.get(()) if len(self.terms) == 1 else None

    @property
    def unknowns(self) -> set[str]:
        """The unknowns in it."""
        return {name for m in self.terms for name in m}

    def divided(self, by: Monomial) -> tuple["Poly", "Poly"]:
        """Return what is multiplied with a product of unknowns, and what is left."""
        inside: dict[Monomial, int] = {}
        left: dict[Monomial, int] = {}
        for m, c in self.terms.items():
            rest = list(m)
            try:
                for name in by:
                    rest.remove(name)
            except ValueError:
                left[m] = c
            else:
                inside[tuple(rest)] = c
        return Poly(inside), Poly(left)


def poly(value: Number) -> Poly:
    """Make a number a polynomial."""
    return value if isinstance(value, Poly) else Poly({(): value})


ZERO, ONE = poly(0), poly(1)
Bounds = tuple[int | None, int | None]  # lowest and highest; None where there is no bound


@dataclasses.dataclass(eq=False)
class Unknown:
    """What is known of one unknown.

    Attributes
    ----------
    variable : z3 constant
    bounds : tuple
        Numbers that it lies between.
    facts : list of z3 formulas
        What defines it, of itself and of other unknowns.
    uniform : bool
        Whether it is the same in all programs of a launch.
    """

    variable: Any
    bounds: Bounds = (None, None)
    facts: list[Any] = dataclasses.field(default_factory=list)
    uniform: bool = False


class Unknowns:
    """All unknowns of one kernel."""

    def __init__(self) -> None:
        self.by_name: dict[str, Unknown] = {}
        # Of a quotient or a rest: what was divided, by what, and both; of a minimum: of what.
        self.how: dict[str, tuple[Poly, Poly, Poly, Poly]] = {}
        self.minima: dict[str, tuple[str, Poly, Poly]] = {}
        self.choices: dict[str, tuple[Any, Poly, Poly]] = {}  # the condition, and both values
        self.below: dict[str, Poly] = {}  # what an unknown is known to be less than
        self.at_least: dict[Any, int] = {}  # by polynomials, where its unknowns' bounds say less
        self.equal: dict[str, Poly] = {}  # what an unknown is equal to in all launches
        self._made: dict[Any, Any] = {}
        self._constants: dict[int, tuple[Any, frozenset[str]]] = {}
        self._formulas: dict[Any, Any] = {}

    @property
    def divisions(self) -> list[tuple[Poly, Poly, Poly, Poly]]:
        """All divisions: what was divided, by what, the quotient and the rest."""
        return list({id(made): made for made in self.how.values()}.values())

    # -- making ----------------------------------------------------------------------------------

    def new(
        self, name: str, low: int | None = None, high: int | None = None, *, uniform: bool = False
    ) -> Poly:
        """Make an unknown integer between two bounds; a name that is taken is made another."""
        name = self._free(name)
        variable = z3.Int(name)
        facts = [variable >= low] if low is not None else []
        facts += [variable <= high] if high is not None else []
        self.by_name[name] = Unknown(variable, (low, high), facts, uniform)
        return Poly({(name,): 1})

    def truth(self, name: str) -> Any:
        """Make an unknown that is true or false."""
        name = self._free(name)
        variable = z3.Bool(name)
        self.by_name[name] = Unknown(variable)
        return variable

    def _free(self, name: str) -> str:
        return name if name not in self.by_name else f"{name}!{len(self.by_name)}"

    def unknown(self, single: Poly) -> Unknown:
        """Return what is known of a polynomial that is one unknown."""
        ((name,),) = single.terms
        return self.by_name[name]

    def _defined(self, name: str, bounds: Bounds, inputs: Iterable[Any]) -> tuple[Poly, Any]:
        uniform = all(self.is_uniform(x) for x in inputs)
        made = self.new(name, *bounds, uniform=uniform)
        return made, self.unknown(made)

    # -- arithmetic ------------------------------------------------------------------------------

    def divide(self, x: Poly, y: Poly) -> tuple[Poly, Poly]:
        """Divide as a GPU does, towards zero: the quotient and the remainder."""
        a, b = x.constant, y.constant
        if a is not None and b:
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            return poly(quotient), poly(a - quotient * b)
        if b and b > 0 and (simple := self._divide_exactly(self._spelled_out(x), b)):
            return simple
        key = "divide", x.key, y.key
        if key not in self._made:
            self._made[key] = self._divide(x, y)
        return self._made[key]

    def _spelled_out(self, x: Poly) -> Poly:
        """Put in the place of unknowns what they are known to be equal to."""
        total = x
        for m, c in x.terms.items():
            if len(m) == 1 and m[0] in self.equal:
                total = total + (self.equal[m[0]] - Poly({m: 1})) * c
        return total

    def _divide_exactly(self, x: Poly, b: int) -> tuple[Poly, Poly] | None:
        """Divide (b·u + v) by b, where v is known to lie from 0 to b − 1."""
        u = Poly({m: c // b for m, c in x.terms.items() if c % b == 0})
        v = Poly({m: c for m, c in x.terms.items() if c % b})
        (low, high), (least, _) = self.bounds(v), self.bounds(x)
        fits = low is not None and high is not None and low >= 0 and high < b
        if not v.terms or (fits and least is not None and least >= 0):
            return u, v
        return None

    def _divide(self, x: Poly, y: Poly) -> tuple[Poly, Poly]:
        (low, high), (y_low, y_high) = self.bounds(x), self.bounds(y)
        positive = low is not None and low >= 0 and y_low is not None and y_low >= 1
        most = None if high is None or not positive else high // max(y_low or 1, 1)
        r_most = y_high - 1 if positive and y_high is not None else None
        q, of_q = self._defined("quotient", (0 if positive else None, most), (x, y))
        r, of_r = self._defined("rest", (0 if positive else None, r_most), (x, y))
        xv, yv, qv, rv = (self.formula(p) for p in (x, y, q, r))
        exact = xv == qv * yv + rv
        if positive:
            facts = [exact, rv < yv, qv <= xv]
            self.below.update(dict.fromkeys(r.unknowns, y))
        else:
            # One implication for each fact: those without a product can be used apart.
            up, down = z3.And(xv >= 0, yv > 0), z3.And(xv < 0, yv > 0)
            above = [exact, rv >= 0, rv < yv, qv >= 0, qv <= xv]
            facts = [z3.Implies(up, fact) for fact in above]
            facts += [z3.Implies(down, fact) for fact in (exact, rv <= 0, rv > -yv, qv <= 0)]
            # Not by -1: the least integer has no opposite of its own width.
            facts += [z3.Implies(yv < -1, fact) for fact in (exact, rv < -yv, rv > yv)]
            # whatever the divisor's sign
            facts.append(z3.Implies(z3.And(xv >= 0, yv != 0), rv >= 0))
        cancelled = self._below_quotient(x, y, q)
        if cancelled is not None:
            facts.append(z3.Implies(yv > 0, cancelled))
        of_q.facts += facts
        of_r.facts += facts
        made = x, y, q, r
        self.how.update(dict.fromkeys(sorted(q.unknowns | r.unknowns), made))
        return q, r

    def _below_quotient(self, x: Poly, y: Poly, q: Poly) -> Any:
        """Cancel: of x < u·m, x >= 0 and y = c·m > 0 follows c·q < u, for q the quotient x / y.

        That is a fact about products, and z3 searches long for it.
        """
        single = len(x.terms) == 1 and list(x.terms.values()) == [1] and len(x.unknowns) == 1
        least = self.bounds(x)[0]
        if not single or len(y.terms) != 1 or least is None or least < 0:
            return None
        above = self.below.get(next(iter(x.unknowns)))
        ((monomial, c),) = y.terms.items()
        if above is None or c < 1 or not monomial:
            return None
        u, left = above.divided(monomial)
        if left.terms:
            return None
        if c == 1:
            self.below.update(dict.fromkeys(q.unknowns, u))
        if (self.bounds(y)[0] or 0) >= 1:
            self.at_least[(u - q * c).key] = 1
        return c * self.formula(q) < self.formula(u)

    def least(self, x: Poly, y: Poly, *, largest: bool = False) -> Poly:
        """Return the smaller of two, or the larger."""
        a, b = x.constant, y.constant
        if a is not None and b is not None:
            return poly(max(a, b) if largest else min(a, b))
        (x_low, x_high), (y_low, y_high) = self.bounds(x), self.bounds(y)
        if _below(y_high, x_low):
            return x if largest else y
        if _below(x_high, y_low):
            return y if largest else x
        key = "largest" if largest else "least", frozenset((x.key, y.key))
        if key not in self._made:
            pick = _highest if largest else _lowest
            lows = (x_low, y_low), (x_high, y_high)
            bounds = (
                (_known(max, *lows[0]), pick(*lows[1]))
                if largest
                else (pick(*lows[0]), _known(min, *lows[1]))
            )
            made, known = self._defined(key[0], bounds, (x, y))
            m, xv, yv = known.variable, self.formula(x), self.formula(y)
            known.facts += [z3.Or(m == xv, m == yv)]
            known.facts += [m >= xv, m >= yv] if largest else [m <= xv, m <= yv]
            ((name,),) = made.terms
            self.minima[name] = key[0], x, y
            self._made[key] = made
        return self._made[key]

    def choose(self, condition: Any, x: Poly, y: Poly) -> Poly:
        """Return x where a condition holds, else y."""
        if x.key == y.key or z3.is_true(condition):
            return x
        if z3.is_false(condition):
            return y
        key = "choose", condition.get_id(), x.key, y.key
        if key not in self._made:
            (x_low, x_high), (y_low, y_high) = self.bounds(x), self.bounds(y)
            bounds = _lowest(x_low, y_low), _highest(x_high, y_high)
            made, known = self._defined("choice", bounds, (condition, x, y))
            m = known.variable
            known.facts += [
                z3.Implies(condition, m == self.formula(x)),
                z3.Implies(z3.Not(condition), m == self.formula(y)),
            ]
            ((name,),) = made.terms
            self.choices[name] = condition, x, y
            # z3 gives a formula's number to another one once nobody holds it.
            self._made[key] = made
            self._made[key, "held"] = condition
        return self._made[key]

    # -- bounds and formulas ---------------------------------------------------------------------

    def bounds(self, x: Poly) -> Bounds:
        """Bound a polynomial by what its unknowns lie between."""
        low: int | None = 0
        high: int | None = 0
        for m, c in x.terms.items():
            a: Bounds = (c, c)
            for name in m:
                a = _product(a, self.by_name[name].bounds)
            low = None if low is None or a[0] is None else low + a[0]
            high = None if high is None or a[1] is None else high + a[1]
        return _known(max, low, self.at_least.get(x.key)), high

    def formula(self, x: Poly) -> Any:
        """Write a polynomial for z3."""
        if x.key not in self._formulas:
            parts = []
            for m, c in x.terms.items():
                product = z3.IntVal(c) if c != 1 or not m else None
                for name in m:
                    variable = self.by_name[name].variable
                    product = variable if product is None else product * variable
                parts.append(product)
            total = z3.Sum(parts) if len(parts) > 1 else parts[0] if parts else z3.IntVal(0)
            self._formulas[x.key] = total
        return self._formulas[x.key]

    def hangs_on(self, name: str, known: set[str]) -> bool:
        """Say whether an unknown is a known one, or a quotient, rest or minimum of such."""
        made = self.how[name][:2] if name in self.how else self.minima.get(name, ("",))[1:]
        return name in known or (
            bool(made) and all(self.hangs_on(n, known) for x in made for n in x.unknowns)
        )

    # -- what depends on what --------------------------------------------------------------------

    def constants(self, formula: Any) -> frozenset[str]:
        """Name the unknowns in a formula."""
        number = formula.get_id()
        if number in self._constants:
            return self._constants[number][1]
        found: set[str] = set()
        waiting, seen = [formula], set()
        while waiting:
            one = waiting.pop()
            if one.get_id() in seen:
                continue
            seen.add(one.get_id())
            if one.num_args():
                waiting += one.children()
            elif one.decl().kind() == z3.Z3_OP_UNINTERPRETED:
                found.add(one.decl().name())
        self._constants[number] = formula, frozenset(found)
        return self._constants[number][1]

    def is_uniform(self, value: Any) -> bool:
        """Say whether a polynomial or formula is the same in all programs."""
        names = value.unknowns if isinstance(value, Poly) else self.constants(value)
        return all(self.by_name[name].uniform for name in names)

    def behind(self, formulas: Iterable[Any]) -> tuple[set[str], list[Any]]:
        """Collect the unknowns that formulas hang on, and the facts that define them.

        In one order always: z3 gives up, or does not, as it reads them.
        """
        names: set[str] = set()
        facts: dict[int, Any] = {}
        waiting = [name for f in formulas for name in sorted(self.constants(f))]
        while waiting:
            name = waiting.pop()
            if name in names:
                continue
            names.add(name)
            for fact in self.by_name[name].facts:
                if fact.get_id() not in facts:
                    facts[fact.get_id()] = fact
                    waiting += sorted(self.constants(fact))
        return names, list(facts.values())


def _lowest(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else min(a, b)


def _highest(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else max(a, b)


def _known(pick: Any, *numbers: int | None) -> int | None:
    known = [n for n in numbers if n is not None]
    return pick(known) if known else None


def _below(high: int | None, low: int | None) -> bool:
    return high is not None and low is not None and high <= low


def _product(a: Bounds, b: Bounds) -> Bounds:
    """Multiply two intervals; a missing bound is infinite."""
    if a == (0, 0) or b == (0, 0):
        return 0, 0
    if None in a or None in b:
        if a[0] is None or b[0] is None or a[0] < 0 or b[0] < 0:
            return None, None
        return a[0] * b[0], None if a[1] is None or b[1] is None else a[1] * b[1]
    corners = [x * y for x in a for y in b]  # type: ignore[operator]
    return min(corners), max(corners)
