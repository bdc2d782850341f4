"""Neighbours swapped: what a kernel does to memory and barriers, two at a time in the other order.

Two statements are neighbours if nothing between them touches shared memory or a barrier. The first
is moved behind the second; where what lies between needs it, the second is moved before the first.
"""

import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from triton.runtime.jit import JITCallable

from .faults import FAULTS
from .language.served import model_of

OPERATIONS = {
    *FAULTS, "async_load", "async_store", "async_atomic_add", "warpgroup_mma", "copy_async",
    "warp_specialize",
}  # fmt: skip
METHODS = ("load", "store")


@dataclasses.dataclass(frozen=True)
class Swap:
    """Two statements of a function, in the other order.

    Attributes
    ----------
    function : callable
        The kernel's.
    first, second : str
        The statements' text; of one with a body, its first line.
    lines : tuple of int
        Theirs.
    codes : tuple of CodeType
        The function's code with the first moved, and with the second.
    """

    function: Callable[..., Any]
    first: str
    second: str
    lines: tuple[int, int]
    codes: tuple[CodeType, CodeType]

    @property
    def at(self) -> str:
        """Name the lines."""
        file = Path(self.function.__code__.co_filename).name
        return f"{file}:{self.lines[0]}, {file}:{self.lines[1]}"

    @property
    def text(self) -> str:
        """What stands in these lines, in the order of the swap."""
        return f"{self.second} | {self.first}"


def swaps(function: Callable[..., Any]) -> Iterator[Swap]:
    """List the swaps of a function; of one within another function none.

    Parameters
    ----------
    function : callable
        What `gluon.jit` was given.

    Yields
    ------
    Swap
    """
    if function.__code__.co_freevars:
        return
    for block_index, block in enumerate(_blocks(_tree(function))):
        touching = [i for i, s in enumerate(block) if _touches(s, function, set())]
        for i, j in itertools.pairwise(touching):
            codes = (
                _moved(function, block_index, i, j),
                _moved(function, block_index, j, i),
            )
            lines = (block[i].lineno, block[j].lineno)
            yield Swap(function, _text(block[i]), _text(block[j]), lines, codes)


def _tree(function: Callable[..., Any]) -> ast.FunctionDef:
    """Parse a function, its lines numbered as in the file."""
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    return definition


def _blocks(tree: ast.AST) -> list[list[ast.stmt]]:
    blocks = []
    for node in ast.walk(tree):
        for name in ("body", "orelse"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                blocks.append(block)
    return blocks


def _moved(function: Callable[..., Any], block_index: int, which: int, to: int) -> CodeType:
    """Compile a function with one statement of a block moved to the place of another."""
    tree = _tree(function)
    block = _blocks(tree)[block_index]
    block.insert(to, block.pop(which))
    module = ast.Module(body=[tree], type_ignores=[])
    compiled = compile(module, function.__code__.co_filename, "exec", dont_inherit=True)
    (code,) = (
        constant
        for constant in compiled.co_consts
        if isinstance(constant, CodeType) and constant.co_name == function.__name__
    )
    return code


def _touches(node: ast.AST, function: Callable[..., Any], within: set[Any]) -> bool:
    """Say whether a statement touches shared memory or a barrier, itself or by what it calls."""
    for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
        called = _value(call.func, function)
        if called is None and isinstance(call.func, ast.Attribute) and call.func.attr in METHODS:
            return True
        served = model_of(called)
        if served is not None and served.__name__ in OPERATIONS:
            return True
        own = called.fn if isinstance(called, JITCallable) and served is None else None
        if own and own not in within and _touches(_tree(own), own, within | {own}):
            return True
    return False


def _value(node: ast.expr, function: Callable[..., Any]) -> Any:
    """Find what a dotted name stands for in a function; None if that is no global."""
    if isinstance(node, ast.Name):
        return function.__globals__.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, function), node.attr, None)
    return None


def _text(statement: ast.stmt) -> str:
    return " ".join(ast.unparse(statement).splitlines()[0].split())
