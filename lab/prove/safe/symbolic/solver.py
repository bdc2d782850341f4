"""Questions to z3: whether a statement follows from what is known."""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

import z3

from .products import Expansion, multiplied
from .terms import Monomial, Poly, Unknowns

# How long z3 may think, in its own count of steps: a proof must not hang on how busy a machine is.
# A million steps take about a quarter of a second.
STEPS = 4_000_000
LINEAR_STEPS = 400_000  # of questions without products
_SECONDS = 120  # for questions of which z3 does not count the steps


@dataclasses.dataclass(frozen=True)
class Answer:
    """What z3 said.

    Attributes
    ----------
    follows : bool or None
        None where it gave up.
    model : dict
        Where it does not follow: numbers for the unknowns with which it is false.
    """

    follows: bool | None
    model: dict[str, int | bool] = dataclasses.field(default_factory=dict)


class Solver:
    """Asks z3, with as few facts as will do.

    Parameters
    ----------
    unknowns : Unknowns
    facts : sequence of formula
        The contract's.

    Attributes
    ----------
    seconds : float
        CPU time that z3 has taken.
    """

    def __init__(self, unknowns: Unknowns, facts: Sequence[Any]) -> None:
        self.unknowns = unknowns
        self.facts = list(facts)
        self.linear = [fact for fact in facts if is_linear(fact)]
        self.seconds = 0.0
        self._known: dict[Any, tuple[Answer, list[Any]]] = {}
        self._excluded: dict[Any, tuple[bool, list[Any]]] = {}
        self._linear: dict[int, tuple[Any, Any]] = {}
        self._expansion = Expansion()

    def follows(self, given: Iterable[Any], statement: Any, *, steps: int = STEPS) -> Answer:
        """Say whether a statement follows from formulas, what defines their unknowns, and facts.

        Parameters
        ----------
        given : iterable of formula
        statement : formula
        steps : int
            How many z3 may take.
        """
        given = list(given)
        answer = Answer(True)
        for part in statement.children() if z3.is_and(statement) else [statement]:
            answer = self._follows(given, part, steps)
            if not answer.follows:
                break
        return answer

    def _follows(self, given: list[Any], statement: Any, steps: int) -> Answer:
        """Ask the cheapest question first that has the answer: with few facts z3 is quick."""
        key = statement.get_id(), frozenset(formula.get_id() for formula in given)
        if key in self._known:
            return self._known[key][0]
        parts = [part for formula in given for part in conjuncts(formula)]
        wrong = z3.Not(statement)
        answer = Answer(any(statement.eq(part) for part in parts) or z3.is_true(statement))
        if not answer.follows and self.excludes([], wrong):
            answer = Answer(True)
        if not answer.follows and self.excludes(parts, wrong):
            answer = Answer(True)
        if not answer.follows:
            # Facts without products first: one that has nothing to do with it may cost minutes.
            answer = self._with([*given, wrong], self.linear, steps)
            if answer.follows is not False and len(self.linear) < len(self.facts):
                answer = self._with([*given, wrong], self.facts, steps)
            answer = Answer(None if answer.follows is None else not answer.follows, answer.model)
        self._known[key] = answer, [*given, statement]  # held: z3 numbers formulas anew
        return answer

    def linear_part(self, formulas: Iterable[Any]) -> list[Any]:
        """Put a number of its own in the place of each product of unknowns.

        What the result excludes is excluded: products are among all numbers.
        """
        found = []
        for formula in formulas:
            number = formula.get_id()
            if number not in self._linear:
                self._linear[number] = without_products(formula, self._expansion), formula
            found.append(self._linear[number][0])
        return found

    def linearly(
        self, formulas: Iterable[Any], *, products: bool = True, steps: int = LINEAR_STEPS
    ) -> Answer:
        """Ask whether formulas can hold together, of products only what inequalities say of them.

        If not, they exclude each other; if so that need not be so, for there was no search among
        products, and the numbers are of no use.
        """
        formulas = list(formulas)
        linear = self.linear_part(formulas)
        answer = self.satisfiable(linear, steps=steps)
        if products and answer.follows is not False:
            more = [linear_sum(p, self._expansion) for p in multiplied(self._expansion, formulas)]
            if more:
                answer = self.satisfiable([*linear, *(p >= 0 for p in more)], steps=steps)
        return answer

    def equations(self, formulas: Iterable[Any]) -> list[Poly]:
        """List the polynomials of unknowns that are 0 where formulas hold."""
        equal = (f for one in formulas for f in conjuncts(one) if z3.is_eq(f))
        found = [p for f in equal for p in self._expansion.compared(f)]
        return [p for p in found if p.unknowns <= self.unknowns.by_name.keys()]

    def products_in(self, formulas: Iterable[Any]) -> set[Monomial]:
        """List the products of unknowns in formulas."""
        sums = (p for f in formulas for p in self._expansion.compared(f))
        return {monomial for p in sums for monomial in p.terms if len(monomial) > 1}

    def excludes(self, given: list[Any], wrong: Any) -> bool:
        """Say whether facts without products, and what is given, exclude what would be wrong."""
        key = wrong.get_id(), frozenset(formula.get_id() for formula in given)
        if key not in self._excluded:
            _, behind = self.unknowns.behind([*given, wrong, *self.facts])
            formulas = [*given, wrong, *behind, *self.facts]
            answer = self.linearly(formulas, products=bool(given))
            self._excluded[key] = answer.follows is False, [*given, wrong]
        return self._excluded[key][0]

    def _with(self, asked: list[Any], facts: list[Any], steps: int) -> Answer:
        _, behind = self.unknowns.behind([*asked, *facts])
        return self.satisfiable([*asked, *behind, *facts], steps=steps)

    def satisfiable(self, formulas: Sequence[Any], *, steps: int = STEPS) -> Answer:
        """Say whether formulas can hold together; if so, with which numbers."""
        solver = z3.Solver()
        solver.set("rlimit", steps)
        solver.set("timeout", _SECONDS * 1000)
        solver.add(*formulas)
        started = time.process_time()
        result = solver.check()
        self.seconds += time.process_time() - started
        if result == z3.sat:
            model = solver.model()
            return Answer(True, {d.name(): _number(model[d]) for d in model.decls()})
        return Answer(False if result == z3.unsat else None)


def begin_anew() -> None:
    """Let z3 count formulas from 1 again: what it finds hangs on their numbers.

    Without, a proof would hang on what was proved before it. What was made before is of no use now.
    """
    z3.z3._main_ctx = None


def is_linear(formula: Any) -> bool:
    """Say whether a formula multiplies no two unknowns."""
    if z3.is_mul(formula) and sum(not z3.is_int_value(x) for x in formula.children()) > 1:
        return False
    return all(is_linear(x) for x in formula.children())


def without_products(formula: Any, expansion: Expansion) -> Any:
    """Put a number of its own in the place of each product of unknowns in a formula."""
    if is_linear(formula):
        return formula
    if z3.is_int(formula) and (z3.is_mul(formula) or z3.is_add(formula) or z3.is_sub(formula)):
        return linear_sum(expansion.poly(formula), expansion)
    children = (without_products(child, expansion) for child in formula.children())
    return formula.decl()(*children)


def linear_sum(x: Poly, expansion: Expansion) -> Any:
    """Write a polynomial over atoms, each product of two or more being a number of its own."""
    parts = [_scaled(c, monomial, expansion) for monomial, c in x.terms.items()]
    return z3.Sum(parts) if len(parts) > 1 else parts[0] if parts else z3.IntVal(0)


def _scaled(c: int, monomial: Monomial, expansion: Expansion) -> Any:
    """Write a number times a product."""
    if (c, monomial) not in expansion.written:
        factors = [expansion.atoms[name] for name in monomial]
        if not factors:
            number = z3.IntVal(c)
        elif len(factors) == 1:
            number = c * without_products(factors[0], expansion)
        else:
            number = c * z3.Int("·".join(sorted(factor.sexpr() for factor in factors)))
        expansion.written[c, monomial] = number
    return expansion.written[c, monomial]


def conjuncts(formula: Any) -> list[Any]:
    """Take a formula apart into what it says together."""
    if not z3.is_and(formula):
        return [formula]
    return [part for child in formula.children() for part in conjuncts(child)]


def _number(value: Any) -> int | bool:
    if z3.is_int_value(value):
        return int(value.as_long())
    return bool(z3.is_true(value))
