"""Which of Gluon's operations are served, by which function; every other is refused by name."""

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

LANGUAGE = "triton.experimental.gluon.language"
HOPPER = "triton.experimental.gluon.language.nvidia.hopper"

_served: dict[int, Callable[..., Any]] = {}
_originals: list[Any] = []  # kept, so that no other object gets an id of theirs


class Refused(NotImplementedError):
    """An operation that the model does not serve."""


def serves(module: str, *names: str) -> Callable[[Function], Function]:
    """Declare that the decorated function stands for an operation of Gluon.

    Parameters
    ----------
    module : str
        Where Gluon has it.
    names : str
        The names that releases of Triton have for it.
    """

    def declare(function: Function) -> Function:
        owner = importlib.import_module(module)
        for name in names or (function.__name__,):
            if (original := getattr(owner, name, None)) is not None:
                _served[id(original)] = function
                _originals.append(original)
        return function

    return declare


def model_of(original: Any) -> Callable[..., Any] | None:
    """Find what stands for one of Gluon's operations.

    Parameters
    ----------
    original : object
        Gluon's.

    Returns
    -------
    callable or None
    """
    return _served.get(id(original))
