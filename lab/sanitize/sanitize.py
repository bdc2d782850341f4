"""Sanitize: run kernels in the interpreter, watch every access of memory, and name what is wrong.

A target is one call of an operation or of a person's own driver. `watch.py` runs each of its
launches twice; what the target returns must be written by the end.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from triton.runtime.errors import InterpreterError

from .autotuned import CONFIGURATIONS, Configurations
from .storages import Storage, Storages, element_positions
from .violation import KINDS, Violation
from .watch import Watch


class TargetError(Exception):
    """A target does not do what it should; what its kernels did is reported all the same."""


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
        Launches, each configuration counted, and their loads, stores and atomics.
    configurations : dict
        For each autotuned kernel how many of its configurations have run, and how many it has.
    problem : str
        What the target itself raised; "" if it came to its end.
    """

    violations: list[Violation]
    kernels: set[str]
    n_launches: int
    n_accesses: int
    configurations: dict[str, tuple[int, int]]
    problem: str = ""


def sanitize(
    target: Target, seed: int = 0, configs: int = CONFIGURATIONS, updates: Sequence[str] = ()
) -> Report:
    """Run a target and find what is wrong with its kernels.

    Parameters
    ----------
    target : Target
        What to run.
    seed : int
        Of the shuffled order.
    configs : int
        The most configurations of an autotuned kernel that run for each key.
    updates : sequence of str
        Arguments of kernels that may be written, though they hold a caller's data.

    Returns
    -------
    Report
    """
    watch = Watch(Storages(), target.is_input, seed, updates)
    watch.name = target.name
    configurations = Configurations(watch, configs)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (what a person's driver uses)
    problem = ""
    try:
        with watch.watching(), configurations.chosen():
            results = target.run(watch.storages)
    except InterpreterError:
        pass  # the kernel raised, and the watch has taken that up
    except TargetError as error:
        problem = str(error)
    else:
        allowed = {watch.storages.of(tensor) for tensor in target.may_update(results)}
        for key, storages in watch.inputs_written.items():
            if storages <= allowed:
                del watch.violations[key]
        for name, tensor in results.items():
            find_unwritten(watch, tensor, name)
    for violation in watch.violations.values():
        violation.case = violation.case or target.name
    violations = list(watch.violations.values())
    return Report(
        violations, watch.kernels, watch.n_launches, watch.n_accesses,
        configurations.counts(), problem,
    )  # fmt: skip


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
