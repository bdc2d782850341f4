"""No race: two programs never touch the same element, one of them writing.

Equal coordinates of two programs' accesses must contradict each other. Programs' own unknowns are
told apart by an apostrophe. Where z3 does not see the contradiction at once, it is led there in
steps: what both compute alike, until their numbers are.
"""

from collections.abc import Iterator
from typing import Any

import z3

from ..symbolic.solver import Answer
from ..symbolic.terms import Poly
from ..symbolic.walk import SWAP, Access
from .questions import NOT_FOLLOWED, PROVED, QUICK, REFUTED, UNKNOWN, Finding, Questions

# These wait for each other at an element, so that none sees half of what another does.
ATOMIC = {"atomic", SWAP}


class Races:
    """Asks of all pairs of a kernel's accesses whether two programs can meet.

    Parameters
    ----------
    questions : Questions
        Whose bounds have been asked.
    """

    def __init__(self, questions: Questions) -> None:
        self.questions = questions
        self.walk, self.unknowns, self.solver = questions.walk, questions.unknowns, questions.solver
        self._others: dict[str, Any] = {}

    def other(self, formula: Any) -> Any:
        """Write a formula of another program's: its own unknowns get an apostrophe."""
        pairs = []
        for name in self.unknowns.constants(formula):
            known = self.unknowns.by_name[name]
            if known.uniform:
                continue
            if name not in self._others:
                sort = known.variable.sort()
                self._others[name] = z3.Const(name + "'", sort)
            pairs.append((known.variable, self._others[name]))
        return z3.substitute(formula, *pairs) if pairs else formula

    def all(self) -> Iterator[Finding]:
        """Ask of all pairs."""
        tensors, apart = self.questions.problem.tensors, self.questions.apart
        known = {a for a in self.walk.accesses if a.base in tensors or a in apart}
        accesses = [a for a in self.walk.accesses if a in known]
        if all(p.constant == 0 for p in self.walk.programs):
            return
        for a in self.walk.accesses:
            if a not in known and a.kind != "load":
                what = f"{a.kind} and any other"
                yield Finding("race", a.where, what, NOT_FOLLOWED, self.questions.why_no_tensor(a))
        for i, a in enumerate(accesses):
            for b in accesses[i:]:
                kinds = {a.kind, b.kind}
                if a.base == b.base and not (kinds <= {"load"} or kinds <= ATOMIC):
                    yield self.race(a, b)

    def race(self, a: Access, b: Access) -> Finding:
        """Ask whether one program's access and another program's can touch one element."""
        where = a.where if a is b else f"{a.where} and {b.where.rpartition('/')[2]}"
        what = f"{a.kind} and {b.kind} of {a.base}"
        finding = Finding("race", where, what, UNKNOWN, tensor=a.base)
        questions = self.questions
        mine, theirs = questions.lanes(a.pointer.shape), questions.lanes(b.pointer.shape)
        x, rest_x = questions.coordinates(a)
        y, rest_y = questions.coordinates(b)
        formula = self.unknowns.formula
        given = questions.premises(a, mine)
        others = questions.premises(b, theirs)
        if not {a, b} <= questions.apart.keys():  # compare offsets
            (x, rest_x), (y, rest_y) = ([], a.pointer.at(mine)), ([], b.pointer.at(theirs))
        programs = [p for p in self.walk.programs if p.constant is None]
        differ = z3.Or([formula(p) != self.other(formula(p)) for p in programs])
        same = [formula(c) == self.other(formula(d)) for c, d in zip(x, y, strict=True)]
        same += [formula(rest_x) == self.other(formula(rest_y))]
        facts = self.solver.facts
        _, mine_behind = self.unknowns.behind([*given, *(formula(c) for c in (*x, rest_x))])
        _, their_behind = self.unknowns.behind([*others, *(formula(c) for c in (*y, rest_y))])
        used = [*facts, *self.unknowns.behind(facts)[1]]
        both = [
            *given, *mine_behind, *(self.other(f) for f in (*others, *their_behind)),
            *used, *(self.other(f) for f in used), differ, *same,
        ]  # fmt: skip
        answer = self.solver.linearly(both)
        if answer.follows is not False and self._same_program(given, others, same, [*x, rest_x]):
            answer = Answer(False)
        if answer.follows is not False:
            answer = self.solver.satisfiable(both, steps=QUICK)
        if answer.follows is False:
            finding.verdict = PROVED
        elif answer.follows is None:
            finding.reason = "z3 gave up"
        else:
            finding.verdict, finding.model = REFUTED, self._small_race(both) or answer.model
            finding.reason = "two programs touch one element"
        return finding

    def _same_program(
        self, given: list[Any], others: list[Any], same: list[Any], places: list[Poly]
    ) -> bool:
        """Show step by step that two programs which touch one element are one program.

        First that the quotients and rests which they compute are equal; where both of a division
        are, so is what was divided; and so on up to the programs' numbers. Each step is linear.
        """
        known = [*given, *(self.other(f) for f in others), *same]
        known += [*self._below(given), *(self.other(f) for f in self._below(others))]
        equal: set[str] = set()
        for place in places:
            self._walk_in_steps(place, known, equal)
        for program in sorted(n for p in self.walk.programs for n in p.unknowns - equal):
            if self._follows_twice(known, self._alike(program)):
                equal.add(program)
        divisions = self._divisions_behind([*given, *others], places)
        return any(self._grow(known, equal, divisions, products=p) for p in (False, True))

    def _divisions_behind(self, formulas: list[Any], places: list[Poly]) -> list[Any]:
        """List the divisions of programs' numbers on which formulas and coordinates hang."""
        names, _ = self.unknowns.behind([*formulas, *map(self.unknowns.formula, places)])
        return [
            made for made in self.unknowns.divisions
            if made[2].unknowns <= names and not self.unknowns.is_uniform(made[2])
        ]  # fmt: skip

    def _below(self, given: list[Any]) -> list[Any]:
        """Bound quotients: of x < u · y follows x / y < u, for products in what is given.

        With that a sum such as head · group + x / y says which head it is.
        """
        found = []
        products = sorted(self.solver.products_in(given))
        for _, y, q, _ in self.unknowns.divisions:
            if list(y.terms.values()) != [1] or self.unknowns.is_uniform(q):
                continue
            (monomial,) = y.terms
            positive = self.unknowns.formula(y) > 0
            for u in (Poly({m: 1}).divided(monomial)[0] for m in products):
                below = self.unknowns.formula(q) < self.unknowns.formula(u)
                if u.terms and self.solver.excludes(given, z3.Not(below)):
                    found.append(below)
            if found and self.solver.excludes(given, z3.Not(positive)):
                found.append(positive)
        return found

    def _grow(
        self, known: list[Any], equal: set[str], divisions: list[Any], *, products: bool
    ) -> bool:
        """Add to what is equal for both programs, until their numbers are."""
        changed = True
        while changed:
            changed = False
            for x, y, q, r in divisions:
                pair = q.unknowns | r.unknowns
                for n in sorted(pair - equal):
                    if self._follows_twice(known, self._alike(n), products=products):
                        equal.add(n)
                        known.append(self._alike(n))
                        changed = True
                # Of a square the root is not known, for it may be negative.
                single = [len(monomial) for monomial in x.terms] == [1]
                if pair <= equal and single and not x.unknowns <= equal and self._all(y, equal):
                    positive = self.unknowns.formula(y) > 0
                    if self._follows_twice(known, positive):
                        equal |= x.unknowns
                        known += [self._alike(n) for n in x.unknowns]
                        changed = True
        return all(p.unknowns <= equal for p in self.walk.programs)

    def _walk_in_steps(self, place: Poly, known: list[Any], equal: set[str]) -> None:
        """Tell programs apart that walk in steps as long as the grid: program + grid · turn.

        Of two such numbers that are equal the programs are, for they are rests of a division.
        """
        for program in self.walk.programs:
            above = self.unknowns.below.get(next(iter(program.unknowns), ""))
            if above is None or list(above.terms.values()) != [1]:
                continue
            ((monomial, _),), ((own, _),) = above.terms.items(), program.terms.items()
            factor = place.terms.get(own, 0)
            inside, _ = place.divided(monomial)
            if not factor or not inside.terms or any(c % factor for c in inside.terms.values()):
                continue
            steps = Poly({m: c // factor for m, c in inside.terms.items()})
            number = self.unknowns.formula(program + above * steps)
            if self._follows_twice(known, number == self.other(number)):
                equal |= program.unknowns
                known.append(self._alike(own[0]))

    def _alike(self, name: str) -> Any:
        variable = self.unknowns.by_name[name].variable
        return variable == self.other(variable)

    def _all(self, x: Poly, equal: set[str]) -> bool:
        """Say whether a polynomial is the same for both programs."""
        return all(self._one(n, equal) for n in x.unknowns)

    def _one(self, name: str, equal: set[str]) -> bool:
        if name in equal or self.unknowns.by_name[name].uniform:
            return True
        made = self.unknowns.minima.get(name)
        return made is not None and all(self._all(p, equal) for p in made[1:])

    def _follows_twice(self, known: list[Any], statement: Any, *, products: bool = False) -> bool:
        """Say whether a statement follows of two programs, by what defines both, linearly."""
        formulas = [*known, statement, *self.solver.facts]
        mine = [f for f in formulas if not self._is_others(f)]
        names, _ = self.unknowns.behind(mine)
        names |= {n for n in self._others if any(self._mentions(f, n) for f in formulas)}
        variables = [self.unknowns.by_name[n].variable == 0 for n in sorted(names)]
        _, behind = self.unknowns.behind(variables)
        facts = [*behind, *self.solver.facts]
        given = [*known, *facts, *(self.other(f) for f in facts)]
        return all(
            self.solver.linearly([*given, case], products=products).follows is False
            for case in (_otherwise(statement) if products else [z3.Not(statement)])
        )

    def _is_others(self, formula: Any) -> bool:
        return any(n.endswith("'") for n in self.unknowns.constants(formula))

    def _mentions(self, formula: Any, name: str) -> bool:
        return name + "'" in self.unknowns.constants(formula)

    def _small_race(self, both: list[Any]) -> dict[str, int | bool]:
        names = set(self.unknowns.by_name)
        for most in (6, 40, 300):
            small = [
                *self.questions.small_sizes(most, names), *self.questions.spread(names),
            ]  # fmt: skip
            answer = self.solver.satisfiable([*both, *small], steps=QUICK)
            if answer.follows:
                return answer.model
        return {}


def _otherwise(statement: Any) -> list[Any]:
    """List the ways in which a statement is false: two numbers that differ are less or greater.

    Of an inequality follows what no disjunction says: what it is when multiplied.
    """
    if z3.is_eq(statement) and z3.is_int(statement.arg(0)):
        x, y = statement.children()
        return [x < y, x > y]
    return [z3.Not(statement)]
