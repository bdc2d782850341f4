"""Is every element of a result written? For any element, who writes it is named, and shown to.

An element's coordinate is a sum such as 1024·group + 128·rest + lane. Read as digits it says which
program, which lane and which turn of a loop write the element: divide by the largest factor, go on
with what is left. A quotient and a rest of one division that are both known give what was divided.
What is found so need not be right: it is put into the kernel's own conditions, and z3 must show
that they hold, and that the address is the element's. First of all that there is such a program:
nothing that programs compute may be assumed of one that is not in the grid.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import z3

from ..symbolic.solver import LINEAR_STEPS, Solver
from ..symbolic.terms import Poly
from ..symbolic.walk import SWAP, Access
from .coordinates import Tensor
from .questions import PROVED, UNKNOWN, Finding, Questions


def written(questions: Questions) -> Iterator[Finding]:
    """Ask of each tensor that a kernel stores to whether all of it is written.

    Parameters
    ----------
    questions : Questions
        Whose bounds have been asked.

    Yields
    ------
    Finding
        Those that are not proved have the numbers of a small launch in which to look.
    """
    stores: dict[str, list[Access]] = {}
    for access in questions.walk.accesses:
        if access.kind != "load" and access.base in questions.problem.tensors:
            stores.setdefault(access.base, []).append(access)
    for base, accesses in stores.items():
        if base not in questions.problem.contract.partly:
            yield _tensor(questions, questions.problem.tensors[base], accesses)


def _tensor(questions: Questions, tensor: Tensor, accesses: list[Access]) -> Finding:
    unknowns, formula = questions.unknowns, questions.unknowns.formula
    what = f"all of {tensor.name}"
    finding = Finding("written", accesses[0].where, what, UNKNOWN, tensor=tensor.name)
    accesses = [access for access in accesses if access.kind != SWAP]
    if not accesses:
        finding.reason = "a compare-and-swap writes only what it finds as it expects"
        return finding
    element = [unknowns.new(f"element{i}", 0, uniform=True) for i in range(len(tensor.shape))]
    inside = [formula(e) < formula(n) for e, n in zip(element, tensor.shape, strict=True)]
    owners: dict[Any, dict[str, Any]] = {}
    witnesses = [Witness(questions, tensor, element, owners) for _ in accesses]
    ways = [w.way(access) for w, access in zip(witnesses, accesses, strict=True)]
    solver = questions.without_programs
    minima = {n for w in witnesses for m in w.minima.values() for n in unknowns.constants(m)}
    of_programs = lambda f: _is_of_programs(questions, f, minima)  # noqa: E731
    for hint in (hint for witness in witnesses for hint in witness.hints()):
        if not of_programs(hint) and solver.follows(inside, hint, steps=LINEAR_STEPS).follows:
            inside.append(hint)
    if _some_exist(solver, inside, ways, of_programs) and _is_written(solver, inside, ways):
        finding.verdict = PROVED
        return finding
    nobody = [z3.Not(z3.And([*way.exists, *way.writes])) for way in ways]
    known = [fact for way in ways for fact in way.definitions]
    small = questions.small_model([*inside, *known, *nobody])
    finding.model = small.model if small.follows else {}
    finding.reason = "who writes an element was not found"
    return finding


@dataclasses.dataclass(frozen=True)
class Way:
    """How an element may be written.

    Attributes
    ----------
    exists : list of formula
        That there are such a program, lane and turn.
    writes : list of formula
        That they reach the store, and that its address is the element's.
    definitions : list of formula
        What they compute, if they exist.
    """

    exists: list[Any]
    writes: list[Any]
    definitions: list[Any]


def _is_of_programs(questions: Questions, formula: Any, found: set[str]) -> bool:
    """Say whether a formula hangs on what programs compute, and so on there being one.

    What they compute of a factor of the grid takes for granted that it is not 0.
    """
    problem, unknowns = questions.problem, questions.unknowns
    names = unknowns.behind([formula])[0] - problem.launched - found
    variables = [unknowns.by_name[name].variable for name in sorted(names)]
    return any(problem.factors & unknowns.behind([v])[0] for v in variables)


def _some_exist(
    solver: Solver, inside: list[Any], ways: list[Way], of_programs: Callable[[Any], bool]
) -> bool:
    """Say whether for each element there is a program, if what is asked takes it for granted."""
    if any(of_programs(part) for way in ways for part in way.exists):
        return False
    if len(ways) == 1 or not any(of_programs(f) for w in ways for f in w.writes + w.definitions):
        return True
    return bool(solver.follows(inside, z3.Or([z3.And(way.exists) for way in ways])).follows)


def _is_written(solver: Solver, inside: list[Any], ways: list[Way]) -> bool:
    """Say whether each element inside is written in one of the ways."""
    if len(ways) == 1:  # one condition at a time: each hangs on few facts
        (way,) = ways
        known = [*inside, *way.exists, *way.definitions]
        return all(solver.follows(inside, part).follows for part in way.exists) and all(
            solver.follows(known, part).follows for part in way.writes
        )
    known = [z3.Implies(z3.And(way.exists), fact) for way in ways for fact in way.definitions]
    some = z3.Or([z3.And([*way.exists, *way.writes]) for way in ways])
    return bool(solver.follows([*inside, *known], some).follows)


class Witness:
    """Finds out which program, lane and turn write an element.

    Parameters
    ----------
    questions : Questions
    tensor : Tensor
    element : list of Poly
        Its coordinates.
    owners : dict
        By which program, lane and turn it is, the names of what that computes: shared by all
        stores, for one program computes a number once.
    """

    def __init__(
        self,
        questions: Questions,
        tensor: Tensor,
        element: list[Poly],
        owners: dict[Any, dict[str, Any]],
    ) -> None:
        self.questions, self.unknowns = questions, questions.unknowns
        self.tensor, self.element = tensor, element
        self.values: dict[str, Any] = {}  # unknown to formula
        self.minima: dict[str, Any] = {}  # of found unknowns
        self.owners = owners
        self.own: dict[str, Any] = {}  # what is computed for this element

    def way(self, access: Access) -> Way:
        """Return what must hold if an access is to write the element."""
        questions, formula = self.questions, self.unknowns.formula
        lanes = questions.lanes(access.pointer.shape)
        premises = questions.premises(access, lanes)
        coordinates, rest = questions.coordinates(access)
        for e, c in zip(self.element, coordinates, strict=True):
            self.solve(formula(e), c)
        for equation in questions.solver.equations(premises):
            self.solve(z3.IntVal(0), equation)
        self.solve_divisions()
        free = [p for p in (*questions.walk.programs, *lanes) if p.constant is None]
        free_names = {n for p in free for n in p.unknowns}
        wanted = [
            *premises, formula(rest) == 0,
            *(formula(e) == formula(c) for e, c in zip(self.element, coordinates, strict=True)),
        ]  # fmt: skip
        names, _ = self.unknowns.behind(wanted)
        turns = names & set(questions.walk.loops)
        for name in free_names | turns:
            self.values.setdefault(name, z3.IntVal(0))
        digits = self._digits()
        chosen = free_names | turns | digits
        exists = [f for n in sorted(free_names | turns) for f in self.unknowns.by_name[n].facts]
        exists += [f for f in questions.solver.facts if self.unknowns.constants(f) & free_names]
        wanted += [f for n in sorted(digits) for f in self.unknowns.by_name[n].facts]
        definitions = [
            fact for name in sorted(names - chosen) for fact in self.unknowns.by_name[name].facts
        ]
        pairs = [(self.unknowns.by_name[n].variable, self.values[n]) for n in sorted(chosen)]
        # What is defined by what was chosen has other values where another is chosen.
        who = tuple((n, self.values[n].sexpr()) for n in sorted(chosen))
        self.own = self.owners.setdefault(who, {})
        apart = [
            (self.unknowns.by_name[n].variable, self._computed(n, chosen))
            for n in sorted(names - chosen)
            if not self.unknowns.by_name[n].uniform
        ]
        put = lambda f: z3.substitute(z3.substitute(f, *apart), *pairs)  # noqa: E731
        return Way(*([put(f) for f in part] for part in (exists, wanted, definitions)))

    def _digits(self) -> set[str]:
        """Name quotients and rests that have been found, both of a division.

        A division has one answer: to show that they are one spares z3 to search for it.
        """
        found: set[str] = set()
        for _, _, q, r in self.unknowns.divisions:
            pair = q.unknowns | r.unknowns
            if pair <= self.values.keys() and not any(
                self.unknowns.by_name[n].uniform for n in pair
            ):
                found |= pair
        return found

    def _computed(self, name: str, chosen: set[str]) -> Any:
        """Name what is computed; a minimum of what was chosen has its name already."""
        if name in self.minima and self._is_of(name, chosen):
            return self.minima[name]
        if name not in self.own:
            if z3.is_bool(self.unknowns.by_name[name].variable):
                self.own[name] = self.unknowns.truth(f"{name}~")
            else:
                self.own[name] = self.unknowns.formula(self.unknowns.new(f"{name}~"))
        return self.own[name]

    def _is_of(self, name: str, chosen: set[str]) -> bool:
        """Say whether an unknown is chosen, or a minimum of such: its value is no guess then."""
        if name in chosen or self.unknowns.by_name[name].uniform:
            return True
        made = self.unknowns.minima.get(name)
        return made is not None and all(
            self._is_of(n, chosen) for p in made[1:] for n in p.unknowns
        )

    def solve(self, target: Any, total: Poly) -> None:
        """Let a sum be a number: read its unknowns off as digits, the largest factor first."""
        factors: dict[str, Poly] = {}
        rest = Poly({})
        for monomial, c in total.terms.items():
            own = [n for n in monomial if not self.unknowns.by_name[n].uniform]
            if len(own) == 1 and own[0] not in self.values:
                others = list(monomial)
                others.remove(own[0])
                factors[own[0]] = factors.get(own[0], Poly({})) + Poly({tuple(others): c})
            elif all(n in self.values or self.unknowns.by_name[n].uniform for n in monomial):
                rest = rest + Poly({monomial: c})
            else:
                return
        left = target - self.value(rest)
        for name in sorted(factors, key=lambda n: _size(factors[n]), reverse=True):
            factor = factors[name]
            constant = factor.constant
            if constant is not None and abs(constant) == 1:
                self.values[name] = left * constant
                left = z3.IntVal(0)
            else:
                negative = constant is not None and constant < 0
                size = self.value(-factor if negative else factor)
                quotient = left / size
                self.values[name] = -quotient if negative else quotient
                left = left % size

    def solve_divisions(self) -> None:
        """Find what was divided, where the quotient and the rest are known."""
        for last in (False, True):
            changed = True
            while changed:
                changed = False
                for name, (x, y, q, r) in list(self.unknowns.how.items()):
                    pair = [next(iter(p.unknowns)) for p in (q, r)]
                    known = [n in self.values for n in pair]
                    if name not in pair[:1] or not any(known) or self.has_value(x):
                        continue
                    if not all(known) and not last:
                        continue
                    if not self.has_value(y):
                        continue
                    quotient, rest = (self.values.get(n, z3.IntVal(0)) for n in pair)
                    self.solve(quotient * self.value(y) + rest, x)
                    changed = self.has_value(x)
                    if changed:
                        break

    def has_value(self, x: Poly) -> bool:
        """Say whether all unknowns of a polynomial are uniform or have been found."""
        return all(self.name_has_value(n) for n in x.unknowns)

    def name_has_value(self, name: str) -> bool:
        """Say so of one unknown; a minimum of found ones is found."""
        if self.unknowns.by_name[name].uniform or name in self.values:
            return True
        made = self.unknowns.minima.get(name)
        return made is not None and all(self.has_value(p) for p in made[1:])

    def value(self, x: Poly) -> Any:
        """Write a polynomial of found unknowns."""
        pairs = []
        for name in x.unknowns:
            if not self.unknowns.by_name[name].uniform:
                found = self.values[name] if name in self.values else self.minimum(name)
                pairs.append((self.unknowns.by_name[name].variable, found))
        total = self.unknowns.formula(x)
        return z3.substitute(total, *pairs) if pairs else total

    def minimum(self, name: str) -> Any:
        """Write a minimum, or maximum, of found unknowns: a number of its own, and what it is."""
        if name not in self.minima:
            which, *of = self.unknowns.minima[name]
            a, b = (self.value(x) for x in of)
            made = self.unknowns.new(f"{name}^")
            m = self.minima[name] = self.unknowns.formula(made)
            known = [m <= a, m <= b] if which == "least" else [m >= a, m >= b]
            self.unknowns.unknown(made).facts += [*known, z3.Or(m == a, m == b)]
        return self.minima[name]

    def hints(self) -> list[Any]:
        """List what is likely true of the digits, and helps where a grid is a product.

        A rest lies below its divisor, and the number of a tile below how many there are.
        """
        unknowns = self.unknowns
        counts = {n for p in self.questions.walk.grid if len(p.terms) == 1 for n in p.unknowns}
        found = []
        for _, y, q, r in unknowns.divisions:
            pair = q.unknowns | r.unknowns
            if any(unknowns.by_name[n].uniform for n in pair) or not pair <= self.values.keys():
                continue
            if self.has_value(y):
                found.append(self.value(r) < self.value(y))
            found += [self.value(q) < unknowns.by_name[n].variable for n in sorted(counts)]
        return found


def _size(factor: Poly) -> tuple[int, int]:
    """Order factors: products of more sizes are larger."""
    degree = max((len(m) for m in factor.terms), default=0)
    return degree, max((abs(c) for c in factor.terms.values()), default=0)
