"""An operation from its forward pass: `softmax = value_of(softmax_forward)`.

Every operation's forward pass returns a pair: the result, and what the backward pass needs. The
operation itself is the first of the two. It takes the same parameters, which are therefore written
and described once.
"""

import functools
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def value_of(forward: Callable[Arguments, tuple[Result, Any]]) -> Callable[Arguments, Result]:
    """Make the operation that returns the result of `forward` alone.

    Parameters
    ----------
    forward : callable
        Called ``<operation>_forward``; returns (result, saved).

    Returns
    -------
    callable
        Called ``<operation>``, with the parameters of `forward` and its docstring without what is
        saved.
    """

    @functools.wraps(forward)
    def operation(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        result, _ = forward(*args, **kwargs)
        return result

    signature = inspect.signature(forward)
    result_type = typing.get_args(signature.return_annotation)[0]
    operation.__name__ = operation.__qualname__ = forward.__name__.removesuffix("_forward")
    operation.__annotations__ = forward.__annotations__ | {"return": result_type}
    vars(operation)["__signature__"] = signature.replace(return_annotation=result_type)
    operation.__doc__ = without_saved(inspect.getdoc(forward) or "")
    return operation


def without_saved(docstring: str) -> str:
    """Drop the entry `saved` from the section Returns."""
    return re.sub(r"^saved : .*\n?(?: +.*\n?)*", "", docstring, flags=re.MULTILINE)
