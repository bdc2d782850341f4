"""Accesses through addresses that were read from a table: in bounds of what its row promises.

A row of such a table has addresses in some columns and the number of elements in another. All
columns of a row are taken for one tensor, and different rows for different ones: whether or not a
parameter is updated in place, two programs that never touch the same element of the same row never
meet. So an address has two coordinates: the row, and the element. Elements are as wide everywhere
as where a column was first used: element 8 of four bytes lies where element 16 of two does.
"""

from typing import Any

import z3

from ..symbolic.terms import Poly
from ..symbolic.walk import Access
from .problem import Problem


class Pointed:
    """Where an access goes through an address of a table.

    Parameters
    ----------
    problem : Problem
    access : Access
    offset : Poly
        Of its pointer: the address, and what was added to it in elements.

    Attributes
    ----------
    coordinates : list of Poly
        The row and the element; empty if it is not known which row's address it is.
    column : int
        Where in its row the address stands.
    """

    def __init__(self, problem: Problem, access: Access, offset: Poly) -> None:
        self.problem = problem
        self.table = access.base.removeprefix("*")
        self.coordinates: list[Poly] = []
        self.column = -1
        for monomial, c in offset.terms.items():
            name = monomial[0] if len(monomial) == 1 and c == 1 else ""
            made = problem.walk.read.get(name)
            if made is None or made[0].base != self.table:
                continue
            place = made[0].pointer.at(made[1])
            found = problem.row_and_column(self.table, place)
            inside = offset - Poly({(name,): 1})
            if found is not None and self._holds_addresses(found[1]) and not self._read_in(inside):
                self.coordinates, self.column = [found[0], inside], found[1]

    def _read_in(self, inside: Poly) -> bool:
        """Say whether another address stands in a sum: a sum of two is none."""
        read = self.problem.walk.read
        for access, index in (read[name] for name in inside.unknowns & read.keys()):
            if access.base == self.table:
                found = self.problem.row_and_column(self.table, access.pointer.at(index))
                if found is None or self._holds_addresses(found[1]):
                    return True
        return False

    def _holds_addresses(self, column: int) -> bool:
        where, _ = self.problem.contract.addresses[self.table]
        assert where.stop is not None
        value = self.problem.reading.value
        return bool(value(where.first) <= column < value(where.stop))

    @property
    def statements(self) -> list[Any]:
        """Say that the element is one of its row's tensor, and the row one of the table's."""
        row, inside = self.coordinates
        formula = self.problem.unknowns.formula
        n_rows = self.problem.tensors[self.table].shape[0]
        return [
            z3.And(formula(row) >= 0, formula(row) < formula(n_rows)),
            z3.And(formula(inside) >= 0, formula(inside) < self.length(row)),
        ]

    def length(self, row: Poly) -> Any:
        """Write how many elements a row's tensors have."""
        _, length = self.problem.contract.addresses[self.table]
        column = self.problem.reading.value(length.first)
        return self.problem.walk.content(self.table, self.problem.place_in(self.table, row, column))


def is_pointed(problem: Problem, access: Access) -> bool:
    """Say whether an access goes through an address of a table that the contract describes."""
    return access.base.removeprefix("*") in problem.walk.addresses and access.base.startswith("*")
