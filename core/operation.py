"""What every operation has in common: its value, and the least precision that it computes in.

Every operation's forward pass returns a pair: the result, and what the backward pass needs. The
operation itself is the first of the two, `softmax = value_of(softmax_forward)`. It takes the same
parameters, which are therefore written and described once.
"""

import functools
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

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


def at_least_float32(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function compute, and return, in float32 what it is given in float16.

    float16 ends at 65504 and counts to 2048: a sum of squares overflows in it, and a sum over
    thousands of tokens stops growing. It is a way to store a model, not to compute with one.
    """

    @functools.wraps(function)
    def widened(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        by_place: Any = [widen(x) for x in args]
        by_name: Any = {name: widen(x) for name, x in kwargs.items()}
        return function(*by_place, **by_name)

    return widened


def widen(argument: Any) -> Any:
    """Return a float16 array, or a model of them, in float32, and anything else as it is."""
    if isinstance(argument, np.ndarray) and argument.dtype == np.float16:
        return argument.astype(np.float32)
    if isinstance(argument, dict):
        return {name: widen(x) for name, x in argument.items()}
    return argument
