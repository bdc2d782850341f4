"""What must be so before a twin is proved: constants read, approximations replaced.

In the place of a device function that stands for another one (kernels/common/_triton.py) the
other is put, in every module that has a name for it, before a kernel is compiled.
"""

import contextlib
import math
import sys
from collections.abc import Iterator

from triton.runtime.jit import JITFunction

from ...twins.find import find_twin, is_own
from ...twins.twin import Twin
from .algebra import constants
from .evaluation.backend import evaluating
from .evaluation.evaluate import Machine
from .evaluation.host import Host
from .evaluation.memory import Memory

_prepared: list[str] = []


@contextlib.contextmanager
def prepared(name: str) -> Iterator[None]:
    """Prepare for a twin's proof.

    A module's constants are read first: they are float64 there, and float32 in a kernel.

    Parameters
    ----------
    name : str
        The twin.
    """
    if _prepared != [name]:
        _prepared[:] = [name]
        constants.forget()
        for prefix in ("gptwin.core.", "gptwin.kernels.", name.partition(":")[0]):
            _read_constants(prefix)
        constants.opaque.clear()  # of those that are used, the meaning is looked up again
    with _approximations_replaced():
        yield


@contextlib.contextmanager
def _approximations_replaced() -> Iterator[None]:
    before = []
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", {})
        for name, value in list(names.items()):
            declared = vars(value).get("approximation") if type(value) is JITFunction else None
            if declared is not None:
                before.append((names, name, value))
                names[name] = declared.exact
    try:
        yield
    finally:
        for names, name, value in before:
            names[name] = value


def twin_to_prove(name: str) -> Twin:
    """Find a twin; one of a user's own is run once, to see what it launches.

    Parameters
    ----------
    name : str

    Returns
    -------
    Twin
    """
    if not is_own(name):
        return find_twin(name)
    machine = Machine(Memory(trusting=True))
    with evaluating(machine), Host(machine.memory):
        return find_twin(name)


def _read_constants(prefix: str) -> None:
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(prefix):
            for value in list(vars(module).values()):
                value = getattr(value, "value", value)  # of a tl.constexpr
                if type(value) is float and math.isfinite(value):
                    constants.meaning(value)
