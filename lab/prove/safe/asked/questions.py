"""What is asked of each access and each integer, and how the answer is found.

In bounds. An offset is taken apart into coordinates, one for each stride: what is multiplied with
the stride. If each coordinate lies between 0 and its axis's length, the address is an element's.
A tensor that lies row after row may instead be bounded as a whole.

No wrap. What is compared, divided, counted or extended on the way to an address, a mask or a loop
must fit its type. Sums and products of 64 bits that are an address's alone need not: they are right
up to multiples of 2^64, and the exact address, being in bounds, is the one of those that fits.

That programs do not race is asked in `races.py`, that all of a result is written in `written.py`.
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
        self._lanes: dict[tuple[int, int], Poly] = {}
        self.examples = examples
        # The coordinates of what was bounded by them, not as a whole.
        self.apart: dict[Access, tuple[list[Poly], Poly]] = {}
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
            finding.reason = self.why_no_tensor(access)
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
                self.apart[access] = one, rest
                break
        if access in self.apart and reached.follows:
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
            self.apart[access] = pointed.coordinates, ZERO
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
        if access in self.apart:
            return self.apart[access]
        tensor = self.problem.tensors[access.base]
        return coordinates_of(access.pointer.at(self.lanes(access.pointer.shape)), tensor)

    def why_no_tensor(self, access: Access) -> str:
        """Say why nothing is known of where an access leads."""
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
            small = self.small_sizes(most, names) if most is not None else []
            apart = self.spread(names) if most is not None and most < 1000 else []
            answer = self.solver.satisfiable([*formulas, *behind, *small, *apart], steps=QUICK)
            if answer.follows:
                break
        return answer

    def small_sizes(self, most: int, names: set[str]) -> list[Any]:
        """Let all axes be short."""
        sizes = {
            n for t in self.problem.tensors.values() for p in t.shape for n in p.unknowns
        } & names
        return [self.unknowns.by_name[n].variable <= most for n in sorted(sizes)]

    def spread(self, names: set[str]) -> list[Any]:
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

    # -- all -------------------------------------------------------------------------------------

    def all(self) -> Iterator[Finding]:
        """Ask whether each access is in bounds, and whether each integer fits its type."""
        self.expect_premises()
        for what in self.walk.not_followed:
            yield Finding("bounds", "", what, NOT_FOLLOWED, "an operation that is not known")
        for access in self.walk.accesses:
            yield self.bounds(access)
        for width in self.walk.widths:
            yield self.width(width)
