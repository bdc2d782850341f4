"""How a repair is declared: beside the function that makes it, by the name of what it mends.

A name is a path in `triton.runtime.interpreter`, such as "InterpreterBuilder.create_fma".
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import triton
from triton.runtime import interpreter as upstream

Method = Callable[..., Any]
Addition = TypeVar("Addition")  # a function or a property

# Each function makes a replacement from the original, or from what an earlier one made of it.
_repairs: dict[str, list[Callable[[Method], Method]]] = {}
_additions: dict[str, Any] = {}
_USED = (  # the repairs use these and do not mend them
    "TensorHandle",
    "TensorDescriptor",
    "_unwrap_tensor",
    "interpreter_builder.options",
    "InterpretedFunction.rewrite",
    "ReduceOps.to_tensor",
    "ScanOps.to_tensor",
    "_interpreter.load",
    "_interpreter.store",
    "_ir.ATOMIC_OP.XCHG",
    "_ir.INPUT_PRECISION.TF32",
    "_ir.MEM_SEMANTIC.RELAXED",
    "_ir.PADDING_OPTION.PAD_NAN",
    "_ir.PROPAGATE_NAN.NONE",
)


def replaces(*names: str) -> Callable[[Method], Method]:
    """Declare that the decorated function takes the place of `names`.

    Parameters
    ----------
    names : str
        What Triton has.
    """

    def declare(function: Method) -> Method:
        for name in names:
            _repairs.setdefault(name, []).append(lambda original: function)
        return function

    return declare


def extends(*names: str, since: str = "") -> Callable[[Method], Method]:
    """Declare that the decorated function takes the place of `names` and may call the original.

    Parameters
    ----------
    names : str
        What Triton has. The function receives each call's arguments after the original.
    since : str
        The release that brought the names, if not every Triton that is admitted has them.
    """

    def declare(function: Method) -> Method:
        def repair(original: Method) -> Method:
            return lambda *args, **options: function(original, *args, **options)

        for name in names if _has(since) else ():
            _repairs.setdefault(name, []).append(repair)
        return function

    return declare


def adds(name: str) -> Callable[[Addition], Addition]:
    """Declare that the decorated function is to be `name`.

    Parameters
    ----------
    name : str
        What Triton lacks.
    """

    def declare(function: Addition) -> Addition:
        _additions[name] = function
        return function

    return declare


def apply() -> None:
    """Put every declared function in its place.

    Raises
    ------
    RuntimeError
        If Triton has not got what is to be mended; nothing is changed then.
    """
    if missing := [name for name in (*_USED, *_repairs) if not _exists(name)]:
        raise RuntimeError(
            f"Triton {triton.__version__}: triton.runtime.interpreter has no {', '.join(missing)}; "
            "gptwin's interpreter knows Triton 3.6 to 3.9"
        )
    for name, repairs in _repairs.items():
        owner, attribute = _find(name)
        for repair in repairs:
            setattr(owner, attribute, repair(getattr(owner, attribute)))
    for name, function in _additions.items():
        setattr(*_find(name), function)


def _has(release: str) -> bool:
    """Say whether this Triton is at least a release, such as "3.9"; "" is any."""
    return [*map(int, release.split(".") if release else ())] <= [
        *map(int, triton.__version__.split(".")[:2])
    ]


def _find(name: str) -> tuple[Any, str]:
    *path, attribute = name.split(".")
    return functools.reduce(getattr, path, upstream), attribute


def _exists(name: str) -> bool:
    try:
        return hasattr(*_find(name))
    except AttributeError:
        return False
