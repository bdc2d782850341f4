"""A mutant in the place of the function that it was made from.

The function's object stays, so that whoever imported it has the mutant as well; its code changes,
and of a kernel the source, which Triton reads.
"""

import inspect
import linecache
import sys
import types
from pathlib import Path
from typing import Any

from ... import kernels
from ...kernels.common.launch import INTERPRETED
from ..twins.twin import Twin
from . import compiled
from .mutants import Mutant, source_of

KERNELS = Path(kernels.__file__).parent  # code objects name files without resolving links
ROOT = KERNELS.parent


def install(mutant: Mutant) -> None:
    """Put a mutant in the place of the function it was made from, in this process.

    Parameters
    ----------
    mutant : Mutant
        The fault.
    """
    path = ROOT / mutant.file  # a user's own file is absolute, and stays so
    source = mutant.apply(source_of(path))
    found = _found(mutant)
    code = _code_of(compile(source, str(path), "exec"), mutant.function.split("."))
    function = function_of(found)
    function.__code__ = code
    if mutant.in_kernel:
        # The interpreter runs a kernel's source, rewritten; the compiler reads it.
        lines = source.splitlines(keepends=True)
        linecache.cache[str(path)] = (len(source), None, lines, str(path))
        kernel = found
        while hasattr(kernel.fn, "fn"):
            kernel = kernel.fn
        if INTERPRETED:
            kernel.rewritten_fn.pop(function, None)
        else:
            compiled.change_source(kernel)


def module_of(file: Path) -> types.ModuleType:
    """Find the module that was imported from a file.

    Parameters
    ----------
    file : Path

    Returns
    -------
    module
    """
    if file.is_relative_to(KERNELS):
        parts = file.relative_to(KERNELS).with_suffix("").parts
        return sys.modules[".".join([kernels.__name__, *parts])]
    # Python runs `__main__` under two names; the imported one is what a twin's functions are of.
    found = [m for m in sys.modules.values() if getattr(m, "__file__", None) == str(file)]
    return found[-1]


def files_of(twin: Twin) -> list[Path]:
    """List the files of a user's own twin: of its kernels, and of the function that launches.

    Parameters
    ----------
    twin : Twin

    Returns
    -------
    list of Path
    """
    functions = [function_of(item) for item in (twin.kernel, *twin.kernels().values())]
    return list(dict.fromkeys(Path(function.__code__.co_filename) for function in functions))


def function_of(found: Any) -> Any:
    """Find the function under decorators, Triton's and Python's.

    Parameters
    ----------
    found : object
        Anything; what is not decorated comes back as it is.

    Returns
    -------
    object
    """
    while True:
        for name in ("fn", "__wrapped__", "__func__"):
            if hasattr(found, name):
                found = getattr(found, name)
                break
        else:
            return found


def _code_of(code: types.CodeType, names: list[str]) -> types.CodeType:
    for name in names:
        code = next(
            constant
            for constant in code.co_consts
            if isinstance(constant, types.CodeType) and constant.co_name == name
        )
    return code


def lines_of(mutant: Mutant) -> range:
    """Return the lines of the function that a mutant was made from.

    Parameters
    ----------
    mutant : Mutant

    Returns
    -------
    range
    """
    lines, first = inspect.getsourcelines(function_of(_found(mutant)))
    return range(first, first + len(lines))


def _found(mutant: Mutant) -> Any:
    """Return what stands in the module under the name of a mutant's function."""
    found: Any = module_of(ROOT / mutant.file)
    for name in mutant.function.split("."):
        found = inspect.getattr_static(found, name)
    return found
