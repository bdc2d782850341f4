"""Launches: an instrument can be told of each, and decide in which order its programs run.

Meanwhile every pointer knows its tensor. The 16 upper bits of a 64-bit address are 0 on the CPU;
there each tensor argument's number is put, from 1 on. Pointer arithmetic, broadcasts and
`tl.where` carry it along, so that a pointer that has gone astray still says which tensor it left,
whatever lies where it points. `memory` takes the number off again (:func:`take_apart`) before the
memory is touched. An address that a kernel reads from memory has no number: it is of tensor 0.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from triton.runtime import interpreter as upstream

from .patches import extends

_SHIFT = np.uint64(48)
_ADDRESS = np.uint64((1 << 48) - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Launch:
    """One launch.

    Attributes
    ----------
    kernel : str
        Its name.
    where : str
        Where it is defined, "file:line".
    tensors : tuple of (str, torch.Tensor)
        Argument and tensor, as numbered in pointers, from 1 on. A tensor in a tuple is
        "name[0]", or "name.field" in a named one; a tensor descriptor's is the one that it
        describes.
    """

    kernel: str
    where: str
    tensors: tuple[tuple[str, Any], ...]


class Follower(Protocol):
    """What an instrument does at a launch."""

    def start(self, launch: Launch) -> None:
        """Before the first program."""

    def order(self, n_programs: int) -> Sequence[int]:
        """Return the programs' numbers in the order in which they are to run."""

    def finish(self) -> None:
        """After the last program, or when one has failed."""


class _Following:
    """The follower, and the launch that runs."""

    def __init__(self) -> None:
        self.follower: Follower | None = None
        self.numbers: Iterator[int] = iter(())
        self.order: Sequence[int] = ()


_following = _Following()


@contextmanager
def follow(follower: Follower) -> Iterator[None]:
    """Tell `follower` of every launch meanwhile, and number the tensors that pointers come from.

    Parameters
    ----------
    follower : Follower
        One at a time.
    """
    if _following.follower is not None:
        raise RuntimeError("follow: launches are followed already, by another instrument")
    _following.follower = follower
    try:
        yield
    finally:
        _following.follower = None


def take_apart(pointers: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Split pointers into addresses and the numbers of the tensors that they come from.

    Parameters
    ----------
    pointers : numpy.ndarray of uint64
        As a kernel has them.

    Returns
    -------
    tuple of numpy.ndarray
        The same shape twice; None for the numbers if launches are not followed.
    """
    if _following.follower is None:
        return pointers, None
    return pointers & _ADDRESS, (pointers >> _SHIFT).astype(np.int64)


@extends("GridExecutor.__call__")
def _tell(original, self, *args, **options):
    follower = _following.follower
    if follower is None:
        return original(self, *args, **options)
    known = {name: value for name, value in options.items() if name in self.arg_names}
    named = inspect.getcallargs(self.fn, *args, **known)
    tensors = tuple(
        pair
        for name, value in named.items()
        if name not in self.constexprs
        for pair in _tensors(name, value)
    )
    code = self.fn.__code__
    _following.numbers = itertools.count(1)
    follower.start(Launch(self.fn.__name__, f"{code.co_filename}:{code.co_firstlineno}", tensors))
    try:
        return original(self, *args, **options)
    finally:
        follower.finish()


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of an argument, in the order in which upstream makes pointers of them."""
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", ())
        for i, part in enumerate(value):
            yield from _tensors(f"{name}.{fields[i]}" if fields else f"{name}[{i}]", part)
    elif isinstance(value, upstream.TensorDescriptor):
        yield from _tensors(name, value.base)
    elif hasattr(value, "data_ptr"):
        yield name, upstream._unwrap_tensor(value)


@extends("_implicit_cvt")
def _number(original, argument):
    converted = original(argument)
    if _following.follower is not None and hasattr(argument, "data_ptr"):
        number = np.uint64(next(_following.numbers))
        converted.handle.data = converted.handle.data | (number << _SHIFT)
    return converted


@extends("InterpreterBuilder.set_grid_dim")
def _choose_order(original, self, *sizes):
    original(self, *sizes)
    if _following.follower is not None:
        _following.order = _following.follower.order(int(np.prod(sizes)))


@extends("InterpreterBuilder.set_grid_idx")
def _reorder(original, self, *program):
    if _following.follower is not None:
        turn = np.ravel_multi_index(program, self.grid_dim)
        program = tuple(map(int, np.unravel_index(_following.order[turn], self.grid_dim)))
    original(self, *program)
