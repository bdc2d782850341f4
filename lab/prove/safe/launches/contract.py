"""What a proof assumes of a launch: a contract, a few lines of text beside the twin.

    scores[n_rows, n_keys]; probabilities_ptr[n_rows, n_keys]
    grid[cdiv(n_rows, cdiv(TILE, BLOCK_KEYS))]
    1 <= n_keys <= BLOCK_KEYS

Statements of Python, one a line or several with semicolons between them:

    name[a, b]                  a tensor's shape. One that the kernel is given with its strides
                                (`Strided`) has any strides; another lies row after row.
    name[a:s, b:1]              the same with the strides named.
    grid[a, b]                  how many programs there are along each axis; 1 beyond.
    a <= b < c                  a fact about sizes.
    x_ptr and a <= b            the same, where that argument is not None.
    0 <= ids_ptr.value < n      a fact about what a tensor holds: its addresses hang on it. Of one
                                that the kernel writes nothing can be promised, unless it writes by
                                compare-and-swaps alone and all that they write keeps the promise.
    0 <= x_ptr.value[:, 1] < n  the same of one column of a table that nobody writes; of its first
                                row alone with [0, 1].
    addresses(x_ptr.value[:, 2:4], x_ptr.value[:, 0])
                                columns 2 and 3 of each row are addresses of as many numbers as
                                column 0 says. No other row's, and no other argument, has memory in
                                common with them; two of one row are one tensor, or apart.
    name = a                    an abbreviation.
    partly(x_ptr)               this kernel is not to write every element of that.
    anywhere(x_ptr)             of this tensor's addresses nothing is promised: not followed.

In them stand the kernel's numbers and constants, `cdiv`, `min`, `max`, arithmetic, what the
kernel's own module defines, and `itemsize`, the bytes of a float. A name that is none of these and
stands in a shape or the grid is a size that the kernel is not told, such as a batch's. Every size
is at least 0. Beside that every proof assumes: two arguments share no memory, a tensor that is
written overlaps itself nowhere, and none has more than
2^40 bytes, which is beyond any GPU.
"""

import ast
import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .....core.checks import refuse
from .....kernels.common.indices import MOST_COUNTED
from ..symbolic.terms import ONE, Poly, Unknowns, poly

MOST_BYTES = 2**40
# What every contract may name.
_BUILT_IN = {"MOST_COUNTED": MOST_COUNTED}
_OPERATORS: dict[type, str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Comparison:
    """left operator right; `where` names the argument without which it is not meant."""

    left: ast.expr
    how: str
    right: ast.expr
    where: str = ""

    @property
    def text(self) -> str:
        """The comparison as it was written."""
        return f"{ast.unparse(self.left)} {self.how} {ast.unparse(self.right)}"


@dataclasses.dataclass(frozen=True)
class Place:
    """A column of a table, of all rows or of one.

    Attributes
    ----------
    tensor : str
    row : int or None
        None for each.
    first, stop : expression
        The columns; of a single one the same and None.
    """

    tensor: str
    row: int | None
    first: ast.expr
    stop: ast.expr | None


@dataclasses.dataclass(frozen=True)
class Contract:
    """A contract, read.

    Attributes
    ----------
    text : str
    shapes, strides : dict
        Of each tensor that is named; strides where they are named.
    grid : tuple of expression
    facts, held : tuple of Comparison
        About sizes; about what tensors hold.
    partly, anywhere : frozenset of str
    names : dict
        Abbreviations.
    columns : tuple of (Place, operator, expression)
        What is promised of the columns of tables: the number there, compared with another.
    addresses : dict of str to (Place, Place)
        Of a table: where addresses stand, and of how many numbers.
    """

    text: str
    shapes: dict[str, tuple[ast.expr, ...]]
    strides: dict[str, tuple[ast.expr, ...]]
    grid: tuple[ast.expr, ...]
    facts: tuple[Comparison, ...]
    held: tuple[Comparison, ...]
    partly: frozenset[str]
    anywhere: frozenset[str]
    names: dict[str, ast.expr]
    columns: tuple[tuple[Place, str, ast.expr], ...] = ()
    addresses: dict[str, tuple[Place, Place]] = dataclasses.field(default_factory=dict)

    @property
    def tables(self) -> set[str]:
        """The tensors of whose columns something is said."""
        return {place.tensor for place, _, _ in self.columns} | self.addresses.keys()

    @property
    def promised(self) -> set[str]:
        """The tensors of whose contents something is said."""
        return self.tables | {_holder(one) for one in self.held}

    def sizes_in_shapes(self) -> Iterable[str]:
        """Name all that stands in a shape or in the grid."""
        named = (*self.shapes.values(), *self.strides.values(), self.grid)
        for one in (size for sizes in named for size in sizes):
            for node in ast.walk(one):
                if isinstance(node, (ast.Name, ast.Attribute)):
                    yield ast.unparse(node)


def read(text: str, kernel: str = "kernel") -> Contract:
    """Read a contract.

    Parameters
    ----------
    text : str
        As above.
    kernel : str
        Whose, for errors.

    Returns
    -------
    Contract

    Raises
    ------
    ValueError
        If a line is none of those above.
    """
    lines = "\n".join(line.strip() for line in text.strip().splitlines())
    try:
        statements = ast.parse(lines).body
    except SyntaxError as error:
        refuse(f"contract of {kernel}", "statements as Python writes them", repr(error.text))
    shapes: dict[str, tuple[ast.expr, ...]] = {}
    strides: dict[str, tuple[ast.expr, ...]] = {}
    facts: list[Comparison] = []
    held: list[Comparison] = []
    names: dict[str, ast.expr] = {}
    columns: list[tuple[Place, str, ast.expr]] = []
    addresses: dict[str, tuple[Place, Place]] = {}
    sets: dict[str, set[str]] = {"partly": set(), "anywhere": set()}
    for statement in statements:
        value = getattr(statement, "value", None)
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            names[statement.targets[0].id] = statement.value
        elif isinstance(value, ast.Subscript):
            sizes = value.slice.elts if isinstance(value.slice, ast.Tuple) else [value.slice]
            name = ast.unparse(value.value)
            named = [s for s in sizes if isinstance(s, ast.Slice) and s.lower and s.upper]
            if len(named) == len(sizes):
                shapes[name] = tuple(s.lower for s in named if s.lower)
                strides[name] = tuple(s.upper for s in named if s.upper)
            else:
                shapes[name] = tuple(sizes)
        elif isinstance(value, ast.Compare) or _has_condition(value):
            for one in _comparisons(value):
                if (column := _of_column(one)) is not None:
                    columns.append(column)
                else:
                    (held if _holder(one) else facts).append(one)
        elif isinstance(value, ast.Call) and ast.unparse(value.func) == "addresses":
            where, length = (_place(node) for node in [*value.args, None, None][:2])
            if where is None or length is None or where.stop is None:
                refuse(
                    f"contract of {kernel}",
                    "addresses(table.value[:, first:stop], table.value[:, column])",
                    ast.unparse(statement),
                )
            addresses[where.tensor] = where, length
        elif isinstance(value, ast.Call) and ast.unparse(value.func) in sets:
            sets[ast.unparse(value.func)] |= {ast.unparse(a) for a in value.args}
        else:
            refuse(
                f"contract of {kernel}",
                "name[sizes], grid[sizes], a comparison, name = size, partly(name), "
                "anywhere(name) or addresses(columns, column)",
                ast.unparse(statement),
            )
    grid = shapes.pop("grid", (ast.Constant(1),))
    return Contract(
        text.strip(), shapes, strides, grid, tuple(facts), tuple(held), frozenset(sets["partly"]),
        frozenset(sets["anywhere"]), names, tuple(columns), addresses,
    )  # fmt: skip


def _has_condition(node: Any) -> bool:
    """Say whether a statement is "argument and comparison"."""
    if not isinstance(node, ast.BoolOp) or not isinstance(node.op, ast.And):
        return False
    return len(node.values) == 2 and isinstance(node.values[1], ast.Compare)


def _comparisons(node: Any) -> Iterable[Comparison]:
    where = ""
    if isinstance(node, ast.BoolOp):
        where, node = ast.unparse(node.values[0]), node.values[1]
    sides = [node.left, *node.comparators]
    for left, how, right in zip(sides, node.ops, sides[1:], strict=False):
        yield Comparison(left, _OPERATORS[type(how)], right, where)


def _holder(one: Comparison) -> str:
    """Name the tensor whose contents a comparison is about; "" if it is about sizes."""
    for side in (one.left, one.right):
        if isinstance(side, ast.Attribute) and side.attr == "value":
            return ast.unparse(side.value)
    return ""


def _place(node: ast.expr | None) -> Place | None:
    """Read `table.value[row, column]`, or with a slice of each."""
    held = node.value if isinstance(node, ast.Subscript) else None
    if not isinstance(held, ast.Attribute) or held.attr != "value":
        return None
    assert isinstance(node, ast.Subscript)
    indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else []
    if len(indices) != 2:
        return None
    row, column = indices
    number = row.value if isinstance(row, ast.Constant) and isinstance(row.value, int) else None
    if isinstance(column, ast.Slice):
        if column.lower is None or column.upper is None:
            return None
        return Place(ast.unparse(held.value), number, column.lower, column.upper)
    return Place(ast.unparse(held.value), number, column, None)


def _of_column(one: Comparison) -> tuple[Place, str, ast.expr] | None:
    """Read a comparison as one of a table's column with something; None if it is none."""
    left, right = _place(one.left), _place(one.right)
    if left is not None:
        return left, one.how, one.right
    if right is not None:
        return right, {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(one.how, one.how), one.left
    return None


Sized = Poly | int


class Reading:
    """Evaluates a contract's expressions: with unknowns for a proof, with numbers for a launch.

    Parameters
    ----------
    contract : Contract
    known : mapping of str to object
        The kernel's numbers by name, and its constants.
    module : mapping
        What the kernel's module defines.
    unknowns : Unknowns, optional
        Where sizes are made that nothing else names; without, these must be among `known`.
    """

    def __init__(
        self,
        contract: Contract,
        known: Mapping[str, Any],
        module: Mapping[str, Any],
        unknowns: Unknowns | None = None,
    ) -> None:
        self.contract = contract
        self.known = dict(known)
        self.module = module
        self.unknowns = unknowns
        self.sizes = set(contract.sizes_in_shapes())

    def value(self, node: ast.expr) -> Any:
        """Evaluate an expression: a `Poly`, or a number if nothing in it is unknown."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
            return self._named(ast.unparse(node))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.value(node.operand)
        if isinstance(node, ast.BinOp):
            return self._operation(node)
        if isinstance(node, ast.Call):
            return self._call(ast.unparse(node.func), [self.value(a) for a in node.args])
        refuse("contract", "sizes, numbers and arithmetic", ast.unparse(node))

    def _named(self, name: str) -> Any:
        if name in self.known:
            return self.known[name]
        if name in self.contract.names:
            return self.value(self.contract.names[name])
        if name in _BUILT_IN:
            return _BUILT_IN[name]
        if name in self.module:
            return getattr(self.module[name], "value", self.module[name])
        if name in self.sizes and self.unknowns is not None:
            self.known[name] = self.unknowns.new(name, 0, MOST_BYTES, uniform=True)
            return self.known[name]
        refuse(
            "contract", "a number or constant of the kernel, or a size in a shape", repr(name),
            "a misspelt name",
        )  # fmt: skip

    def _operation(self, node: ast.BinOp) -> Any:
        x, y = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Add):
            return x + y
        if isinstance(node.op, ast.Sub):
            return x - y
        if isinstance(node.op, ast.Mult):
            return x * y
        if isinstance(node.op, (ast.FloorDiv, ast.Mod)):
            which = 0 if isinstance(node.op, ast.FloorDiv) else 1
            if isinstance(x, int) and isinstance(y, int):
                return divmod(x, y)[which]
            assert self.unknowns is not None
            return self.unknowns.divide(poly(x), poly(y))[which]
        if isinstance(node.op, ast.Pow) and isinstance(x, int) and isinstance(y, int):
            return x**y
        refuse("contract", "+, -, *, // and %", ast.unparse(node))

    def _call(self, name: str, given: list[Any]) -> Any:
        numbers = all(not isinstance(x, Poly) for x in given)
        if name == "cdiv":
            x, y = given
            if numbers:
                return -(-x // y)
            assert self.unknowns is not None
            return self.unknowns.divide(poly(x) + poly(y) - ONE, poly(y))[0]
        if name in ("min", "max"):
            if numbers:
                return min(given) if name == "min" else max(given)
            assert self.unknowns is not None
            result, *rest = [poly(x) for x in given]
            for x in rest:
                result = self.unknowns.least(result, x, largest=name == "max")
            return result
        function = self.module.get(name)
        if function is None or not numbers:
            refuse("contract", "cdiv, min, max, or a function of the kernel's module", name)
        result = function(*given)
        return getattr(result, "value", result)  # tl.constexpr

    def grid(self) -> list[Any]:
        """Evaluate the grid, on three axes."""
        sizes = [self.value(node) for node in self.contract.grid]
        return [*sizes, 1, 1][:3]

    def shape(self, tensor: str) -> list[Any]:
        """Evaluate a tensor's shape."""
        return [self.value(node) for node in self.contract.shapes[tensor]]

    def strides(self, tensor: str) -> list[Any] | None:
        """Evaluate the strides that a contract names; None if it names none."""
        named = self.contract.strides.get(tensor)
        return None if named is None else [self.value(node) for node in named]

    def fact(self, one: Comparison) -> Any:
        """Evaluate a comparison: a formula, or a bool if nothing in it is unknown."""
        x, y = self.value(one.left), self.value(one.right)
        if self.unknowns is None or not (isinstance(x, Poly) or isinstance(y, Poly)):
            return COMPARE[one.how](x, y)
        formula = self.unknowns.formula
        return COMPARE[one.how](formula(poly(x)), formula(poly(y)))

    def of_place(self, tensor: str, row: Poly | int, column: int, held: Any) -> list[Any]:
        """Say what is promised of the number at a place of a table.

        Parameters
        ----------
        tensor : str
        row : Poly or int
        column : int
        held : formula or int
            The number.
        """
        row_number = poly(row).constant
        found = []
        for place, how, other in self.contract.columns:
            of_all = place.row is None or place.row == row_number
            if place.tensor == tensor and of_all and self.value(place.first) == column:
                bound = self.value(other)
                if self.unknowns is not None:
                    bound = self.unknowns.formula(poly(bound))
                found.append(COMPARE[how](held, bound))
        return found

    def limits(self, tensor: str) -> tuple[Any, Any]:
        """Evaluate the lowest and the highest that a tensor holds; None where nothing is said."""
        low: Any = None
        high: Any = None
        for one in self.contract.held:
            if _holder(one) != tensor:
                continue
            held_left = isinstance(one.left, ast.Attribute) and one.left.attr == "value"
            bound = poly(self.value(one.right if held_left else one.left))
            below = one.how in ("<", "<=")
            strict = poly(1 if one.how in ("<", ">") else 0)
            if held_left == below:
                high = bound - strict
            else:
                low = bound + strict
        return low, high
