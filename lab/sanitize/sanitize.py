"""Sanitize: run kernels in the interpreter, watch every access of memory, and name what is wrong.

A target is one call of an operation or of a person's own driver. `watch.py` runs each of its
launches twice; what the target returns must be written by the end.
"""

import dataclasses
from typing import Protocol

import numpy as np
import torch
from triton.runtime.errors import InterpreterError

from .storages import Storage, Storages, element_positions
from .violation import KINDS, Violation
from .watch import Watch


class Target(Protocol):
    """Something that launches kernels.

    Attributes
    ----------
    name : str
        In a few words.
    """

    name: str

    def run(self, storages: Storages) -> dict[str, torch.Tensor]:
        """Launch, and return the results by name."""

    def is_input(self, storage: Storage) -> bool:
        """Say whether memory is not to be written."""

    def may_update(self, results: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Name the inputs that may be written after all."""


@dataclasses.dataclass
class Report:
    """What the runs of one target showed.

    Attributes
    ----------
    violations : list of Violation
        One for each kind, line and tensor.
    kernels : set of str
        The kernels that were launched.
    n_launches, n_accesses : int
        Of the first run.
    """

    violations: list[Violation]
    kernels: set[str]
    n_launches: int
    n_accesses: int


def sanitize(target: Target, seed: int = 0) -> Report:
    """Run a target and find what is wrong with its kernels.

    Parameters
    ----------
    target : Target
        What to run.
    seed : int
        Of the shuffled order.

    Returns
    -------
    Report
    """
    watch = Watch(Storages(), target.is_input, seed)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (what a person's driver uses)
    try:
        with watch.watching():
            results = target.run(watch.storages)
    except InterpreterError:
        pass  # the kernel raised, and the watch has taken that up
    else:
        allowed = {watch.storages.of(tensor) for tensor in target.may_update(results)}
        for key, storages in watch.inputs_written.items():
            if storages <= allowed:
                del watch.violations[key]
        for name, tensor in results.items():
            find_unwritten(watch, tensor, name)
    violations = list(watch.violations.values())
    for violation in violations:
        violation.case = target.name
    return Report(violations, watch.kernels, watch.n_launches, watch.n_accesses)


def find_unwritten(watch: Watch, tensor: torch.Tensor, name: str = "") -> None:
    """Report a result with bytes that nothing has written.

    Parameters
    ----------
    watch : Watch
        That watched the launches.
    tensor : torch.Tensor
        The result.
    name : str
        What it is called, if it has a name.
    """
    storage = watch.storages.of(tensor)
    writer = storage.last_write or storage.last_user or watch.last_launch
    if storage.unwritten is None or writer is None:
        return
    positions = tensor.data_ptr() - storage.start + element_positions(tensor)
    unwritten = np.flatnonzero(storage.is_unwritten(positions, tensor.element_size()))
    if not len(unwritten):
        return
    violation = Violation(
        kind="unwritten result",
        kernel=writer.kernel,
        where=writer.where,
        program=writer.program,
        access="",
        tensor=writer.argument or name or "result",
        index=tuple(map(int, np.unravel_index(unwritten[0], tensor.shape))),
        bounds=f"shape {list(tensor.shape)}",
        detail=f"result {name}" if name else "",
        cause=KINDS["unwritten result"][1],
        count=len(unwritten),
    )
    watch.violations.setdefault(violation.key, violation)
