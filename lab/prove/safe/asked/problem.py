"""A kernel and its contract together: what is to be proved, and what may be assumed."""

import ast
import functools
from typing import Any

import torch
import z3

from .....core.checks import refuse
from .....kernels.common.launch import LARGEST_GRID
from .....kernels.native.instructions.ttir import Type, Value, parse
from ..launches import compile as front_end
from ..launches.call import Call
from ..launches.contract import MOST_BYTES, Comparison, Contract, Reading
from ..symbolic.solver import Solver
from ..symbolic.terms import ONE, ZERO, Poly, poly
from ..symbolic.values import Symbol, is_integer, reach
from ..symbolic.walk import Access, Walk
from .coordinates import Tensor, coordinates_of


class Problem:
    """What is to be proved of one compiled variant of a kernel.

    Parameters
    ----------
    call : Call
        One launch of it.
    contract : Contract
    wide : frozenset of str
        The integers that have 64 bits.

    Attributes
    ----------
    walk : Walk
    tensors : dict of str to Tensor
    parameters : dict of str to Poly
        The kernel's integers.
    promised : dict of str to int
        The largest that a contract lets an integer be, where it is a number.
    facts : list of (str, formula)
        The contract's, and how large a grid may be.
    of_programs : list of (str, formula)
        That each program is one of the grid's: there is at least one where they hold.
    factors, launched : set of str
        Of the grid: unknowns that might be 0, but for a program that is there. And all that are
        known of a launch before any program computes.
    """

    def __init__(self, call: Call, contract: Contract, wide: frozenset[str] = frozenset()) -> None:
        self.call, self.contract, self.wide = call, contract, wide
        self.text = front_end.ttir(call, wide)
        self.body = parse(self.text)
        self.parameters: dict[str, Poly] = {}
        self.tensors: dict[str, Tensor] = {}
        self.facts: list[tuple[str, Any]] = []
        self.of_programs: list[tuple[str, Any]] = []
        self.promised: dict[str, int] = {}
        self.factors: set[str] = set()
        self.walk = Walk({}, promises_numbers=bool(contract.held))
        self.unknowns = self.walk.unknowns
        parts = front_end.arguments(call)
        module = call.function.fn.__globals__
        constants = front_end.constants(call) | {"itemsize": front_end.itemsize(call)}
        self.reading = Reading(contract, constants, module, self.unknowns)
        self._declare(parts)
        self._assume()
        self._lay_out(parts)
        self._fill_tables()
        self.launched = set(self.unknowns.by_name)
        self._let_there_be_a_program()

    def follow(self) -> None:
        """Walk the kernel: which accesses it makes, and what may wrap."""
        self.walk.facts = [f for _, f in (*self.facts, *self.of_programs)]
        self.walk.walk(self.body)
        for access in self.walk.accesses:
            promised = access.base in self.contract.promised
            if access.kind != "load" and promised and not self._keeps_promise(access):
                refuse(
                    f"contract of {self.name}",
                    "promises of what the kernel only reads, or swaps promised numbers into",
                    f"one of what {access.base} holds, which it writes",
                )  # fmt: skip

    def _keeps_promise(self, access: Access) -> bool:
        """Say whether a tensor that was as promised is so after an access that writes.

        So it is if a compare-and-swap can write nothing else: each element holds what it held at
        the launch, or what one of them wrote.
        """
        number = access.swapped
        if number is None or not is_integer(number.type) or access.base in self.contract.tables:
            return False
        lanes = tuple(self.unknowns.new("lane", 0, n - 1) for n in number.shape)
        formula = self.unknowns.formula
        low, high = self.reading.limits(access.base)
        x = formula(number.at(lanes))
        kept = [x >= formula(low)] if low is not None else []
        kept += [x <= formula(high)] if high is not None else []
        solver = Solver(self.unknowns, self.walk.facts)
        return all(solver.follows(access.path, one).follows for one in kept)

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.call.function.fn.__name__

    def may_be_wide(self) -> frozenset[str]:
        """Name the integers that may have 64 bits: the contract lets them be 2^31 or more."""
        most = reach(32)[1]
        return frozenset(n for n in self.parameters if self.promised.get(n, most + 1) > most)

    def _declare(self, parts: dict[str, Any]) -> None:
        """Make an unknown of each integer, and pointers of tensors."""
        values: list[Value] = self.body.arguments
        if len(values) != len(parts):
            raise NotImplementedError(
                f"{self.name}: compiled, it has {len(values)} arguments, expected {len(parts)}"
            )
        sizes = set(self.contract.sizes_in_shapes())
        for value, name in zip(values, parts, strict=True):
            kind = value.type
            if kind.is_pointer:
                base = name.removesuffix(".ptr")
                self.walk.known[value] = Symbol(kind, lambda i: ZERO, base)
                self.walk.limits[base] = lambda base=base: self.reading.limits(base)
            elif is_integer(kind):
                low, high = reach(int(kind.element[1:]))
                if name in sizes or ".strides[" in name:
                    low, high = 0, min(high, MOST_BYTES)
                number = self.unknowns.new(name, low, high, uniform=True)
                self.parameters[name] = self.reading.known[name] = number
                self.walk.known[value] = _always(kind, number)
            else:
                self.walk.known[value] = self.walk.opaque(kind, name)

    def _assume(self) -> None:
        """Take the contract's facts, and the grid's."""
        for one in self.contract.facts:
            if self._is_about_absent(one):
                continue
            formula = self.reading.fact(one)
            if isinstance(formula, bool):
                formula = self.unknowns.formula(ZERO) == (0 if formula else 1)
            self.facts.append((one.text, formula))
            self._bound(one)
            self._equate(one)
        grid = self.reading.grid()
        self.walk.grid = tuple(poly(n) for n in grid)
        programs = []
        for axis, n, most in zip("xyz", self.walk.grid, LARGEST_GRID, strict=True):
            if n.constant == 1:
                programs.append(ZERO)
                continue
            program = self.unknowns.new(f"program_{axis}", 0, most - 1)
            formula = self.unknowns.formula
            self.unknowns.below.update(dict.fromkeys(program.unknowns, n))
            self.of_programs.append((f"grid along {axis}", formula(program) < formula(n)))
            self.facts.append((f"largest grid along {axis}", formula(n) <= most))
            programs.append(program)
        self.walk.programs = tuple(programs)

    def _let_there_be_a_program(self) -> None:
        """Know of the factors of a grid that none is 0 where a program computes.

        Shapes have been read by then: a launch of no program has them too.
        """
        for n in self.walk.grid:
            if len(n.terms) != 1 or n.constant is not None or next(iter(n.terms.values())) < 1:
                continue
            factors = [self.unknowns.by_name[name] for name in sorted(n.unknowns)]
            if all(low is not None and low >= 0 for low, _ in (f.bounds for f in factors)):
                self.factors |= {x for x in n.unknowns if self.unknowns.by_name[x].bounds[0] == 0}
                for factor in factors:
                    factor.bounds = max(factor.bounds[0] or 0, 1), factor.bounds[1]
                    self.of_programs.append(("a factor of the grid", factor.variable >= 1))

    def _is_about_absent(self, one: Comparison) -> bool:
        """Say whether a fact names an argument that this variant does not have."""
        absent = {name for name, value in front_end.constants(self.call).items() if value is None}
        named = {
            ast.unparse(n)
            for side in (one.left, one.right)
            for n in ast.walk(side)
            if isinstance(n, (ast.Name, ast.Attribute))
        }
        named.add(one.where)
        return any(n in absent or n.split(".")[0] in absent for n in named)

    def _equate(self, one: Comparison) -> None:
        """Let a size be a multiple of another one, if a fact says so: it divides evenly then."""
        x, y = poly(self.reading.value(one.left)), poly(self.reading.value(one.right))
        for total, size in ((x, y), (y, x)):
            single = list(size.terms.values()) == [1] and len(size.unknowns) == 1
            multiple = len(total.terms) == 1 and list(total.terms.values()) != [1]
            if one.how == "==" and single and multiple and not total.unknowns & size.unknowns:
                self.unknowns.equal[next(iter(size.unknowns))] = total

    def _bound(self, one: Comparison) -> None:
        """Let an unknown's numeric bounds be as narrow as a fact makes them."""
        x, y, how = self.reading.value(one.left), self.reading.value(one.right), one.how
        if isinstance(y, Poly) and not isinstance(x, Poly):
            x, y = y, x
            how = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(how, how)
        if not isinstance(x, Poly) or not isinstance(y, int):
            return
        if len(x.terms) != 1 or list(x.terms.values()) != [1] or len(next(iter(x.terms))) != 1:
            return
        known = self.unknowns.unknown(x)
        low, high = known.bounds
        if how in ("<", "<=", "=="):
            most = y - (how == "<")
            ((name,),) = x.terms
            self.promised[name] = min(most, self.promised.get(name, most))
            high = most if high is None else min(high, most)
        if how in (">", ">=", "=="):
            least = y + (how == ">")
            low = least if low is None else max(low, least)
        known.bounds = low, high

    def _lay_out(self, parts: dict[str, Any]) -> None:
        """Give each tensor of the contract its shape and its strides."""
        pointers = {name.removesuffix(".ptr") for name, value in parts.items() if _is_tensor(value)}
        for name in self.contract.shapes:
            if name not in pointers:
                self._expect_argument(name, parts)
                continue
            shape = tuple(poly(n) for n in self.reading.shape(name))
            given = self.reading.strides(name)
            own = [self.parameters.get(f"{name}.strides[{i}]") for i in range(len(shape))]
            if given is not None:
                strides, packed = [poly(s) for s in given], False
            elif all(s is not None for s in own):
                strides, packed = [s for s in own if s is not None], False
            else:
                strides, packed = _packed(shape), True
            self.tensors[name] = Tensor(name, shape, tuple(strides), packed)

    def _fill_tables(self) -> None:
        """Let tables hold what the contract says: as functions of the place."""
        for name in sorted(self.contract.tables & self.tensors.keys()):
            self.walk.contents[name] = z3.Function(f"{name}[]", z3.IntSort(), z3.IntSort())
            self.walk.promised[name] = functools.partial(self.promises, name)
            if name in self.contract.addresses:
                self.walk.addresses.add(name)
        for place, _, _ in self.contract.columns:
            if place.tensor in self.walk.contents and place.row is not None:
                column = self.reading.value(place.first)
                at = self.place_in(place.tensor, poly(place.row), column)
                self.facts += [
                    (f"{place.tensor}[{place.row}, {column}]", f)
                    for f in self.promises(place.tensor, at)
                ]

    def place_in(self, table: str, row: Poly, column: int) -> Poly:
        """Return where a row's column lies, in elements."""
        down, across = self.tensors[table].strides
        return row * down + across * column

    def row_and_column(self, table: str, place: Poly) -> tuple[Poly, int] | None:
        """Take a place in a table apart; None if its column is no number."""
        (row, column), rest = coordinates_of(place, self.tensors[table])
        if rest.terms or column.constant is None:
            return None
        return row, column.constant

    def promises(self, table: str, place: Poly) -> list[Any]:
        """Say what a contract promises of the number at a place of a table."""
        found = self.row_and_column(table, place)
        if found is None:
            return []
        return self.reading.of_place(table, *found, self.walk.content(table, place))

    def _expect_argument(self, tensor: str, parts: dict[str, Any]) -> None:
        """Refuse a shape of something that is no argument, not even an absent one."""
        absent = {n for n, value in front_end.constants(self.call).items() if value is None}
        if tensor not in absent and tensor.split(".")[0] not in absent:
            known = ", ".join(dict.fromkeys(n.removesuffix(".ptr") for n in parts))
            refuse(f"contract of {self.name}", f"shapes of its arguments ({known})", repr(tensor))


def _always(kind: Type, number: Poly) -> Symbol:
    return Symbol(kind, lambda i: number)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _packed(shape: tuple[Poly, ...]) -> list[Poly]:
    strides = [ONE]
    for n in reversed(shape[1:]):
        strides.insert(0, strides[0] * n)
    return strides
