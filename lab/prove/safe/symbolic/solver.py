"""Questions to z3: whether a statement follows from what is known."""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

import z3

from .terms import Unknowns

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
        if not answer.follows and self._excludes([], wrong):
            answer = Answer(True)
        if not answer.follows and self._excludes(parts, wrong):
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
                self._linear[number] = without_products(formula), formula
            found.append(self._linear[number][0])
        return found

    def _excludes(self, given: list[Any], wrong: Any) -> bool:
        """Say whether facts without products, and what is given, exclude what would be wrong."""
        key = wrong.get_id(), frozenset(formula.get_id() for formula in given)
        if key not in self._excluded:
            _, behind = self.unknowns.behind([*given, wrong, *self.facts])
            asked = self.linear_part([*given, wrong, *behind, *self.facts])
            answer = self.satisfiable(asked, steps=LINEAR_STEPS)
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


def without_products(formula: Any) -> Any:
    """Put a number of its own in the place of each product of unknowns in a formula."""
    if is_linear(formula):
        return formula
    if not z3.is_mul(formula):
        return formula.decl()(*(without_products(child) for child in formula.children()))
    factors = [factor for factor in _factors(formula) if not z3.is_int_value(factor)]
    number = 1
    for factor in _factors(formula):
        number *= factor.as_long() if z3.is_int_value(factor) else 1
    return number * z3.Int("·".join(sorted(factor.sexpr() for factor in factors)))


def _factors(product: Any) -> list[Any]:
    if not z3.is_mul(product):
        return [product]
    return [factor for child in product.children() for factor in _factors(child)]


def conjuncts(formula: Any) -> list[Any]:
    """Take a formula apart into what it says together."""
    if not z3.is_and(formula):
        return [formula]
    return [part for child in formula.children() for part in conjuncts(child)]


def _number(value: Any) -> int | bool:
    if z3.is_int_value(value):
        return int(value.as_long())
    return bool(z3.is_true(value))
