"""Functions of the language by any name, and those of a library: `libdevice` is computed here.

Upstream finds builtins in the modules `tl` and `tl.math` alone, and replaces them there for the
time of a launch. A kernel that has `from triton.language import load`, or that calls
`triton.language.extra.cuda.libdevice.tanh`, meets the original, which wants a `_semantic`. Here the
originals take the interpreter's when they are given none.
"""

import functools
import importlib
import inspect
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from ..common.patches import replaces
from ..common.values import is_poison, poison
from ..libdevice.table import find

_MODULES = ("core", "math", "extra.cuda.libdevice", "extra.cuda.utils")


@replaces("InterpreterBuilder.create_extern_elementwise")
def _call_library(self, library, path, symbol, operands, result_type, is_pure):
    """Compute a function of libdevice; a poisoned operand gives a poisoned result."""
    function = find(symbol)
    arrays = [operand.data for operand in operands]
    dtype = result_type.scalar
    values = np.asarray(function(*arrays)).astype(upstream._get_np_dtype(dtype))
    poisoned = functools.reduce(np.logical_or, map(is_poison, arrays))
    if poisoned.any():
        values = np.where(poisoned, poison(dtype), values)
    return upstream.TensorHandle(values, dtype)


def open_language() -> None:
    """Let every builtin run in the interpreter, under whatever name a kernel has it."""
    modules = [importlib.import_module(f"triton.language.{name}") for name in _MODULES]
    # The builtins' wrappers look their names up in this module.
    vars(tl.core)["_interpreters_semantic"] = upstream.interpreter_semantic
    for function in {f for module in modules for f in _builtins(module)}:
        function.__code__ = _code_of_a_wrapper()
    _forward_stubs()


def _builtins(module: types.ModuleType) -> Iterator[Any]:
    for value in vars(module).values():
        if inspect.isfunction(value) and tl.core.is_builtin(value):
            wrapped = value.__closure__
            if wrapped is not None and value.__code__.co_freevars == ("fn",):
                yield value


@functools.cache
def _code_of_a_wrapper() -> types.CodeType:
    """Write what takes the place of the wrapper in `builtin`; `fn` is the function in it."""

    def around(fn: Any) -> Any:
        def wrapper(*args: Any, **options: Any) -> Any:
            if options.get("_semantic") is None:
                options["_semantic"] = _interpreters_semantic  # type: ignore[name-defined] # noqa: F821
            return fn(*args, **options)

        return wrapper

    return around(None).__code__


def _forward_stubs() -> None:
    """`triton.language.extra.libdevice` has stubs, for which a compiler puts a GPU's own."""
    stubs = importlib.import_module("triton.language.extra.libdevice")
    vars(stubs)["_interpreters_find"] = _find_of_cuda
    for name, stub in vars(stubs).items():
        if inspect.isfunction(stub) and stub.__module__ == stubs.__name__:
            text = (
                f"def {name}(*args, **options):\n"
                f"    return _interpreters_find({name!r})(*args, **options)"
            )
            made: dict[str, Any] = {}
            exec(compile(text, str(stubs.__file__), "exec"), made)
            stub.__code__ = made[name].__code__


def _find_of_cuda(name: str) -> Any:
    cuda = importlib.import_module("triton.language.extra.cuda.libdevice")
    if not hasattr(cuda, name):
        raise NotImplementedError(
            f"libdevice: expected one of the functions that CUDA's has, got {name} "
            "(likely cause: a function of AMD's library alone)"
        )
    return getattr(cuda, name)
