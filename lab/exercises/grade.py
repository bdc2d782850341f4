"""Grade a student's file by four looks: does it run, what does it touch, is it right, what is read.

Each look is an instrument of this project. The first that finds something ends the grading, since
what the others would find is its consequence.
"""

import ast
import dataclasses
import itertools
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from triton.runtime.errors import InterpreterError

from ...core.checks import refuse
from ...kernels.interpreter import Access, observe
from ..pretend.gpu import pretend_gpu
from ..sanitize.drivers import load
from ..sanitize.sanitize import TargetError, sanitize
from ..sanitize.storages import Storage, Storages
from .diagnosis import Attempt, of_numbers, of_violation
from .exercise import Exercise, Tensors
from .hand_out import find, open_holes

MOST_FINDINGS = 3  # a student mends one after the other


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a grading found.

    Attributes
    ----------
    name : str
        The exercise.
    look : str
        The look that found something: "runs", "memory", "numbers" or "reads"; "" if none did.
    messages : tuple of str
        What is wrong, in a student's terms.
    """

    name: str
    look: str = ""
    messages: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.look


def grade(path: str, name: str | None = None, on: str = "interpreter") -> Verdict:
    """Grade a file.

    Parameters
    ----------
    path : str
        The student's file.
    name : str, optional
        The exercise; default: the name before the colon in the file's first line.
    on : str
        "interpreter", or "native": compiled, where races and reads do not show.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If there is no such file, exercise or way to run it.
    """
    if on not in LOOKS_ON:
        refuse("on", " or ".join(LOOKS_ON), repr(on))
    file = Path(path)
    if not file.is_file() or file.suffix != ".py":
        refuse("file", "a Python file, as `gptwin exercise NAME` writes it", path)
    text = file.read_text(encoding="utf-8")
    name = name or _name_in(text)
    exercise = find(name)
    for look, find_faults in LOOKS_ON[on].items():
        messages = tuple(find_faults(exercise, path, text))
        if messages:
            return Verdict(name, look, messages[:MOST_FINDINGS])
    return Verdict(name)


def _name_in(text: str) -> str:
    """Read which exercise a file is for in its first line, which is left as it was handed out."""
    first = text.lstrip().partition("\n")[0].lstrip("\"'# ")
    name, colon, _ = first.partition(":")
    if not colon:
        refuse(
            "file", 'a first line that names the exercise, as in """copy: ..."""', repr(first),
            "the line was changed: name it with --exercise",
        )  # fmt: skip
    return name


def _find_what_keeps_it_from_running(_: Exercise, path: str, text: str) -> Iterator[str]:
    """Yield what must be mended before anything can be launched."""
    try:
        ast.parse(text)
    except SyntaxError as error:
        yield f"line {error.lineno}: this is no Python: {error.msg}"
        return
    for number, line in open_holes(text):
        yield f"line {line}: hole {number} is not filled yet"
    if open_holes(text):
        return
    try:
        module = load(path)
    except RuntimeError as error:
        yield str(error)
        return
    if not callable(getattr(module, "solve", None)):
        yield "there is no function `solve`: the grader calls it as it was handed out"


def _line_in(error: Exception, file: str) -> str:
    """Name the last line of the student's file that an error went through."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"line {lines[-1]}: " if lines else ""


class _Target:
    """One call of a student's `solve`, as the sanitizer takes it."""

    def __init__(self, module: ModuleType, exercise: Exercise, case: Any, dtype: str) -> None:
        self.solve: Callable[..., Any] = module.solve
        self.exercise, self.dtype = exercise, dtype
        self.exact = exercise.draw(case, torch.Generator().manual_seed(0))
        self.name = f"solve, {case}"
        self._inputs: set[Storage] = set()

    def arguments(self) -> Tensors:
        """Make the arguments anew, in the dtype."""
        return {name: _cast(value, self.dtype) for name, value in self.exact.items()}

    def call(self, arguments: Tensors | None = None) -> tuple[Any, ...]:
        """Call `solve`."""
        results = self.solve(**(self.arguments() if arguments is None else arguments))
        return results if isinstance(results, tuple) else (results,)

    def run(self, storages: Storages) -> dict[str, torch.Tensor]:
        """Call `solve`, watched; see `sanitize.Target`."""
        arguments = self.arguments()
        self._inputs = {
            storages.of(value)
            for name, value in arguments.items()
            if torch.is_tensor(value) and name not in self.exercise.updates
        }
        try:
            with pretend_gpu():
                results = self.call(arguments)
        except InterpreterError:
            raise  # the kernel raised, and the sanitizer says where
        except Exception as error:
            where = _line_in(error, str(self.solve.__code__.co_filename))
            raise TargetError(f"{where}solve raised {type(error).__name__}: {error}") from error
        wanted = self.exercise.results
        if len(results) != len(wanted) or not all(map(torch.is_tensor, results)):
            got = ", ".join(type(result).__name__ for result in results)
            raise TargetError(
                f"solve returns {got}, not {', '.join(wanted)}: is a `return` missing?"
            )
        return dict(zip(wanted, results, strict=True))

    def is_input(self, storage: Storage) -> bool:
        """Say whether memory is an argument that must stay as it is; see `sanitize.Target`."""
        return storage in self._inputs

    def may_update(self, results: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Allow nothing more: `Exercise.updates` are no inputs; see `sanitize.Target`."""
        return []


def _cast(value: Any, dtype: str) -> Any:
    """Cast a floating-point tensor; its strides stay, and so do the gaps between elements."""
    if not torch.is_tensor(value) or not value.is_floating_point():
        return value
    span = 1 + sum((n - 1) * stride for n, stride in zip(value.shape, value.stride(), strict=True))
    memory = torch.zeros(span, dtype=getattr(torch, dtype))
    return memory.as_strided(value.shape, value.stride()).copy_(value)


def _find_faults_of_memory(exercise: Exercise, path: str, text: str) -> Iterator[str]:
    """Yield what the sanitizer sees; it lets no access outside happen, so it comes first."""
    module, lines = load(path), text.splitlines()
    for case, dtype in itertools.product(exercise.cases, exercise.dtypes):
        report = sanitize(_Target(module, exercise, case, dtype))
        if report.problem:
            yield report.problem
        elif not report.n_launches:
            yield "solve launches no kernel: write `kernel[grid](...)`"
        for violation in report.violations:
            yield of_violation(violation, lines)
        if report.violations or report.problem or not report.n_launches:
            return


def _find_wrong_numbers(exercise: Exercise, path: str, text: str) -> Iterator[str]:
    """Yield what differs from the reference, and why if that is known."""
    module = load(path)
    attempts = [
        _attempt(_Target(module, exercise, case, dtype), case)
        for dtype in exercise.dtypes
        for case in exercise.cases
    ]
    if any(attempt.first_wrong for attempt in attempts):
        yield of_numbers(exercise, attempts, text.splitlines())


def _attempt(target: _Target, case: Any) -> Attempt:
    """Run one case, and keep each store to tell which program wrote what."""
    stores: list[Access] = []

    def keep_stores(access: Access) -> None:
        if access.kind != "load":
            stores.append(access)

    arguments = target.arguments()
    # What the kernel was given is the truth: rounding the arguments is not its fault.
    exact = _exactly(arguments)
    with pretend_gpu(), observe(keep_stores):
        results = target.call(arguments)
    return Attempt(target.exercise, case, target.dtype, exact, results, stores)


def _exactly(arguments: Tensors) -> Tensors:
    """Take arguments to float64, before a kernel updates them."""
    return {name: _cast(value, "float64") for name, value in arguments.items()}


def _find_faults_compiled(exercise: Exercise, path: str, text: str) -> Iterator[str]:
    """Yield what compiled kernels get wrong."""
    from . import compiled  # needs llvmlite

    yield from compiled.find_faults(exercise, path, text, _Target, _exactly)


def _find_reads(exercise: Exercise, path: str, text: str) -> Iterator[str]:
    """Yield the arguments that are read more often than it takes."""
    target = _Target(load(path), exercise, exercise.cases[-1], exercise.dtypes[0])
    arguments = target.arguments()
    spans = {
        name: (arguments[name].data_ptr(), arguments[name].untyped_storage().nbytes())
        for name in exercise.reads
    }
    loaded = dict.fromkeys(spans, 0)

    def count(access: Access) -> None:
        addresses = access.addresses[access.mask].astype(np.int64)
        for name, (start, size) in spans.items():
            if access.kind == "load":
                loaded[name] += int(((start <= addresses) & (addresses < start + size)).sum())

    with pretend_gpu(), observe(count):
        target.call(arguments)
    for name, allowed in exercise.reads.items():
        times = loaded[name] / arguments[name].numel()
        if times > allowed * (1 + 1e-9):
            yield (
                f"{name} is read {times:.3g} times over where {allowed:.3g} is enough: a load from "
                "memory costs more than all the arithmetic here. Keep the tile in a variable, and "
                "load no tile that nobody needs"
            )


Look = Callable[[Exercise, str, str], Iterator[str]]
LOOKS: dict[str, Look] = {
    "runs": _find_what_keeps_it_from_running,
    "memory": _find_faults_of_memory,
    "numbers": _find_wrong_numbers,
    "reads": _find_reads,
}
LOOKS_ON: dict[str, dict[str, Look]] = {
    "interpreter": LOOKS,
    "native": {"runs": _find_what_keeps_it_from_running, "numbers": _find_faults_compiled},
}
