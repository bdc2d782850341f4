"""Watch a program as it is: a script or a test suite that launches Triton kernels, unchanged.

`watching` is for Python: a context in which "cuda" means the CPU, every launch of a kernel is
checked, and autotuned kernels run with several configurations. `run` is for the command line: it
runs `python script.py ...` or `python -m pytest ...` in this process, inside such a context.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import torch

from ...kernels import interpreter
from .autotuned import Configurations
from .pretend import pretend_gpu
from .sanitize import find_unwritten
from .storages import Storages
from .violation import Violation
from .watch import Watch

CONFIGURATIONS = 3


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


class _Program:
    """The watch over a program, which inner contexts share."""

    def __init__(self, configs: int, seed: int) -> None:
        storages = Storages(self.read)
        # What a plain function may write nobody has declared, so nothing is an input.
        self.watch = Watch(storages, lambda storage: False, seed)
        self.configurations = Configurations(self.watch, configs)

    def read(self, tensor: torch.Tensor) -> None:
        """Find out whether PyTorch reads what a kernel should have written."""
        before = set(self.watch.violations)
        find_unwritten(self.watch, tensor)
        for key in set(self.watch.violations) - before:
            self.watch.violations[key].case = self.watch.describe()


_programs: list[_Program] = []


@contextlib.contextmanager
def watching(*, configs: int = CONFIGURATIONS, seed: int = 0) -> Iterator[Seen]:
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
            program = _Program(configs, seed)
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
            counts = _programs[-1].configurations.run.items()
            seen.configurations = {
                name: (len(run), n) for name, (run, n) in counts if name in seen.kernels
            }
            watch.violations = before[0] | {
                key: v for key, v in watch.violations.items() if key not in before[0]
            }
            watch.kernels = before[1] | watch.kernels
