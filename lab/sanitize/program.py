"""Watch a program as it is: a script or a test suite that launches Triton kernels, unchanged.

`watching` is a context in which "cuda" means the CPU, every launch of a kernel is checked, and
autotuned kernels run with several configurations. `run_command` runs `python script.py ...` or
`python -m pytest ...` in this process, inside such a context.
"""

import contextlib
import dataclasses
import os
import re
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ...core.checks import refuse
from ...kernels import interpreter, native
from ..pretend.gpu import pretend_gpu
from .autotuned import CONFIGURATIONS, Configurations
from .sanitize import find_unwritten
from .storages import Storages
from .violation import Violation
from .watch import Watch

_PROGRAMS = re.compile(r"python[\d.]*|py\.?test")
# These bring plugins of pytest, and this process has imported them before pytest could rewrite
# their assertions. Nobody misses that, and the program has nothing to do with it.
_IMPORTED = ("gptwin", "hypothesis", "_hypothesis")  # beginnings of names
_NOT_TOLD = [
    f"-Wignore:Module already imported so cannot be rewritten; {name}:"
    "pytest.PytestAssertRewriteWarning"
    for name in _IMPORTED
]


@dataclasses.dataclass
class Seen:
    """What was seen while a context of `watching` lasts, or lasted.

    Attributes
    ----------
    violations : list of Violation
        One for each kind, line and tensor, in the order in which they were found.
    kernels : set of str
        Those launched.
    n_launches, n_accesses : int
        Launches, each configuration of an autotuned kernel counted, and their loads, stores and
        atomics.
    configurations : dict
        For each autotuned kernel how many of its configurations have run, and how many it has.
    """

    violations: list[Violation] = dataclasses.field(default_factory=list)
    kernels: set[str] = dataclasses.field(default_factory=set)
    n_launches: int = 0
    n_accesses: int = 0
    configurations: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Outcome:
    """What became of a program: what was seen, and its exit code."""

    seen: Seen
    exit_code: int


class _Program:
    """The watch over a program, which inner contexts share."""

    def __init__(self, configs: int, seed: int, updates: Sequence[str]) -> None:
        storages = Storages(self.read)
        # What a plain function may write nobody has declared; a custom operation says it.
        self.watch = Watch(storages, storages.is_declared_input, seed, updates)
        self.configurations = Configurations(self.watch, configs)

    def read(self, tensor: torch.Tensor) -> None:
        """Find out whether PyTorch reads what a kernel should have written."""
        before = set(self.watch.violations)
        find_unwritten(self.watch, tensor)
        for key in set(self.watch.violations) - before:
            self.watch.violations[key].case = self.watch.describe()


_programs: list[_Program] = []


@contextlib.contextmanager
def watching(
    *, configs: int = CONFIGURATIONS, seed: int = 0, updates: Sequence[str] = ()
) -> Iterator[Seen]:
    """Check every launch of a Triton kernel while the context lasts.

    Meanwhile "cuda" means the CPU (`pretend_gpu`; enter that around imports, too, if modules ask
    for a GPU when they are loaded). Contexts may lie within each other: an inner one shares the
    outer one's settings, and what it sees the outer one sees, too.

    Parameters
    ----------
    configs : int
        The most configurations of an autotuned kernel that run for each key.
    seed : int
        Of the shuffled order.
    updates : sequence of str
        Arguments of kernels that may be written, though a custom operation does not declare it.

    Yields
    ------
    Seen
        Filled when the context ends.

    Raises
    ------
    triton.runtime.errors.InterpreterError
        From the launch, if a kernel raises; that is among the violations, too.
    """
    with contextlib.ExitStack() as stack:
        if not _programs:
            interpreter.install()
            program = _Program(configs, seed, updates)
            stack.enter_context(pretend_gpu())
            stack.enter_context(program.configurations.chosen())
            stack.enter_context(program.watch.watching())
            _programs.append(program)
            stack.callback(_programs.clear)
        watch = _programs[-1].watch
        before = watch.violations, watch.kernels, watch.n_launches, watch.n_accesses
        watch.violations, watch.kernels = {}, set()
        seen = Seen()
        try:
            yield seen
        finally:
            seen.violations = list(watch.violations.values())
            seen.kernels = watch.kernels
            seen.n_launches = watch.n_launches - before[2]
            seen.n_accesses = watch.n_accesses - before[3]
            counts = _programs[-1].configurations.counts()
            seen.configurations = {k: n for k, n in counts.items() if k in seen.kernels}
            watch.violations = before[0] | {
                key: v for key, v in watch.violations.items() if key not in before[0]
            }
            watch.kernels = before[1] | watch.kernels


def is_command(words: list[str]) -> bool:
    """Say whether words on the command line begin with a program, and not with an operation.

    Parameters
    ----------
    words : list of str
    """
    return bool(words) and bool(_PROGRAMS.fullmatch(Path(words[0]).name))


def run_command(
    command: list[str],
    *,
    configs: int = CONFIGURATIONS,
    seed: int = 0,
    updates: Sequence[str] = (),
) -> Outcome:
    """Run a Python program in this process, and watch it.

    Parameters
    ----------
    command : list of str
        "python", and a script or "-m" and a module, or "-c" and code, and their arguments; or
        "pytest" and its arguments.
    configs, seed, updates
        As in `watching`.

    Returns
    -------
    Outcome

    Raises
    ------
    ValueError
        If the command is not one of these.
    """
    program = _parse(command)
    with watching(configs=configs, seed=seed, updates=updates) as seen:
        code = _execute(*program)
    return Outcome(seen, code)


def execute(command: list[str]) -> int:
    """Run a Python program in this process, unwatched.

    Parameters
    ----------
    command : list of str
        As in `run_command`.

    Returns
    -------
    int
        Its exit code.

    Raises
    ------
    ValueError
        As in `run_command`.
    """
    return _execute(*_parse(command))


def run_natively(command: list[str], *, checked: bool = True) -> int:
    """Run a program whose kernels want a GPU as `execute` does, compiled for the CPU.

    Parameters
    ----------
    command : list of str
        As in `execute`.
    checked : bool
        Whether an access beyond a tensor is an error; without, it may end the process.

    Returns
    -------
    int
        The program's exit code.
    """
    program = _parse(command)  # A command that makes no sense is refused before anything else.
    with pretend_gpu(compiled=True), contextlib.nullcontext() if checked else native.unchecked():
        return _execute(*program)


def _execute(how: str, what: str, arguments: list[str]) -> int:
    before = sys.argv, sys.path[:]
    if (how, what) == ("m", "pytest"):
        arguments = [*_NOT_TOLD, *arguments]
    sys.argv = [what if how == "script" else "-" + how, *arguments]
    sys.path.insert(0, str(Path(what).resolve().parent) if how == "script" else os.getcwd())
    try:
        if how == "script":
            runpy.run_path(what, run_name="__main__")
        elif how == "m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as ending:
        return _exit_code(ending)
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        sys.argv, sys.path[:] = before
    return 0


def _parse(command: list[str]) -> tuple[str, str, list[str]]:
    """Tell how a program is run ("script", "m" or "c"), what is run, and its arguments."""
    program, *rest = command
    if Path(program).name in ("pytest", "py.test"):
        return "m", "pytest", rest
    while rest:
        first, *rest = rest
        if first in ("-m", "-c") and rest:
            return first[1:], rest[0], rest[1:]
        if not first.startswith("-"):
            if not Path(first).is_file():
                refuse("command", "a script that exists", repr(first))
            return "script", first, rest
        if first in ("-X", "-W"):
            rest = rest[1:]
    refuse(
        "command",
        "python script.py, python -m module, or pytest, each with its arguments",
        repr(" ".join(command)),
        "another program starts Python itself, where launches are not seen",
    )


def _exit_code(ending: SystemExit) -> int:
    """Return what a process that ends so would return, and say what it would say."""
    if ending.code is None or isinstance(ending.code, int):
        return int(ending.code or 0)
    print(ending.code, file=sys.stderr)
    return 1
