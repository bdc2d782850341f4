"""From a counterexample's numbers to a launch that anyone can run: sizes, strides, data, programs.

What is made here is plain data, so that another process can run it (`replay`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from ..launches import compile as front_end
from ..symbolic.terms import Poly
from ..symbolic.values import FLOATS
from .questions import Finding, Questions

MOST_ELEMENTS, MOST_PROGRAMS = 2**22, 2**12
Model = Mapping[str, int | bool]


@dataclasses.dataclass(frozen=True)
class TensorLike:
    """A tensor to be made.

    Attributes
    ----------
    shape, strides : tuple of int
    dtype : str
    fill : int or None
        Of integers; None for random floats.
    contents : dict of int to number
        Of single elements, by their offsets.
    result : bool
        Whether the kernel writes it and reads it nowhere: it begins unwritten.
    whole : bool
        Whether all of it must be written.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    fill: int | None
    contents: dict[int, float]
    result: bool
    whole: bool


@dataclasses.dataclass(frozen=True)
class Replay:
    """A launch to be run.

    Attributes
    ----------
    module, path, kernel : str
        Where the kernel is: a module's name, or a file that was loaded by its path.
    arguments : dict of str to object
        As in `compile.arguments`: numbers, and `TensorLike`.
    template : tuple
        The call's own arguments, into which those are put.
    constants : dict
    grid : tuple of int
    programs : tuple of tuple of int
        Those of the counterexample.
    turns : tuple of int
        Of loops, likewise.
    vast : bool
        Too large to be run: programs and turns of the counterexample alone, without memory.
    """

    module: str
    path: str
    kernel: str
    arguments: dict[str, Any]
    template: tuple[Any, ...]
    constants: dict[str, Any]
    grid: tuple[int, ...]
    programs: tuple[tuple[int, ...], ...]
    turns: tuple[int, ...]
    vast: bool


def launch_of(questions: Questions, finding: Finding) -> Replay:
    """Make a launch of a counterexample.

    Parameters
    ----------
    questions : Questions
    finding : Finding
        With a model.

    Returns
    -------
    Replay
    """
    problem, model = questions.problem, finding.model
    number = Numbers(questions, model)
    function = problem.call.function.fn
    grid = tuple(number(p) for p in problem.walk.grid)
    tensors = {
        name: _tensor(questions, number, name, value)
        for name, value in front_end.arguments(problem.call).items()
        if isinstance(value, torch.Tensor)
    }
    numbers = {name: number(p) for name, p in problem.parameters.items()}
    elements = [_reach(t) for t in tensors.values()]
    vast = max([1, *elements]) > MOST_ELEMENTS or grid[0] * grid[1] * grid[2] > MOST_PROGRAMS
    programs = [tuple(number(p, mark) for p in problem.walk.programs) for mark in ("", "'")]
    turns = {int(value) for name, value in model.items() if name.rstrip("'") in problem.walk.loops}
    return Replay(
        function.__module__, function.__code__.co_filename, function.__name__,
        {**tensors, **numbers}, _without_tensors(problem.call.arguments), problem.call.constants,
        grid, tuple(dict.fromkeys(programs)), tuple(sorted(turns)), vast,
    )  # fmt: skip


class Numbers:
    """Evaluates polynomials with a counterexample's numbers."""

    def __init__(self, questions: Questions, model: Model) -> None:
        self.unknowns, self.model = questions.unknowns, model

    def __call__(self, x: Poly, mark: str = "") -> int:
        """Evaluate; `mark` says whose unknowns they are."""
        total = 0
        for monomial, c in x.terms.items():
            for name in monomial:
                c *= self.of(name, mark)
            total += c
        return total

    def of(self, name: str, mark: str = "") -> int:
        """Return an unknown's number; one that plays no part has the least that it may have."""
        known = self.unknowns.by_name[name]
        marked = name if known.uniform else name + mark
        if marked in self.model:
            return int(self.model[marked])
        low, high = known.bounds
        return low if low is not None else min(high or 0, 0)


def _tensor(questions: Questions, number: Numbers, leaf: str, value: torch.Tensor) -> TensorLike:
    problem = questions.problem
    name = leaf.removesuffix(".ptr")
    tensor = problem.tensors.get(name)
    shape = tuple(max(number(n), 0) for n in tensor.shape) if tensor else (64,)
    strides = tuple(number(s) for s in tensor.strides) if tensor else (1,)
    accesses = [a for a in problem.walk.accesses if a.base == name]
    result = bool(accesses) and all(a.kind == "store" for a in accesses)
    dtype = str(value.dtype).removeprefix("torch.")
    fill = None
    if not value.is_floating_point():
        low, _ = problem.reading.limits(name)
        fill = number(low) if low is not None else 1
    contents: dict[int, float] = {}
    for mark in ("", "'"):
        contents |= _contents(questions, number, name, mark, is_float=value.is_floating_point())
    whole = result and name not in problem.contract.partly
    return TensorLike(shape, strides, dtype, fill, contents, result, whole)


def _contents(
    questions: Questions, number: Numbers, name: str, mark: str, *, is_float: bool
) -> dict[int, float]:
    """Say what a counterexample has in single elements of a tensor."""
    found: dict[int, float] = {}
    codes = {code: value for value, code in FLOATS.items()}
    for label, (access, index) in questions.walk.read.items():
        if access.base != name or label + mark not in number.model:
            continue
        held = number.model[label + mark]
        offset = number(access.pointer.at(index), mark)
        if not is_float:
            found[offset] = int(held)
        elif held in codes:
            found[offset] = codes[int(held)]
    return found


def _reach(tensor: TensorLike) -> int:
    if 0 in tensor.shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))


def _without_tensors(value: Any) -> Any:
    """Leave out of arguments what another process cannot be given."""
    if isinstance(value, tuple):
        parts = [_without_tensors(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return "a tensor" if isinstance(value, torch.Tensor) else value
