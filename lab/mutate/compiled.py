"""Mutants that are compiled for the CPU: what differs from the interpreter.

A child compiles the mutated kernels anew, fast, for all values of their arguments; all others it
takes from Triton's cache, to which it adds nothing. Which lines a case executes nobody watches: a
case is relevant to all lines of each function that its kernels were compiled from.
"""

import contextlib
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from ...kernels import native
from ...kernels.common.launch import INTERPRETED


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """End a launch when a lane leaves its tensor, as the interpreter's guard does."""
    with native.quick_code(), native.tight_bounds():
        yield


@contextlib.contextmanager
def compiled_lines(lines: dict[str, set[int]]) -> Iterator[None]:
    """Add to `lines`, by file, those that the kernels launched meanwhile were compiled from."""
    if INTERPRETED:  # there a trace sees them
        yield
        return
    with native.following() as launched:
        yield
    for launcher in launched:
        for file, numbers in launcher.lines.items():
            lines.setdefault(file, set()).update(numbers)


def change_source(kernel: Any) -> None:
    """Let a kernel, or what it calls, be compiled from what its function's source is now.

    Parameters
    ----------
    kernel : a `triton.jit` function
    """
    kernel.raw_src, kernel.starting_line_number = inspect.getsourcelines(kernel.fn)
    source = textwrap.dedent("".join(kernel.raw_src))
    found = re.search(r"^def\s+\w+\s*\(", source, re.MULTILINE)
    assert found is not None, "Triton has found it before"
    kernel._unsafe_update_src(source[found.start() :])
    for other in _kernels():  # those that call it have its hash in theirs
        other.hash = None
        other.device_caches.clear()


def _kernels() -> Iterator[Any]:
    """Yield every `triton.jit` function of the modules that are loaded."""
    from triton.runtime.jit import JITFunction, KernelInterface

    for module in list(sys.modules.values()):
        for value in list(getattr(module, "__dict__", {}).values()):
            while isinstance(value, KernelInterface) and not isinstance(value, JITFunction):
                value = value.fn  # under an autotuner
            if isinstance(value, JITFunction):
                yield value


def write_to(folder: str) -> None:
    """Write what is compiled from now on into a folder, not into Triton's cache."""
    from triton import knobs
    from triton.runtime.cache import FileCacheManager

    class Scratch(FileCacheManager):
        def __init__(self, key: str, **options: Any) -> None:
            super().__init__(key, **options)
            with contextlib.suppress(OSError):  # it is known, and is read from there
                os.rmdir(self.cache_dir)
                self.cache_dir: str = os.path.join(folder, key)
                os.makedirs(self.cache_dir, exist_ok=True)

    knobs.cache.manager_class = Scratch
