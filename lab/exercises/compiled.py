"""Grade a file's kernels compiled for the CPU, as a GPU's would be: quick, and it sees less.

Beyond a tensor nothing is touched, and numbers are compared. Races, memory that nobody has written,
lanes that hold anything and superfluous reads show in the interpreter alone.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from triton.compiler.errors import CompilationError

from ...kernels import native
from ...kernels.native.driver import KernelFault
from ..pretend.gpu import pretend_gpu
from ..sanitize.drivers import load
from .diagnosis import RULES, Attempt, of_numbers
from .exercise import Exercise, Tensors

_BEYOND = re.compile(r"(?P<line>\d+): \w+, program (?P<program>\(.*\)): (?P<access>\w+) out of")


def find_faults(
    exercise: Exercise, path: str, text: str, make: Callable[..., Any], exactly: Callable[..., Any]
) -> Iterator[str]:
    """Yield what is wrong in a student's terms.

    Parameters
    ----------
    exercise : Exercise
    path, text : str
        The student's file.
    make : callable
        Makes of a module, an exercise, a case and a dtype the target whose `call` calls `solve`.
    exactly : callable
        Takes a call's arguments to float64.
    """
    lines, attempts = text.splitlines(), []
    with pretend_gpu(compiled=True), native.quick_code():
        module = load(path)
        for dtype, case in itertools.product(exercise.dtypes, exercise.cases):
            target = make(module, exercise, case, dtype)
            arguments: Tensors = target.arguments()
            exact = exactly(arguments)
            try:
                results = target.call(arguments)
            except KernelFault as fault:
                yield of_fault(fault, lines)
                return
            except CompilationError as error:
                yield f"it does not compile: {error}"
                return
            attempts.append(Attempt(exercise, case, dtype, exact, results, []))
    if any(attempt.first_wrong for attempt in attempts):
        yield of_numbers(exercise, attempts, lines)


def of_fault(fault: KernelFault, lines: list[str]) -> str:
    """Say which line went where it should not.

    Parameters
    ----------
    fault : KernelFault
    lines : list of str
        The student's file.

    Returns
    -------
    str
    """
    found = _BEYOND.search(str(fault))
    if found is None:
        return str(fault)
    line = int(found["line"])
    return "\n".join(
        (
            f"line {line}, program {found['program']}: {found['access']} out of bounds",
            f"    {lines[line - 1].strip()}" if line <= len(lines) else "",
            f"    rule: {RULES['out of bounds']}",
        )
    )
