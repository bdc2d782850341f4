"""What is known of numbers that memory gave, or a loop's turn before.

A tensor that nobody writes is a function of the place: what is read twice from one place is one
number. What a contract promises of a place holds of what was read there.
"""

from collections.abc import Callable
from typing import Any

import z3

from .....kernels.native.instructions.ttir import Value
from .evaluate import Evaluate
from .invariants import Carried, Statement, invariants
from .solver import Solver
from .terms import Poly
from .values import is_integer


class Kept(Evaluate):
    """Keeps what is known of memory and of loops.

    Attributes
    ----------
    facts : list of formula
        What holds everywhere.
    path : list of formula
        What holds where the walk is.
    contents : dict of str to z3 function
        Of the tensors of whose elements a contract speaks: from the place to the number.
    promised : dict of str to callable
        Of those, what is promised of a place.
    addresses : set of str
        The tensors that hold addresses.
    read : dict
        The access and the index at which an unknown was read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.facts: list[Any] = []
        self.path: list[Any] = []
        self.contents: dict[str, Any] = {}
        self.promised: dict[str, Callable[[Poly], list[Any]]] = {}
        self.addresses: set[str] = set()
        self.read: dict[str, tuple[Any, tuple[Poly, ...]]] = {}
        self.matters: set[Value] = set()

    def content(self, tensor: str, place: Poly) -> Any:
        """Write what a tensor holds at a place."""
        return self.contents[tensor](self.unknowns.formula(place))

    def keep(
        self,
        carried: list[Value],
        starts: list[Value],
        ends: list[Value],
        grown: Any,
        lasting: set[str],
    ) -> tuple[list[int], list[Statement]] | None:
        """Find what stays true of the integers that a loop carries; say which those are."""
        places = [
            i for i, value in enumerate(carried)
            if value in self.matters and value not in grown
            and is_integer(value.type) and not value.type.shape and not value.type.is_pointer
        ]  # fmt: skip
        if not places:
            return None
        three = [[self.known[v[i]].number for v in (starts, carried, ends)] for i in places]
        statements = invariants(
            Solver(self.unknowns, self.facts), self.path[:-2], self.path,
            [Carried(*one) for one in three], self.spelled_out, lasting,
        )  # fmt: skip
        self._hold(statements, [before for _, before, _ in three])
        return places, statements

    def _hold(self, statements: list[Statement], numbers: list[Poly]) -> None:
        """Let statements hold of numbers, where the path leads."""
        for statement in statements:
            formula = statement(numbers)
            for name in {n for x in numbers for n in x.unknowns} & self.unknowns.constants(formula):
                fact = z3.Implies(z3.And(self.path), formula) if self.path else formula
                self.unknowns.by_name[name].facts.append(fact)

    def spelled_out(self, formula: Any) -> Any:
        """Write what was read from a tensor whose contents are known as a function of the place."""
        pairs = []
        for name in self.unknowns.constants(formula) & self.read.keys():
            access, index = self.read[name]
            if access.base in self.contents and access.mask is None:
                held = self.content(access.base, access.pointer.at(index))
                pairs.append((self.unknowns.by_name[name].variable, held))
        return z3.substitute(formula, *pairs) if pairs else formula
