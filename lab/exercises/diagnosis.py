"""Say in a student's terms what an instrument has found: which tile, which lane, which rule."""

import dataclasses
from typing import Any

import numpy as np
import torch

from ...kernels.interpreter import Access
from ..sanitize.violation import KINDS, Violation
from .exercise import Exercise, Tensors

# The rule behind each kind of finding.
RULES = {
    "out of bounds": "a tile is whole, the data seldom is: a mask says which lanes are inside",
    "outside the view": "the next row begins one stride further, not one row's length",
    "unwritten read": "memory holds anything until something is stored there",
    "unwritten result": "every element of the result belongs to some program: count the programs "
    "(`triton.cdiv` rounds up) and look where each one's tile begins",
    "write to an input": "arguments belong to the caller: results go into memory of their own",
    "write race": "programs run in any order, at the same time: no two may write one address. "
    "Each one's tile begins at its own `tl.program_id`",
    "read race": "programs run in any order, at the same time: none may read what another writes",
    "thread race": "a program's threads run in any order, too: what one stores, another must not "
    "still have to load",
    "duplicate lanes": "the lanes of one store need addresses that differ",
    "undefined lane": "a lane that a mask leaves out of a load holds anything: give `other=`, a "
    "value that changes nothing in what follows (0 in a sum, -inf in a maximum)",
    "order dependence": "programs run in any order: none may count on another having run",
    "failure": "",
}
# Of an element, in units of its last place: a sum in another order; one rounding, at the store.
ROUNDINGS = {"float32": 16, "float16": 2}


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A call of `solve`, and what should have come.

    Attributes
    ----------
    exercise : Exercise
    case : object
        One of `Exercise.cases`.
    dtype : str
    arguments : dict
        By name, in float64.
    results : tuple of torch.Tensor
        What `solve` returned.
    stores : list of Access
        In order.
    """

    exercise: Exercise
    case: Any
    dtype: str
    arguments: Tensors
    results: tuple[torch.Tensor, ...]
    stores: list[Access]

    @property
    def first_wrong(self) -> tuple[int, tuple[int, ...]] | None:
        """The first wrong result and the element in it; None if all is right."""
        for i, wrong in enumerate(self.wrong_elements(self.exercise.reference)):
            if wrong.any():
                found = np.argwhere(wrong.numpy())
                return i, tuple(map(int, found[0])) if found.shape[1] else ()
        return None

    def wrong_elements(self, function: Any) -> list[torch.Tensor]:
        """Tell for each result which elements are not a function's; a wrong shape: all."""
        expected, allowed = self.values_of(function)
        return [
            torch.ones(got.shape, dtype=torch.bool)
            if got.shape != value.shape
            else ~_close(got.double(), value, room)
            for got, value, room in zip(self.results, expected, allowed, strict=True)
        ]

    def values_of(self, function: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Evaluate a function in float64, and say how far a kernel may be from it.

        Allowed is four times the worst error of the same in float32, rounded to the dtype, and a
        few roundings of the element itself.
        """
        exact = _results(function, self.arguments)
        floats = {name: _to_float32(value) for name, value in self.arguments.items()}
        dtype = getattr(torch, self.dtype)
        allowed = []
        for value, rounded in zip(exact, _results(function, floats), strict=True):
            if not value.is_floating_point():
                allowed.append(torch.zeros(value.shape, dtype=torch.float64))
                continue
            error = (rounded.to(dtype).double() - value).abs()
            worst = error[error.isfinite()].max() if error.isfinite().any() else 0.0
            allowed.append(4 * worst + ROUNDINGS[self.dtype] * torch.finfo(dtype).eps * value.abs())
        return [value.double() for value in exact], allowed

    def writer(self, result: int, index: tuple[int, ...]) -> Access | None:
        """Find the store that wrote an element last."""
        tensor = self.results[result]
        offset = sum(i * stride for i, stride in zip(index, tensor.stride(), strict=True))
        address = tensor.data_ptr() + offset * tensor.element_size()
        for access in reversed(self.stores):
            if ((access.addresses == address) & access.mask).any():
                return access
        return None


def _results(function: Any, arguments: Tensors) -> tuple[torch.Tensor, ...]:
    results = function(**arguments)
    return results if isinstance(results, tuple) else (results,)


def _to_float32(value: Any) -> Any:
    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value


def _close(got: torch.Tensor, value: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    same = (got == value) | (got.isnan() & value.isnan())
    return same | ((got - value).abs() <= room)


def of_violation(found: Violation, lines: list[str]) -> str:
    """Say what the sanitizer has found.

    Parameters
    ----------
    found : Violation
    lines : list of str
        The student's file.

    Returns
    -------
    str
    """
    line = int(found.where.rpartition(":")[2] or 0)
    said = [f"line {line}, program {found.program}: {KINDS[found.kind][0]}"]
    if 0 < line <= len(lines):
        said.append(f"    {lines[line - 1].strip()}")
    if found.index:
        element = f"{found.tensor or 'memory'}[{', '.join(map(str, found.index))}]"
        said.append(f"    {found.access or 'at'} {element}; {found.bounds}")
    said += [f"    {found.detail}"] if found.detail else []
    rule = RULES.get(found.kind, found.cause)
    said += [f"    rule: {rule}"] if rule else []
    return "\n".join(said)


def of_numbers(exercise: Exercise, attempts: list[Attempt], lines: list[str]) -> str:
    """Say what is wrong with the numbers, and why if a known misunderstanding computes them.

    Parameters
    ----------
    exercise : Exercise
    attempts : list of Attempt
        One for each case and dtype; at least one is wrong.
    lines : list of str
        The student's file.

    Returns
    -------
    str
    """
    wrong = [attempt for attempt in attempts if attempt.first_wrong]
    said = [_first_wrong(wrong[0], lines)]
    precise = [attempt for attempt in wrong if attempt.dtype == exercise.dtypes[0]]
    if not precise:
        said.append(
            f"    all is right in {exercise.dtypes[0]}: a sum that is kept in {wrong[0].dtype} "
            "stops growing when what is added is less than half a unit of its last place. "
            "rule: load, `.to(tl.float32)`, and round once, at the store"
        )
        return "\n".join(said)
    for mistake in exercise.mistakes:
        if not any(w.any() for a in precise for w in a.wrong_elements(mistake.function)):
            said.append(f"    {mistake.says}")
            return "\n".join(said)
    right = [attempt.case for attempt in attempts if attempt not in wrong]
    if right:
        said.append(f"    right, on the other hand: {', '.join(map(str, right))}")
    return "\n".join(said)


def _first_wrong(attempt: Attempt, lines: list[str]) -> str:
    """Name the first wrong element, what it should be, and the store that wrote it."""
    assert attempt.first_wrong is not None
    result, index = attempt.first_wrong
    name, got = attempt.exercise.results[result], attempt.results[result]
    expected = attempt.values_of(attempt.exercise.reference)[0][result]
    if got.shape != expected.shape:
        return f"{name} has shape {list(got.shape)}; it should have {list(expected.shape)}"
    n_wrong = int(attempt.wrong_elements(attempt.exercise.reference)[result].sum())
    element = f"{name}[{', '.join(map(str, index))}]" if index else name
    said = (
        f"{attempt.case}, {attempt.dtype}: {n_wrong} of {got.numel()} elements of {name} are "
        f"wrong; {element} is {got[index].item():.6g} and should be {expected[index].item():.6g}"
    )
    writer = attempt.writer(result, index)
    if writer is None:
        return said
    line = int(writer.where.rpartition(":")[2])
    shown = f": {lines[line - 1].strip()}" if 0 < line <= len(lines) else ""
    return f"{said}\n    program {writer.program} wrote it at line {line}{shown}"
