"""Triton kernels compiled for the CPU, from parts that pip installs: Triton and llvmlite.

    kernel --Triton's front end--> TTIR --ttir--> operations --loops/--> loop nests
           --writer--> LLVM IR with vectors --machine--> machine code --driver--> all cores

Read first: loops/nests.py, which says how tile operations become loops; then loops/control.py, and
instructions/ below. Triton sees a backend like any other (`compiler`, `driver`): its decorators and
its cache work as they are. Imports nothing of gptwin, so that any Triton program can run on it;
kernels/common/launch turns it on.
"""

import contextlib
import functools
from importlib.util import find_spec
from typing import Any


@functools.cache
def available() -> bool:
    """Say whether kernels can be compiled for the CPU here: whether llvmlite is installed.

    Returns
    -------
    bool
    """
    return find_spec("llvmlite") is not None


def activate() -> None:
    """Make the CPU Triton's device in this process; a second call does nothing.

    Tensors on the CPU are then taken by kernels as a GPU's tensors are: `kernel[grid](...)` of any
    Triton program runs natively.

    Raises
    ------
    RuntimeError
        If kernels are interpreted: TRITON_INTERPRET=1 was set when Triton was imported.
    ImportError
        If llvmlite is not installed.
    """
    from .driver import activate as activate_driver

    activate_driver()


def quick_code() -> contextlib.AbstractContextManager[None]:
    """Compile ten times as fast, to code that is slower by as much, while the context lasts.

    Returns
    -------
    context manager
    """
    from .driver import using

    return using(quick=True)


def unchecked() -> contextlib.AbstractContextManager[None]:
    """Compile without a check of each access while the context lasts.

    Returns
    -------
    context manager
    """
    from .driver import using

    return using(checked=False)


def following() -> contextlib.AbstractContextManager[list[Any]]:
    """Collect every launch while the context lasts.

    Returns
    -------
    context manager
        Of a list of `driver.Launcher`, which grows: the kernel's `name`, and by file the `lines` of
        Python that it was compiled from.
    """
    from .driver import following as follow

    return follow()


def tight_bounds() -> contextlib.AbstractContextManager[None]:
    """Let a tensor end behind its own last element while the context lasts.

    Otherwise it ends where its memory does: a kernel that is given a slice may read the rest.

    Returns
    -------
    context manager
    """
    from .driver import tight_bounds as tighten

    return tighten()
