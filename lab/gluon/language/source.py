"""Where a kernel is, and what it calls things: its own source lines."""

import ast
import functools
import linecache
import os
import sys
import traceback
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

_code: set[CodeType] = set()  # of the kernels' functions


def is_a_kernels(code: CodeType) -> None:
    """Note the code of a kernel's function.

    Parameters
    ----------
    code : code
        What is run for it.
    """
    _code.add(code)


def line() -> str:
    """Name the kernel's line that is being run, "file:line < caller:line"."""
    lines = [f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in frames()]
    return " < ".join([*lines[:1], *(line.rpartition(os.sep)[2] for line in lines[1:])])


def line_of(error: BaseException) -> str:
    """Name the kernel's line at which an error was raised, "file:line".

    Parameters
    ----------
    error : BaseException
    """
    found = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code in _code:
            found = f"{frame.f_code.co_filename}:{number}"
    return found


def frames() -> Iterable[FrameType]:
    """Yield the frames of the kernel's functions that are being run, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _code:
            yield frame
        frame = frame.f_back


# --- names ----------------------------------------------------------------------------------------


def assigned_name() -> str:
    """Say what the kernel will call the value of the operation that is being run.

    That is the outermost name that is given to it on the way, and the fields of named tuples that
    take it up, such as "keys.full".
    """
    names: list[str] = []
    for frame in reversed([*frames()]):
        name, taker, place = _taken_by(frame.f_code, frame.f_lineno, frame.f_lasti)
        fields = getattr(frame.f_globals.get(taker), "_fields", ())
        if place < len(fields):
            names.append(fields[place])
        elif name and not names:
            names.append(name)
    return ".".join(names)


@functools.cache
def _taken_by(code: CodeType, number: int, instruction: int) -> tuple[str, str, int]:
    """Say what becomes of a call: the name that it is given, or which argument of what it is."""
    tree = _statement(code.co_filename, number)
    call = None if tree is None else _call_at(tree, code, instruction)
    if tree is None or call is None:
        return "", "", 0
    parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    parent = parents[id(call)]
    if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Name):
        return parent.targets[0].id, "", 0
    if isinstance(parent, ast.AnnAssign) and isinstance(parent.target, ast.Name):
        return parent.target.id, "", 0
    if isinstance(parent, ast.Tuple):
        above = parents.get(id(parent))
        if isinstance(above, ast.Assign) and isinstance(above.targets[0], ast.Tuple):
            return ast.unparse(above.targets[0].elts[parent.elts.index(call)]), "", 0
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and call in parent.args:
        return "", parent.func.id, parent.args.index(call)
    return "", "", 0


@functools.cache
def _statement(file: str, number: int) -> ast.stmt | None:
    """Find the innermost statement of a file that a line belongs to."""
    found = None
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.stmt) and node.lineno <= number <= (node.end_lineno or 0):
            found = node if found is None or node.lineno >= found.lineno else found
    return found


@functools.cache
def _tree(file: str) -> ast.Module:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _call_at(tree: ast.stmt, code: CodeType, instruction: int) -> ast.Call | None:
    """Find the call that an instruction makes, by its place, which Python 3.10 does not know."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    places: Any = getattr(code, "co_positions", None)
    if places is None:
        return calls[0] if calls else None
    place = [*places()][instruction // 2]  # line, end line, column, end column
    for call in calls:
        if (call.lineno, call.end_lineno, call.col_offset, call.end_col_offset) == place:
            return call
    return None
