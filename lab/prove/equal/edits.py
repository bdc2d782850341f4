"""A function of a file as another text of that file has it, for the kernels that are proved."""

import ast
import contextlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from triton.runtime.autotuner import Autotuner, Heuristics
from triton.runtime.jit import JITFunction


@contextlib.contextmanager
def edited(module: str, function: str, source: str) -> Iterator[None]:
    """Let a function say what another text of its file says, while the context lasts.

    Who imported the function has the edit as well: its object stays.

    Parameters
    ----------
    module : str
        Such as "gptwin.kernels.layers.softmax"; imported already.
    function : str
        Such as "softmax_forward_kernel" or "_Softmax.backward".
    source : str
        The file's text, edited.
    """
    names = function.split(".")
    found: Any = sys.modules[module]
    for name in names:
        found = inspect.getattr_static(found, name)
    target = _undecorated(found)
    if isinstance(target, JITFunction):
        before = target.src
        target._unsafe_update_src(_text_of(source, names))
        try:
            with _compiled_anew():
                yield
        finally:
            target._unsafe_update_src(before)
        return
    code = target.__code__
    target.__code__ = _code_of(compile(source, code.co_filename, "exec"), names)
    try:
        yield
    finally:
        target.__code__ = code


def _undecorated(found: Any) -> Any:
    """Find the kernel, or the Python function, under decorators."""
    while not isinstance(found, JITFunction):
        for name in ("fn", "__wrapped__", "__func__"):
            if hasattr(found, name):
                found = getattr(found, name)
                break
        else:
            return found
    return found


def _text_of(source: str, names: list[str]) -> str:
    """Cut a function's text out of a file's, without decorators."""
    body: Any = ast.parse(source).body
    for name in names:
        node = next(n for n in body if getattr(n, "name", "") == name)
        body = node.body
    text = ast.get_source_segment(source, node)
    assert text is not None
    return text


def _code_of(code: Any, names: list[str]) -> Any:
    for name in names:
        code = next(c for c in code.co_consts if getattr(c, "co_name", "") == name)
    return code


@contextlib.contextmanager
def _compiled_anew() -> Iterator[None]:
    """Forget before and after what was compiled: a caller's code has its functions' in it."""
    _forget_compiled()
    try:
        yield
    finally:
        _forget_compiled()


def _forget_compiled() -> None:
    for module in list(sys.modules.values()):
        for value in list(vars(module).values()) if hasattr(module, "__dict__") else ():
            while type(value) in (Autotuner, Heuristics):
                value = value.fn
            if type(value) is JITFunction:
                value.hash = None
                value.device_caches.clear()
