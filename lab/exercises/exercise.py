"""What an exercise declares."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

Tensors = dict[str, Any]  # arguments of `solve` by name: tensors, and plain numbers


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A misunderstanding, as the function that it computes.

    Attributes
    ----------
    says : str
        What the student is told when the results are this function's.
    function : callable
        As `Exercise.reference`.
    """

    says: str
    function: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A typical wrong answer: the solution with some of its text replaced. Tests the grader.

    Attributes
    ----------
    replace : mapping of str
        Text of the solution to what stands there instead.
    says : str
        A part of the message that the grader must give.
    """

    replace: Mapping[str, str]
    says: str


@dataclasses.dataclass(frozen=True)
class Exercise:
    """One exercise, beside its solution.

    Attributes
    ----------
    level : int
        1, a first load, to 5, a backward pass.
    draw : callable
        Takes a case and a random generator, returns the arguments of `solve` by name, in float64.
    cases : tuple of dict
        What `draw` is asked for: sizes that are no multiple of a tile among them.
    reference : callable
        The same as `solve`, in PyTorch: tensors in, a tensor or a tuple of them out.
    results : tuple of str
        Names for what `solve` returns.
    hints : tuple of str
        Opened one by one.
    mistakes : tuple of Mistake
        Tried in this order where results are wrong.
    wrong : tuple of Wrong
        At least three.
    reads : mapping of str to float
        How many loads of it a whole argument needs, where that is the point: 1 if each element is
        read once.
    updates : tuple of str
        Arguments that `solve` may write.
    broken : mapping of str
        Text of the solution to what is handed out instead: the fault to find. Empty where there
        are holes to fill.
    dtypes : tuple of str
        What floating-point arguments are cast to.
    """

    level: int
    draw: Callable[[Any, Any], Tensors]
    cases: tuple[Any, ...]
    reference: Callable[..., Any]
    results: tuple[str, ...]
    hints: tuple[str, ...]
    mistakes: tuple[Mistake, ...]
    wrong: tuple[Wrong, ...]
    reads: Mapping[str, float] = dataclasses.field(default_factory=dict)
    updates: tuple[str, ...] = ()
    broken: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float32", "float16")
