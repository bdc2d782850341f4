"""The arguments of one call: from a case to arrays, and from arrays to a function's parameters.

A case of a user's own names its arguments. A tensor is written as a method of `Draw` with its shape
and what else that method takes, everything else as it stands:

    {"x": {"normal": [5, 100], "std": 3.0}, "ids": {"integers": [5], "below": 7}, "eps": 1e-6}
"""

import inspect
import json
import types
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np
import torch

from ...core.checks import refuse
from ..twins.twin import Case, Draw, Inputs

DRAWN = ("normal", "integers", "mask")
# What every case has beside its arguments: how tensors lie, what they hold, what runs.
OWN_ENTRIES = ("layout", "d_layout", "seed", "configuration")


def read_case(case: Case, draw: Draw) -> dict[str, Any]:
    """Draw the arguments that a case names.

    Parameters
    ----------
    case : Case
    draw : Draw

    Returns
    -------
    dict
        Argument to array or plain value, in the case's order.

    Raises
    ------
    ValueError
        If a tensor is described otherwise than above.
    """
    given = {name: value for name, value in case.items() if name not in OWN_ENTRIES}
    return {name: _drawn(name, value, draw) for name, value in given.items()}


def _drawn(name: str, value: Any, draw: Draw) -> Any:
    if not isinstance(value, dict):
        return value
    options = dict(value)
    methods = [method for method in DRAWN if method in options]
    example = '{"normal": [5, 100], "std": 3.0}'
    if len(methods) != 1:
        refuse(
            f"cases: {name}",
            f"a tensor as one of {', '.join(DRAWN)} with its shape, such as {example}",
            json.dumps(value),
        )
    shape = options.pop(methods[0])
    try:
        return getattr(draw, methods[0])(*shape, **options)
    except TypeError as error:
        refuse(f"cases: {name}", f"such as {example}", f"{json.dumps(value)} ({error})")


def sort_arguments(arguments: dict[str, Any]) -> Inputs:
    """Tell floats, which have a dtype to be chosen and gradients, from everything else.

    Parameters
    ----------
    arguments : dict

    Returns
    -------
    Inputs
    """
    floats = {name: value for name, value in arguments.items() if _holds_floats(value)}
    return Inputs(floats, {n: v for n, v in arguments.items() if n not in floats})


def _holds_floats(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.is_floating_point()
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def plain(case: Any) -> Case:
    """Make a case what JSON makes of it: it is printed, stored and typed again.

    Parameters
    ----------
    case : object
        What a strategy drew.

    Returns
    -------
    Case

    Raises
    ------
    ValueError
        If it is no dict of plain values, or names what every case has.
    """
    if not isinstance(case, dict):
        refuse("cases", "dicts of a call's arguments", f"a {type(case).__name__}: {case!r}")
    taken = [name for name in case if name in OWN_ENTRIES]
    if taken:
        refuse("cases", f"other names than {', '.join(OWN_ENTRIES)}, which every case has",
               ", ".join(taken))  # fmt: skip
    try:
        return dict(json.loads(json.dumps(case)))
    except TypeError as error:
        refuse(
            "cases",
            'numbers, strings and lists; a tensor as {"normal": [rows, columns]}',
            f"{case!r} ({error})",
            "a strategy that draws tensors: draw their shapes",
        )


class Call:
    """A user's function, called with a case's arguments.

    Parameters
    ----------
    role : str
        What the user called it: "kernel", "reference", ...
    function : callable
        If it knows all the names, it gets the arguments by name, else in the case's order, but for
        those that it takes by name alone.
    order : dict
        Argument to place; grows with each case that is read.
    """

    def __init__(self, role: str, function: Callable[..., Any], order: dict[str, int]) -> None:
        self.role, self.function, self.order = role, function, order
        # Names given to those passed by place and those passed by name: calls are timed, too.
        self._plans: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}

    def __call__(self, arguments: dict[str, Any]) -> Any:
        """Call it."""
        given = tuple(arguments)
        if given not in self._plans:
            self._plans[given] = self._plan(arguments)
        positional, keywords = self._plans[given]
        return self.function(
            *(arguments[name] for name in positional), **{n: arguments[n] for n in keywords}
        )

    def _plan(self, arguments: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Choose which arguments are passed by place and which by name."""
        names = sorted(arguments, key=lambda name: self.order.get(name, len(self.order)))
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # one that is written in C
            return names, []
        parameters = signature.parameters
        by_name = {n for n, p in parameters.items() if p.kind is not p.POSITIONAL_ONLY}
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if takes_any or by_name.issuperset(names):
            keywords, positional = names, []
        else:
            alone = {n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
            keywords = [name for name in names if name in alone]
            positional = [name for name in names if name not in alone]
        try:
            signature.bind(*positional, **dict.fromkeys(keywords))
        except TypeError as error:
            self._refuse(signature, names, error)
        return positional, keywords

    def _refuse(self, signature: inspect.Signature, names: list[str], error: Exception) -> NoReturn:
        refuse(
            self.role,
            f"a function of the arguments that a case has ({', '.join(names)})",
            f"{name_of(self.function)}{signature} ({error})",
            "other names, or another order: wrap it in a lambda",
        )


def name_of(function: Any) -> str:
    """Name a function as its author did."""
    return getattr(function, "__name__", None) or type(function).__name__


def flat(returned: Any) -> list[Any]:
    """List what a function returned; None is nothing."""
    if returned is None:
        return []
    if isinstance(returned, dict):
        returned = tuple(returned.values())
    values = returned if isinstance(returned, (tuple, list)) else (returned,)
    return [value for value in values if value is not None]


def takes_arrays(reference: Callable[..., Any]) -> bool:
    """Say whether a reference is NumPy's: its code names NumPy, and PyTorch nowhere.

    Parameters
    ----------
    reference : callable

    Returns
    -------
    bool
    """
    home = getattr(reference, "__module__", None) or ""
    if isinstance(reference, np.ufunc) or home.split(".")[0] == "numpy":
        return True
    function = inspect.unwrap(reference)
    if not isinstance(function, types.FunctionType):
        return False
    named = {_library(function.__globals__.get(name)) for name in _names(function.__code__)}
    named |= {_library(cell.cell_contents) for cell in function.__closure__ or ()}
    return "numpy" in named and "torch" not in named


def _names(code: types.CodeType) -> Iterable[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _library(value: Any) -> str:
    home = value.__name__ if isinstance(value, types.ModuleType) else None
    return str(home or getattr(value, "__module__", None) or "").split(".")[0]
