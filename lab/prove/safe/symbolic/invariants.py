"""What stays true of the integers that a loop carries, turn after turn.

Guessed and then shown, as Houdini does it (Flanagan and Leino, 2001): that two of them stay in
order, that one stays within where it or another began, and that one which takes a new value under
a condition alone, `low = where(reached(middle), middle, low)`, satisfies the condition. Of the
guesses those are kept that hold before the first turn and, where all that are kept hold at a
turn's start, at its end.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import z3

from .solver import LINEAR_STEPS, Solver
from .terms import Poly, Unknowns

# A statement about all that a loop carries.
Statement = Callable[[Sequence[Poly]], Any]


@dataclasses.dataclass(frozen=True)
class Carried:
    """An integer that a loop carries: before the first turn, and at the start and end of any."""

    start: Poly
    before: Poly
    after: Poly


def invariants(
    solver: Solver,
    outside: list[Any],
    inside: list[Any],
    carried: list[Carried],
    spelled_out: Callable[[Any], Any],
    lasting: set[str],
) -> list[Statement]:
    """Find what holds of the integers that a loop carries.

    Parameters
    ----------
    solver : Solver
        With the facts that hold everywhere.
    outside, inside : list of formula
        What holds where the loop stands, and in its turns.
    carried : list of Carried
    spelled_out : callable
        Writes a formula with what was read from memory as a function of the place.
    lasting : set of str
        The unknowns from outside the loop, which are the same in all turns.

    Returns
    -------
    list of callable
        Each makes a formula of numbers that take the places of those carried.
    """
    starts, before, after = ([getattr(c, f) for c in carried] for f in ("start", "before", "after"))
    guesses = [
        *_orders(solver.unknowns, starts),
        *_conditions(solver.unknowns, carried, spelled_out, lasting),
    ]
    kept = [guess for guess in guesses if _follows(solver, outside, guess(starts))]
    while kept:
        given = [*inside, *(guess(before) for guess in kept)]
        again = [guess for guess in kept if _follows(solver, given, guess(after))]
        if len(again) == len(kept):
            break
        kept = again
    return kept


def _follows(solver: Solver, given: list[Any], statement: Any) -> bool:
    return bool(solver.follows(given, statement, steps=LINEAR_STEPS).follows)


def _orders(unknowns: Unknowns, starts: list[Poly]) -> Iterator[Statement]:
    """Guess that two stay in order, and that each stays on one side of where each began."""
    compare = operator.le, operator.lt
    for i in range(len(starts)):
        for j, start in enumerate(starts):
            for less in compare:
                if i != j:
                    yield _ordered(unknowns, less, i, j)
                yield _below(unknowns, less, i, start)
            yield _above(unknowns, i, start)


def _ordered(unknowns: Unknowns, less: Any, i: int, j: int) -> Statement:
    return lambda now: less(unknowns.formula(now[i]), unknowns.formula(now[j]))


def _below(unknowns: Unknowns, less: Any, i: int, start: Poly) -> Statement:
    return lambda now: less(unknowns.formula(now[i]), unknowns.formula(start))


def _above(unknowns: Unknowns, i: int, start: Poly) -> Statement:
    return lambda now: unknowns.formula(now[i]) >= unknowns.formula(start)


def _conditions(
    unknowns: Unknowns,
    carried: list[Carried],
    spelled_out: Callable[[Any], Any],
    lasting: set[str],
) -> Iterator[Statement]:
    """Guess that what is replaced where a condition holds of the new value satisfies it."""
    for i, one in enumerate(carried):
        chosen = unknowns.choices.get(next(iter(one.after.unknowns), ""))
        if chosen is None:
            continue
        condition, new, old = chosen
        if old.key != one.before.key or list(new.terms.values()) != [1] or len(new.unknowns) != 1:
            continue
        spelled = spelled_out(condition)
        # What hangs on this turn says nothing of the next one; nor does the half of a new value,
        # a number of its own that does not change where another value is put in.
        others = unknowns.constants(spelled) - new.unknowns
        if all(unknowns.hangs_on(name, lasting) for name in others):
            yield _condition(unknowns, spelled, unknowns.unknown(new).variable, i)


def _condition(unknowns: Unknowns, condition: Any, new: Any, i: int) -> Statement:
    return lambda now: z3.substitute(condition, (new, unknowns.formula(now[i])))
