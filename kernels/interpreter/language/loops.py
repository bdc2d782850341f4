"""Loops: a loop's variable is a number of the kernel's, as compiled, and not one of Python's.

Upstream loops over Python's integers: then `(i - 3) // 2` rounds down where a GPU cuts off, no
product with the variable overflows, and `i.to(tl.int64)` fails. The variable of `tl.static_range`
is a constant, and stays one of Python's.

A compiled loop adds its step after the last turn, too: if the sum leaves the type, it begins anew.
"""

import ast
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import triton.language as tl
from triton.runtime import interpreter as upstream

from ..common.patches import adds


@adds("_loop_range")  # a rewritten kernel sees the names of Triton's interpreter
def _range(first: Any, end: Any = None, step: Any = 1, **hints: Any) -> Iterator[tl.tensor]:
    """Stand for `range` and `tl.range` at the head of a loop."""
    if "arg2" in hints:
        end = hints["arg2"]
    start, end = (0, first) if end is None else (first, end)
    step = 1 if step is None else step
    semantic = upstream.interpreter_semantic
    bounds = [semantic.to_tensor(bound) for bound in (start, end, step)]
    dtypes = [bound.dtype for bound in bounds]
    dtype = dtypes[0]
    for other in dtypes[1:]:
        dtype = semantic.integer_promote_impl(dtype, other)
    turns = range(*(int(bound.handle.data.item()) for bound in bounds))
    if turns and not _fits(turns[-1] + turns.step, dtype):
        raise AssertionError(
            f"{dtype} overflow detected for operation add, at the loop's last step"
        )
    for i in _choices[-1](turns) if _choices else turns:
        yield semantic.scalar_constant(i, dtype)


def _fits(number: int, dtype: tl.dtype) -> bool:
    if not dtype.is_int_signed():
        return True
    return dtype.get_int_min_value() <= number <= dtype.get_int_max_value()


_choices: list[Callable[[range], Iterable[int]]] = []


@contextmanager
def some_turns(choose: Callable[[range], Iterable[int]]) -> Iterator[None]:
    """Run only some turns of each loop meanwhile: for loops that would take days.

    Parameters
    ----------
    choose : callable
        Given all values of a loop's variable, returns those of the turns to be run.
    """
    _choices.append(choose)
    try:
        yield
    finally:
        _choices.pop()


@adds("ASTTransformer.visit_For")
def _rewrite_loop(self, node):
    """Let `for i in range(...)` and `for i in tl.range(...)` loop over the kernel's numbers."""
    self.generic_visit(node)
    call = node.iter
    if isinstance(call, ast.Call):
        name = getattr(call.func, "id", None) or getattr(call.func, "attr", None)
        if name == "range":
            call.func = ast.copy_location(ast.Name(id="_loop_range", ctx=ast.Load()), call.func)
    return node
