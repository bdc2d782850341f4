"""Sanitize: run kernels in the interpreter, watch every access of memory, and name what is wrong.

A target, one call of an operation or of a person's own driver, runs twice. In the first run the
programs come in order, and a lane that a load's mask leaves out is poison. In the second they are
shuffled, and such lanes are 0 and 100 in turn. What each launch leaves in memory must be the same,
bit for bit; if it is not, a third run, shuffled and with poison, tells the two apart.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from triton.runtime.errors import InterpreterError

from ...kernels import interpreter
from .storages import Storage, Storages, element_positions
from .violation import KINDS, Violation, bounds_of
from .watch import Done, Watch, Written


class Target(Protocol):
    """Something that launches kernels.

    Attributes
    ----------
    name : str
        In a few words.
    """

    name: str

    def run(self, storages: Storages) -> dict[str, torch.Tensor]:
        """Launch, and return the results by name; the same at every call."""

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
    first = _run(target, range)
    if not first.failed:
        _find_unwritten(first)
        with interpreter.undefined_as(_numbers):
            second = _run(target, _shuffle(seed))
        for key, violation in second.watch.violations.items():
            if violation.kind in ("failure", "out of bounds") and key not in first.watch.violations:
                violation.detail += " (programs shuffled, undefined lanes 0 and 100)"
                first.watch.violations[key] = violation
        difference = _difference(first.watch, second.watch)
        if difference is not None:
            kind = "order dependence"
            if any(done.careless for done in first.watch.done):
                third = _run(target, _shuffle(seed))
                still = _difference(first.watch, third.watch)
                kind = "undefined lane" if still is None else kind
                difference = still or difference
            _find_difference(first.watch, kind, *difference)
    violations = list(first.watch.violations.values())
    for violation in violations:
        violation.case = target.name
    done = first.watch.done
    return Report(violations, {d.launch.kernel for d in done}, len(done), first.watch.n_accesses)


# --- runs -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Run:
    watch: Watch
    results: dict[str, torch.Tensor]
    failed: bool


def _run(target: Target, order: Callable[[int], Sequence[int]]) -> _Run:
    watch = Watch(Storages(), target.is_input, order)
    results: dict[str, torch.Tensor] = {}
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (what a person's driver uses)
    try:
        with watch.watching(), _unwritten_memory_is_nan():
            results = target.run(watch.storages)
    except InterpreterError as error:
        _find_failure(watch, error)
        return _Run(watch, results, failed=True)
    allowed = {watch.storages.of(tensor) for tensor in target.may_update(results)}
    for key, storages in watch.inputs_written.items():
        if storages <= allowed:
            del watch.violations[key]
    return _Run(watch, results, failed=False)


def _shuffle(seed: int) -> Callable[[int], Sequence[int]]:
    """Shuffle so that the first and the last program change their order, too."""
    generator = np.random.default_rng(seed)

    def order(n: int) -> Sequence[int]:
        shuffled = generator.permutation(n).tolist()
        first_is_earlier = n > 1 and shuffled.index(0) < shuffled.index(n - 1)
        return shuffled[::-1] if first_is_earlier else shuffled

    return order


def _numbers(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Fill undefined lanes with small numbers and large ones, where poison is below or beyond."""
    lanes = np.arange(int(np.prod(shape))).reshape(shape)
    return interpreter.narrow(np.where(lanes % 2, 100, 0), dtype).data


@contextlib.contextmanager
def _unwritten_memory_is_nan() -> Iterator[None]:
    """Let PyTorch fill what `torch.empty` returns with NaN, so that equal runs stay equal."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


# --- after a run ----------------------------------------------------------------------------------


_FAILURE = re.compile(r"(.*): kernel \w+, program \((\d+), (\d+), (\d+)\), at (.*)", re.DOTALL)


def _find_failure(watch: Watch, error: InterpreterError) -> None:
    """Report what a kernel raised; the interpreter adds where that was."""
    found = _FAILURE.fullmatch(str(error))
    assert found is not None, error
    message, x, y, z, where = found.groups()
    kernel = watch.done[-1].launch.kernel
    violation = Violation(
        "failure", kernel, where, (int(x), int(y), int(z)), "", "", (), "", message, ""
    )
    watch.violations[violation.key] = violation


def _find_unwritten(run: _Run) -> None:
    """Find results with bytes that nothing has written."""
    watch = run.watch
    for name, tensor in run.results.items():
        storage = watch.storages.of(tensor)
        if storage.unwritten is None or not watch.done:
            continue
        positions = tensor.data_ptr() - storage.start + element_positions(tensor)
        unwritten = np.flatnonzero(storage.is_unwritten(positions, tensor.element_size()))
        if not len(unwritten):
            continue
        done, argument, where = _last_user(watch, storage)
        violation = Violation(
            kind="unwritten result",
            kernel=done.launch.kernel,
            where=where,
            program=done.clock.moments[-1][0],
            access="",
            tensor=argument or name or "result",
            index=tuple(map(int, np.unravel_index(unwritten[0], tensor.shape))),
            bounds=f"shape {list(tensor.shape)}",
            detail=f"result {name}" if name else "",
            cause=KINDS["unwritten result"][1],
            count=len(unwritten),
        )
        watch.violations[violation.key] = violation


def _last_user(watch: Watch, storage: Storage) -> tuple[Done, str, str]:
    """Find the launch that wrote a storage last, the argument and the line; or who was given it."""
    for done in reversed(watch.done):
        for written in done.written:
            if written.argument.storage is storage:
                tick = max(written.shadow.writer.max(), written.shadow.atomic.max())
                return done, written.argument.name, done.clock.moments[tick][1]
    for done in reversed(watch.done):
        for argument in done.arguments:
            if argument.storage is storage:
                return done, argument.name, done.launch.where
    return watch.done[-1], "", watch.done[-1].launch.where


def _difference(first: Watch, second: Watch) -> tuple[Done, Written, int] | None:
    """Find the first byte that a launch left in memory otherwise than in the first run."""
    for one, other in zip(first.done, second.done, strict=False):
        for mine, its in zip(one.written, other.written, strict=False):
            if mine.memory.shape == its.memory.shape:
                different = np.flatnonzero(mine.memory != its.memory)
                if len(different):
                    return one, mine, int(different[0])
    return None


def _find_difference(watch: Watch, kind: str, done: Done, written: Written, byte: int) -> None:
    """Report a byte that differs, unless its launch is known for that already."""
    if any(f.kind == kind and f.kernel == done.launch.kernel for f in watch.violations.values()):
        return
    shadow, argument = written.shadow, written.argument
    cell = byte // shadow.unit
    program, where = done.clock.moments[max(shadow.writer[cell], shadow.atomic[cell])]
    violation = Violation(
        kind=kind,
        kernel=done.launch.kernel,
        where=where,
        program=program,
        access="",
        tensor=argument.name,
        index=argument.index(argument.storage.start + cell * shadow.unit),
        bounds=bounds_of(argument),
        detail=done.left_undefined() if kind == "undefined lane" else "",
        cause=KINDS[kind][1],
    )
    watch.violations[violation.key] = violation
