"""What a kernel does beside its accesses, told to instruments: barriers, and values undefined."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from .location import source_line
from .patches import extends
from .values import poison


@dataclasses.dataclass(frozen=True)
class Event:
    """One thing that one program did.

    Attributes
    ----------
    kind : str
        "barrier"; "exchange", where a program's threads meet to exchange values; or why a value is
        undefined: "division by zero", "shift".
    program : tuple of int
        The program's index in the grid, (x, y, z).
    where : str
        The kernel's source line, "file:line"; of an exchange "".
    """

    kind: str
    program: tuple[int, int, int]
    where: str


Listener = Callable[[Event], None]
_listeners: list[Listener] = []
# Gives an array of a type and a shape.
Filler = Callable[[tl.dtype, tuple[int, ...]], np.ndarray]
_undefined: list[Filler] = [lambda dtype, shape: np.full(shape, poison(dtype))]
_left_out: list[bool] = []


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Call `listener` with every event of the kernels that are launched meanwhile.

    Parameters
    ----------
    listener : callable
        Receives one :class:`Event`.
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def undefined_as(filler: Filler) -> Iterator[None]:
    """Let undefined values be what `filler` returns, instead of poison, while the context lasts.

    Parameters
    ----------
    filler : callable
        Returns an array of the given type and shape.

    Notes
    -----
    A kernel that depends on no undefined value does the same with any two fillers. That finds what
    poison does not: an undefined integer looks like any other, and a comparison decides quietly.
    """
    _undefined.append(filler)
    try:
        yield
    finally:
        _undefined.pop()


@contextmanager
def leaving_out_undefined() -> Iterator[None]:
    """Let undefined floats take no part in sums, maxima, minima and products, meanwhile."""
    _left_out.append(True)
    try:
        yield
    finally:
        _left_out.pop()


def left_out(values: np.ndarray, lost: np.ndarray, neutral: float) -> np.ndarray:
    """Replace undefined values by what changes nothing, if a context of the above lasts.

    Parameters
    ----------
    values : numpy.ndarray of floats
    lost : numpy.ndarray of bool
        Which of them are undefined.
    neutral : float
        0 for a sum, -inf for a maximum.
    """
    return np.where(lost, values.dtype.type(neutral), values) if _left_out else values


def undefined(dtype: tl.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return values that nobody can know.

    Parameters
    ----------
    dtype : triton.language.dtype
        Their type.
    shape : tuple of int
    """
    return _undefined[-1](dtype, shape)


def tell(kind: str) -> None:
    """Tell the listeners that the running program does something.

    Parameters
    ----------
    kind : str
        As in `Event`.
    """
    if _listeners:
        where = "" if kind == "exchange" else source_line()  # there are many
        event = Event(kind, upstream.interpreter_builder.grid_idx, where)
        for listener in _listeners:
            listener(event)


@extends("InterpreterBuilder.create_barrier")
def _barrier(original, self, *args):
    tell("barrier")
    return original(self, *args)
