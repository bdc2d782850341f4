"""What is asked of each access and each integer, and how the answer is found.

In bounds. An offset is taken apart into coordinates, one for each stride: what is multiplied with
the stride. If each coordinate lies between 0 and its axis's length, the address is an element's.
A tensor that lies row after row may instead be bounded as a whole.

No wrap. What is compared, divided, counted or extended on the way to an address, a mask or a loop
must fit its type. Sums and products of 64 bits that are an address's alone need not: they are right
up to multiples of 2^64, and the exact address, being in bounds, is the one of those that fits.

No race. Two programs never touch the same element, one of them writing: equal coordinates of two
programs' accesses contradict each other. Programs' own unknowns are told apart by an apostrophe.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import z3

from ..symbolic.evaluate import bytes_of
from ..symbolic.solver import Answer, Solver
from ..symbolic.terms import ZERO, Poly, poly
from ..symbolic.values import reach
from ..symbolic.walk import Access, Width
from .coordinates import Tensor, coordinates_of, moved_on
from .pointed import Pointed, is_pointed
from .problem import Problem

PROVED, REFUTED, UNKNOWN = "proved", "refuted", "not proved"
UNREACHED, NOT_FOLLOWED = "never reached", "not followed"
QUICK = 3_000_000


@dataclasses.dataclass
class Finding:
    """The answer to one question.

    Attributes
    ----------
    kind : str
        "bounds", "width", "race" or "written".
    where : str
        "file:line", of both accesses for a race.
    what : str
        The access and its tensor, or the operation.
    verdict : str
    reason : str
        Why it is not proved; "" if it is.
    tensor : str
        Which it is about; "" if none.
    model : dict
        The numbers of a counterexample.
    confirmed : str
        What its run showed, in sanitize's words.
    """

    kind: str
    where: str
    what: str
    verdict: str
    reason: str = ""
    tensor: str = ""
    model: dict[str, int | bool] = dataclasses.field(default_factory=dict)
    confirmed: str = ""


class PremisesContradict(ValueError):
    """A contract that no launch satisfies: everything would follow from it."""


class Questions:
    """Asks everything about one variant of a kernel.

    Parameters
    ----------
    problem : Problem
    examples : sequence of dict
        Sizes of launches that have been seen: in them premises are looked for first.
    """

    def __init__(self, problem: Problem, examples: Sequence[dict[str, int]] = ()) -> None:
        self.problem, self.walk = problem, problem.walk
        self.unknowns = problem.unknowns
        facts = [f for _, f in problem.facts]
        self.solver = Solver(self.unknowns, [*facts, *(f for _, f in problem.of_programs)])
        self.without_programs = Solver(self.unknowns, facts)
        self._others: dict[str, Any] = {}
        self._lanes: dict[tuple[int, int], Poly] = {}
        self.examples = examples
        # The coordinates of what was bounded by them, not as a whole.
        self._apart: dict[Access, tuple[list[Poly], Poly]] = {}
        # By a table and its column of addresses: how many bytes a number there has.
        self._widths: dict[tuple[str, int], int] = {}

    def expect_premises(self) -> None:
        """Refuse a contract that contradicts itself.

        Raises
        ------
        PremisesContradict
            Naming the facts.
        """
        if self.possible([]).follows is not True:
            texts = "; ".join(text for text, _ in self.problem.facts)
            raise PremisesContradict(
                f"{self.problem.name}: expected a contract that some launch satisfies, and found "
                f"none for: {texts} (likely cause: two facts that exclude each other)"
            )

    # -- in bounds -------------------------------------------------------------------------------

    def lanes(self, shape: tuple[int, ...]) -> tuple[Poly, ...]:
        """Make unknown indices of a tile's element: the same in all questions."""
        return tuple(self._lane(d, n) for d, n in enumerate(shape))

    def _lane(self, axis: int, n: int) -> Poly:
        if n == 1:
            return ZERO
        if (axis, n) not in self._lanes:
            self._lanes[axis, n] = self.unknowns.new(f"lane{axis}", 0, n - 1)
        return self._lanes[axis, n]

    def premises(self, access: Access, lanes: tuple[Poly, ...]) -> list[Any]:
        """Collect what holds where an access is made: its path and its mask."""
        mask = [access.mask.at(lanes)] if access.mask is not None else []
        return [*access.path, *mask]

    def bounds(self, access: Access) -> Finding:
        """Ask whether an access is in bounds."""
        what = f"{access.kind} {access.base}"
        finding = Finding("bounds", access.where, what, UNKNOWN, tensor=access.base)
        tensor = self.problem.tensors.get(access.base)
        if is_pointed(self.problem, access):
            return self._pointed(access, finding)
        if tensor is None:
            finding.verdict = NOT_FOLLOWED
            finding.reason = self._why_no_tensor(access)
            return finding
        lanes = self.lanes(access.pointer.shape)
        offset = access.pointer.at(lanes)
        given = self.premises(access, lanes)
        reached = self.possible(given)
        if reached.follows is False:
            finding.verdict, finding.reason = UNREACHED, "no launch makes it: its premises exclude"
            return finding
        coordinates, rest = coordinates_of(offset, tensor)
        statements = self._statements(coordinates, rest, tensor)
        for one in (coordinates, *(moved_on(coordinates, tensor) if tensor.packed else ())):
            if self._all_follow(given, self._statements(one, rest, tensor)):
                self._apart[access] = one, rest
                break
        if access in self._apart and reached.follows:
            finding.verdict = PROVED
            return finding
        if tensor.packed and self._whole(given, offset, tensor).follows:
            finding.verdict = PROVED if reached.follows else UNKNOWN
        if finding.verdict != PROVED:
            self._explain(finding, given, offset, tensor, statements, reached)
        return finding

    def _pointed(self, access: Access, finding: Finding) -> Finding:
        """Ask whether an access through a table's address is in bounds of what the row promises."""
        lanes = self.lanes(access.pointer.shape)
        pointed = Pointed(self.problem, access, access.pointer.at(lanes))
        given = self.premises(access, lanes)
        finding.reason = "z3 gave up"
        if not pointed.coordinates:
            finding.verdict, finding.reason = NOT_FOLLOWED, "an address from no known row"
        elif not self._is_of_one_width(pointed, access):
            finding.verdict, finding.reason = NOT_FOLLOWED, "an address of numbers of two widths"
        elif (reached := self.possible(given)).follows is False:
            finding.verdict, finding.reason = UNREACHED, "no launch makes it: its premises exclude"
        elif self._all_follow(given, pointed.statements):
            self._apart[access] = pointed.coordinates, ZERO
            if reached.follows:
                finding.verdict, finding.reason = PROVED, ""
        return finding

    def _is_of_one_width(self, pointed: Pointed, access: Access) -> bool:
        """Say whether numbers are as wide as before: elements of other widths overlap."""
        width = bytes_of(access.pointer.type.pointee)
        return self._widths.setdefault((pointed.table, pointed.column), width) == width

    def _statements(self, coordinates: list[Poly], rest: Poly, tensor: Tensor) -> list[Any]:
        """Say that each coordinate lies on its axis, and that they are all there is."""
        found = [self._inside(c, n) for c, n in zip(coordinates, tensor.shape, strict=True)]
        return [*found, self.unknowns.formula(rest) == 0] if rest.terms else found

    def _all_follow(self, given: list[Any], statements: list[Any]) -> bool:
        return all(self.solver.follows(given, statement).follows for statement in statements)

    def coordinates(self, access: Access) -> tuple[list[Poly], Poly]:
        """Return an access's coordinates as they were bounded, and what is left."""
        if access in self._apart:
            return self._apart[access]
        tensor = self.problem.tensors[access.base]
        return coordinates_of(access.pointer.at(self.lanes(access.pointer.shape)), tensor)

    def _why_no_tensor(self, access: Access) -> str:
        if not access.base:
            return "an address that was read from memory"
        if access.base in self.problem.contract.anywhere:
            return "the contract promises nothing of its addresses"
        return "the contract does not give its shape"

    def _inside(self, coordinate: Poly, n: Poly) -> Any:
        c = self.unknowns.formula(coordinate)
        return z3.And(c >= 0, c < self.unknowns.formula(n))

    def _whole(self, given: list[Any], offset: Poly, tensor: Tensor) -> Answer:
        """Bound an offset as a whole."""
        size = poly(1)
        for n in tensor.shape:
            size = size * n
        return self.solver.follows(given, self._inside(offset, size), steps=QUICK)

    def _explain(
        self,
        finding: Finding,
        given: list[Any],
        offset: Poly,
        tensor: Tensor,
        statements: list[Any],
        reached: Answer,
    ) -> None:
        """Look for a small launch that goes out of bounds."""
        wrong: list[Any] = []
        if tensor.packed:
            size = poly(1)
            for n in tensor.shape:
                size = size * n
            wrong.append(z3.Not(self._inside(offset, size)))
        else:
            wrong += [z3.Not(statement) for statement in statements]
        for one in wrong:
            answer = self.small_model([*given, one])
            if answer.follows:
                finding.verdict, finding.model = REFUTED, answer.model
                finding.reason = f"outside {tensor.name}{list(tensor.shape)}"
                return
        finding.reason = "z3 gave up" if reached.follows else "its premises: z3 gave up"

    def possible(self, formulas: list[Any]) -> Answer:
        """Say whether formulas can hold in some launch: one that was seen, or any other."""
        formulas = [*formulas, *self.solver.facts]
        names, behind = self.unknowns.behind(formulas)
        for example in self.examples:
            sizes = [
                self.unknowns.by_name[n].variable == value
                for n, value in example.items()
                if n in names
            ]
            answer = self.solver.satisfiable([*formulas, *behind, *sizes], steps=QUICK)
            if answer.follows:
                return answer
        return self.small_model(formulas)

    def small_model(self, formulas: list[Any]) -> Answer:
        """Look for numbers with which formulas hold, small ones first."""
        formulas = [*formulas, *self.solver.facts]
        names, behind = self.unknowns.behind(formulas)
        answer = Answer(None)
        for most in (6, 40, 300, 5000, None):
            small = self._small(most, names) if most is not None else []
            apart = self._spread(names) if most is not None and most < 1000 else []
            answer = self.solver.satisfiable([*formulas, *behind, *small, *apart], steps=QUICK)
            if answer.follows:
                break
        return answer

    def _small(self, most: int, names: set[str]) -> list[Any]:
        """Let all axes be short."""
        sizes = {
            n for t in self.problem.tensors.values() for p in t.shape for n in p.unknowns
        } & names
        return [self.unknowns.by_name[n].variable <= most for n in sorted(sizes)]

    def _spread(self, names: set[str]) -> list[Any]:
        """Let tensors with strides lie row after row with gaps, into which what is wrong falls."""
        facts = []
        for tensor in self.problem.tensors.values():
            if tensor.packed:
                continue
            s = [self.unknowns.formula(x) for x in tensor.strides]
            n = [self.unknowns.formula(x) for x in tensor.shape]
            gaps = [int(len(x.terms) == 1 and len(x.unknowns) == 1) for x in tensor.strides]
            inner = range(len(s) - 1)
            facts += [s[-1] >= 1, *(s[i] >= s[i + 1] * n[i + 1] + gaps[i] for i in inner)]
        return [f for f in facts if self.unknowns.constants(f) & names]

    # -- no wrap ---------------------------------------------------------------------------------

    def width(self, width: Width) -> Finding:
        """Ask whether an integer fits its type."""
        finding = Finding("width", width.where, f"{width.operation} i{width.bits}", UNKNOWN)
        value = width.value.at(self.lanes(width.value.shape))
        low, high = reach(width.bits)
        least, most = self.unknowns.bounds(value)
        if least is not None and most is not None and low <= least and most <= high:
            finding.verdict = PROVED
            return finding
        v = self.unknowns.formula(value)
        fits = z3.And(v >= low, v <= high)
        if self.solver.follows(width.path, fits).follows:
            finding.verdict = PROVED
            return finding
        for wrong in (v > high, v < low):
            _, behind = self.unknowns.behind([*width.path, wrong, *self.solver.facts])
            answer = self.solver.satisfiable([*width.path, wrong, *self.solver.facts, *behind])
            if answer.follows:
                finding.verdict, finding.model = REFUTED, answer.model
                finding.reason = f"{value} does not fit {width.bits} bits"
                return finding
        finding.reason = "z3 gave up"
        return finding

    # -- no race ---------------------------------------------------------------------------------

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

    def races(self) -> Iterator[Finding]:
        """Ask of all pairs of accesses whether two programs can meet."""
        known = {
            a for a in self.walk.accesses if a.base in self.problem.tensors or a in self._apart
        }
        accesses = [a for a in self.walk.accesses if a in known]
        if all(p.constant == 0 for p in self.walk.programs):
            return
        for a in self.walk.accesses:
            if a not in known and a.kind != "load":
                what = f"{a.kind} and any other"
                yield Finding("race", a.where, what, NOT_FOLLOWED, self._why_no_tensor(a))
        for i, a in enumerate(accesses):
            for b in accesses[i:]:
                kinds = {a.kind, b.kind}
                if a.base == b.base and kinds not in ({"load"}, {"atomic"}):
                    yield self.race(a, b)

    def race(self, a: Access, b: Access) -> Finding:
        """Ask whether one program's access and another program's can touch one element."""
        where = a.where if a is b else f"{a.where} and {b.where.rpartition('/')[2]}"
        what = f"{a.kind} and {b.kind} of {a.base}"
        finding = Finding("race", where, what, UNKNOWN, tensor=a.base)
        mine, theirs = self.lanes(a.pointer.shape), self.lanes(b.pointer.shape)
        x, rest_x = self.coordinates(a)
        y, rest_y = self.coordinates(b)
        formula = self.unknowns.formula
        given = self.premises(a, mine)
        others = self.premises(b, theirs)
        apart = a in self._apart and b in self._apart
        if not apart:  # compare offsets
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
            small = [*self._small(most, names), *self._spread(names)]
            answer = self.solver.satisfiable([*both, *small], steps=QUICK)
            if answer.follows:
                return answer.model
        return {}

    # -- all -------------------------------------------------------------------------------------

    def all(self) -> Iterator[Finding]:
        """Ask everything."""
        self.expect_premises()
        for what in self.walk.not_followed:
            yield Finding("bounds", "", what, NOT_FOLLOWED, "an operation that is not known")
        for access in self.walk.accesses:
            yield self.bounds(access)
        for width in self.walk.widths:
            yield self.width(width)
        yield from self.races()


def _otherwise(statement: Any) -> list[Any]:
    """List the ways in which a statement is false: two numbers that differ are less or greater.

    Of an inequality follows what no disjunction says: what it is when multiplied.
    """
    if z3.is_eq(statement) and z3.is_int(statement.arg(0)):
        x, y = statement.children()
        return [x < y, x > y]
    return [z3.Not(statement)]
