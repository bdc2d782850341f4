"""The operators of mutation: in which ways an expression of a kernel can be wrong.

Each works on the file's bytes, so that all but the fault stays as it is written.
"""

import ast
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

Edits = tuple[tuple[int, int, bytes], ...]  # start, end and new text, of the file's bytes
Place = ast.AST | tuple[ast.AST, ast.AST]  # an expression, or from one to another

MOVED = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
NEGATED = {ast.Lt: ">=", ast.LtE: ">", ast.Gt: "<=", ast.GtE: "<", ast.Eq: "!=", ast.NotEq: "=="}
STRICTER = {ast.Lt: "- 1", ast.LtE: "+ 1", ast.Gt: "+ 1", ast.GtE: "- 1"}
SYMBOLS: dict[type, str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.BitAnd: "&", ast.BitOr: "|",
}  # fmt: skip
REPLACED: dict[type, str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "+", ast.Div: "*", ast.FloorDiv: "%", ast.Mod: "//",
    ast.BitAnd: "|", ast.BitOr: "&",
}  # fmt: skip
FUNCTIONS = {
    "maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max", "exp2": "exp",
    "log2": "log",
}  # fmt: skip
LOWERED = {"tl.float32": b"tl.float16", "tl.float64": b"tl.float32"}
ATOMS = (ast.Name, ast.Attribute, ast.Subscript, ast.Call, ast.Constant, ast.Tuple, ast.List)


def edited(source: bytes, edits: Edits) -> bytes:
    """Make edits.

    Parameters
    ----------
    source : bytes
        Where they are made.
    edits : Edits
        None of them within another.

    Returns
    -------
    bytes
    """
    for start, end, new in sorted(edits, reverse=True):
        source = source[:start] + new + source[end:]
    return source


def _from(start: int, edits: Edits) -> Edits:
    return tuple((first - start, end - start, new) for first, end, new in edits)


class SourceText:
    """A file's bytes, and where in them the nodes of its tree lie."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.line_starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.line_starts.append(self.line_starts[-1] + len(line))

    def span(self, node: Place) -> tuple[int, int]:
        """Return where a place starts and ends."""
        if isinstance(node, tuple):
            return self.span(node[0])[0], self.span(node[1])[1]
        n: Any = node  # an expression or a statement: these have places
        start = self.line_starts[n.lineno - 1] + n.col_offset
        end = self.line_starts[n.end_lineno - 1] + n.end_col_offset
        return start, end

    def of(self, node: ast.AST) -> str:
        """Return an expression's text."""
        start, end = self.span(node)
        return self.source[start:end].decode()

    def edited(self, node: Place, edits: Edits) -> str:
        """Return a place's text after edits within it, white space made even."""
        start, end = self.span(node)
        return " ".join(edited(self.source[start:end], _from(start, edits)).decode().split())

    def edited_lines(self, lines: tuple[int, int], edits: Edits) -> bytes:
        """Return a statement's lines after edits within them."""
        start, end = self.line_starts[lines[0] - 1], self.line_starts[lines[1]]
        return edited(self.source[start:end], _from(start, edits))

    def operand(self, node: ast.AST) -> bytes:
        """Return an expression's text such that it may stand anywhere."""
        return (self.of(node) if isinstance(node, ATOMS) else f"({self.of(node)})").encode()


Faults = Iterator[tuple[str, Place, Edits]]


@dataclasses.dataclass(frozen=True)
class Operators:
    """The faults that can be made at one expression.

    Each method yields the kind of fault, the expression whose text names it, and the edits.
    """

    text: SourceText
    in_kernel: bool
    accumulators: frozenset[str]  # names that start as float32 zeros or the like
    inside: tuple[str, ...]  # from the outermost: calls, keywords, fields of the syntax tree

    def faults(self, node: ast.AST) -> Faults:
        """Yield all of them."""
        host_test = not self.in_kernel and {"If.test", "IfExp.test"} & set(self.inside)
        if host_test:  # chooses a path or refuses
            return
        kind = type(node).__name__
        method = getattr(self, f"_{kind}", None)
        if method is not None:
            yield from method(node)
        is_test = {"If.test", "IfExp.test"} & set(self.inside[-1:])
        if self.in_kernel and is_test and not isinstance(node, ast.Compare):
            yield "condition flipped", node, self._whole(node, b"not " + self._operand(node))

    def _operand(self, node: ast.AST) -> bytes:
        return self.text.operand(node)

    def _whole(self, node: ast.AST, new: bytes) -> Edits:
        return ((*self.text.span(node), new),)

    def _between(self, left: ast.AST, right: ast.AST, old: str, new: str) -> Edits:
        """Replace the symbol between two expressions."""
        start, end = self.text.span(left)[1], self.text.span(right)[0]
        between = self.text.source[start:end].replace(old.encode(), new.encode(), 1)
        return ((start, end, between),)

    def _swapped(self, left: ast.AST, right: ast.AST) -> Edits:
        return (
            (*self.text.span(left), self._operand(right)),
            (*self.text.span(right), self._operand(left)),
        )

    def _Compare(self, node: ast.Compare) -> Faults:
        if len(node.ops) != 1 or type(node.ops[0]) not in NEGATED:
            return
        kind, left, right = type(node.ops[0]), node.left, node.comparators[0]
        yield "comparison flipped", node, self._between(left, right, SYMBOLS[kind], NEGATED[kind])
        if kind in MOVED:
            yield "bound off by one", node, self._between(left, right, SYMBOLS[kind], MOVED[kind])
            if not isinstance(right, ast.Constant):
                shifted = self._operand(right) + b" " + STRICTER[kind].encode()
                yield "bound off by one", node, self._whole(right, shifted)

    def _BinOp(self, node: ast.BinOp) -> Faults:
        kind, left, right = type(node.op), node.left, node.right
        if kind not in REPLACED or "Subscript.slice" in self.inside[-1:]:
            return
        yield (
            "operator replaced", node, self._between(left, right, SYMBOLS[kind], REPLACED[kind]),
        )  # fmt: skip
        if kind is ast.BitAnd:
            yield "mask dropped", node, self._whole(node, self._operand(left))
            yield "mask dropped", node, self._whole(node, self._operand(right))
        if kind in (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod):
            yield "operands swapped", node, self._swapped(left, right)
        if kind in (ast.Mult, ast.Div):
            yield self._dropped(right), node, self._whole(node, self._operand(left))

    def _dropped(self, factor: ast.AST) -> str:
        name = self.text.of(factor)
        if "rescale" in name:
            return "rescale removed"
        return "scale forgotten" if "scale" in name else "factor dropped"

    def _AugAssign(self, node: ast.AugAssign) -> Faults:
        kind = type(node.op)
        if kind not in REPLACED:
            return
        old = f"{SYMBOLS[kind]}="
        yield (
            "operator replaced",
            node,
            self._between(node.target, node.value, old, f"{REPLACED[kind]}="),
        )
        if kind in (ast.Add, ast.Sub):
            yield "sum overwritten", node, self._between(node.target, node.value, old, "=")
        if kind is ast.Add and self._is_accumulator(node.target):
            target, added = self._operand(node.target), self._operand(node.value)
            rounded = target + b" = (" + target + b" + " + added + b").to(tl.float16)"
            yield "accumulator lowered", node, self._whole(node, rounded)
        if kind in (ast.Mult, ast.Div):
            yield self._dropped(node.value), node, self._whole(node.value, b"1")

    def _UnaryOp(self, node: ast.UnaryOp) -> Faults:
        sign_of_value = isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant)
        if sign_of_value or isinstance(node.op, ast.Invert):
            yield "operator replaced", node, self._whole(node, self._operand(node.operand))

    def _Constant(self, node: ast.Constant) -> Faults:
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            return
        # A tile that is no power of two does not compile, so it plants no fault.
        shapes = {"tl.arange", "tl.zeros", "tl.full"} & set(self.inside)
        slices = self.in_kernel and "Subscript.slice" in self.inside
        if (shapes and "List.elts" in self.inside) or "tl.arange" in shapes or slices:
            return
        yield "constant changed", node, self._whole(node, repr(node.value + 1).encode())

    def _Attribute(self, node: ast.Attribute) -> Faults:
        initial = {"tl.zeros", "tl.full"} & set(self.inside)  # what is added has its own precision
        lowered = LOWERED.get(self.text.of(node))
        if self.in_kernel and lowered and not initial:
            yield "precision lowered", node, self._whole(node, lowered)

    def _Assign(self, node: ast.Assign) -> Faults:
        if len(node.targets) == 1 and self._is_accumulator(node.targets[0]):
            rounded = self._operand(node.value) + b".to(tl.float16)"
            yield "accumulator lowered", node, self._whole(node.value, rounded)

    def _is_accumulator(self, target: ast.AST) -> bool:
        in_loop = {"For.body", "While.body"} & set(self.inside)
        return bool(in_loop) and self.text.of(target) in self.accumulators

    def _Tuple(self, node: ast.Tuple) -> Faults:
        """Swap what is handed over side by side: arguments of a launch, gradients returned."""
        returned = "Return.value" in self.inside[-1:]
        sliced = "Subscript.slice" in self.inside[-1:]
        if isinstance(node.ctx, ast.Load) and not sliced and (returned or not self.in_kernel):
            yield from self._neighbours(node.elts)

    def _neighbours(self, items: list[ast.expr]) -> Faults:
        for left, right in itertools.pairwise(items):
            plain = not any(isinstance(x, (ast.Starred, ast.Constant)) for x in (left, right))
            if plain and self.text.of(left) != self.text.of(right):
                yield "arguments swapped", (left, right), self._swapped(left, right)

    def _Call(self, node: ast.Call) -> Faults:
        called = self.text.of(node.func)
        name = called.rpartition(".")[2]
        if called in ("tl.load", "tl.store"):
            yield from self._memory(node, 1 if name == "load" else 2)
        elif called in ("range", "tl.range", "tl.static_range"):
            stop = node.args[min(1, len(node.args) - 1)]
            yield "bound off by one", node, self._whole(stop, self._operand(stop) + b" - 1")
            if len(node.args) > 1 and not isinstance(node.args[0], ast.Constant):
                start = node.args[0]
                yield "bound off by one", node, self._whole(start, self._operand(start) + b" + 1")
        elif name == "cdiv":
            yield "bound off by one", node, self._whole(node, self.text.of(node).encode() + b" - 1")
        elif called == "tl.dot":
            yield "operands swapped", node, self._swapped(*node.args[:2])
        elif called == "tl.where":
            yield "operands swapped", node, self._swapped(*node.args[1:3])
        elif called.startswith("tl.") and name in FUNCTIONS:
            yield (
                "operator replaced",
                node,
                self._whole(node.func, f"tl.{FUNCTIONS[name]}".encode()),
            )
        elif isinstance(node.func, ast.Subscript) and not self.in_kernel:  # kernel[grid](...)
            yield from self._neighbours(node.args)
        elif called == "launch":
            yield from self._neighbours(node.args[2:])
        elif isinstance(node.func, ast.Name) and not self._is_builtin(called):
            yield from self._neighbours(node.args)

    def _is_builtin(self, called: str) -> bool:
        return called in ("min", "max", "zip", "isinstance", "len", "map", "print", "getattr")

    def _memory(self, node: ast.Call, n_args: int) -> Faults:
        pointer = node.args[0]
        yield "offset shifted", node, self._whole(pointer, self._operand(pointer) + b" + 1")
        parts: list[ast.expr | ast.keyword] = [*node.args, *node.keywords]
        parts.sort(key=lambda part: (part.lineno, part.col_offset))
        ends = [self.text.span(part)[1] for part in parts]
        cut = {
            getattr(part, "arg", None) or "positional": (end_before, end, b"")
            for part, end_before, end in zip(parts[1:], ends, ends[1:], strict=False)
            if part not in node.args[:n_args]
        }
        hidden = [cut[name] for name in ("mask", "other", "positional") if name in cut]
        if hidden:
            yield "mask dropped", node, tuple(hidden)
        for keyword in node.keywords:
            if keyword.arg == "other":
                value = keyword.value
                new = b"0.0"
                if isinstance(value, ast.Constant) and isinstance(value.value, (int, float)):
                    new = repr(value.value + 1).encode()
                yield "other changed", node, self._whole(value, new)
