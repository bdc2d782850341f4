"""Launches: an instrument is told of each, and may run it again, its programs in any order.

Meanwhile every pointer knows its tensor. The 16 upper bits of a 64-bit address are 0 on the CPU;
there each tensor argument's number is put, from 1 on. Pointer arithmetic, broadcasts and
`tl.where` carry it along, so that a pointer that has gone astray still says which tensor it left,
whatever lies where it points. `memory` takes the number off again (:func:`take_apart`) before the
memory is touched. An address that a kernel reads from memory has no number: it is of tensor 0.
"""

import dataclasses
import functools
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from triton.runtime import interpreter as upstream

from ..common.patches import extends, replaces
from .turns import in_turns

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

    def launch(self, launch: Launch, run: Callable[[], None]) -> None:
        """Call `run`, which runs all programs; more than once to see them run again."""

    def order(self, n_programs: int) -> Sequence[int]:
        """Return the programs' numbers in the order in which they are to run."""


class _Following:
    """The follower, and the launch that runs."""

    def __init__(self) -> None:
        self.follower: Follower | None = None
        self.numbers: Iterator[int] = iter(())


_following = _Following()
_one_at_a_time = threading.RLock()


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


@replaces("GridExecutor.__call__")
def _launch(self, *args, **options):
    """Convert the arguments, and run the programs, once or as often as the follower likes.

    Which program runs, and what the language means, Triton keeps in globals: one launch at a time.
    """
    with _one_at_a_time:
        _launch_alone(self, args, options)


def _launch_alone(self: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    options = {name: value for name, value in options.items() if name in self.arg_names}
    host_args, host_options = self._init_args_hst(args, options)
    for hook in self.pre_run_hooks:
        hook(*host_args, **host_options)
    named = inspect.getcallargs(self.fn, *host_args, **host_options)
    run = functools.partial(_run_programs, self, named)
    if _following.follower is None:
        run()
    else:
        tensors = tuple(
            pair
            for name, value in named.items()
            if name not in self.constexprs
            for pair in _tensors(name, value)
        )
        code = self.fn.__code__
        where = f"{code.co_filename}:{code.co_firstlineno}"
        _following.follower.launch(Launch(self.fn.__name__, where, tensors), run)
    self._restore_args_dev(args, host_args, options, host_options)


def _run_programs(executor: Any, named: dict[str, Any]) -> None:
    fn, builder = executor.fn, upstream.interpreter_builder
    builder.kernel_name = fn.__name__
    scope = upstream._patch_lang(fn)
    try:
        # a GPU raises no floating-point exceptions: inf and NaN are values, not warnings
        with np.errstate(all="ignore"):
            _following.numbers = itertools.count(1)
            values = {
                name: value if name in executor.constexprs else upstream._implicit_cvt(value)
                for name, value in named.items()
            }
            grid = executor.grid(values) if callable(executor.grid) else executor.grid
            sizes = tuple(map(int, (*grid, 1, 1)))[: max(len(grid), 3)]
            if len(sizes) > 3:
                raise ValueError(f"grid: expected at most 3 dimensions, got {len(sizes)}")
            builder.set_grid_dim(*sizes)
            follower, n_programs = _following.follower, int(np.prod(sizes))
            order = range(n_programs) if follower is None else follower.order(n_programs)
            programs = [tuple(map(int, np.unravel_index(i, sizes))) for i in order]
            in_turns(programs, functools.partial(fn, **values))
    finally:
        scope.restore()


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
