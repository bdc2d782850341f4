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

    def follows(self, given: Iterable[Any], statement: Any, *, steps: int = STEPS) -> Answer:
        """Say whether a statement follows from formulas, what defines their unknowns, and facts.

        Parameters
        ----------
        given : iterable of formula
        statement : formula
        steps : int
            How many z3 may take.
        """
        asked = [*given, z3.Not(statement)]
        # Facts without products first: one that has nothing to do with it may cost minutes.
        answer = self._with(asked, self.linear, steps)
        if answer.follows is not False and len(self.linear) < len(self.facts):
            answer = self._with(asked, self.facts, steps)
        return Answer(None if answer.follows is None else not answer.follows, answer.model)

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


def is_linear(formula: Any) -> bool:
    """Say whether a formula multiplies no two unknowns."""
    if z3.is_mul(formula):
        return sum(not z3.is_int_value(x) for x in formula.children()) < 2
    return all(is_linear(x) for x in formula.children())


def _number(value: Any) -> int | bool:
    if z3.is_int_value(value):
        return int(value.as_long())
    return bool(z3.is_true(value))
