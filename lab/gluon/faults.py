"""Faults of barriers: each operation of a kernel left out, or done a little wrong.

An operation is known by the calls that lead to it, as if every function were written out where it
is called: a `release` that three places call is three arrivals, and each is left out alone.
"""

import dataclasses
import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any

from triton.experimental.gluon import language as gl

from .language.memory import View
from .language.source import frames

Operation = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Site:
    """One operation, where it is written out.

    Attributes
    ----------
    operation : str
        Such as "wait".
    buffer : str
        The barrier's allocation; "" if there is none.
    chain : tuple of (str, int, int)
        File, line and place of each call that leads to it, the innermost first.
    """

    operation: str
    buffer: str
    chain: tuple[tuple[str, int, int], ...]

    @property
    def lines(self) -> str:
        """The calls' lines, the outermost first."""
        return " > ".join(f"{Path(file).name}:{line}" for file, line, _ in reversed(self.chain))

    @property
    def text(self) -> str:
        """What stands in these lines: it stays the same when lines move."""
        lines = (linecache.getline(file, line).strip() for file, line, _ in reversed(self.chain))
        return " > ".join(lines)


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is done wrong at a site.

    Attributes
    ----------
    site : Site
    kind : str
        One of those in `FAULTS`.
    """

    site: Site
    kind: str

    @property
    def what(self) -> str:
        """Name the operation and its barrier."""
        return f"{self.site.operation} of {self.site.buffer}".removesuffix(" of ")


# --- what can be wrong ----------------------------------------------------------------------------


def _nothing(operation: Operation, *args: Any, **named: Any) -> None:
    """Do nothing."""


def _dependences(operation: Operation, num_outstanding: Any = 0, deps: Any = ()) -> Any:
    """Give what would have been waited for."""
    return deps[0] if len(deps) == 1 else tuple(deps)


def _with(position: int, name: str, change: Callable[[Any], Any]) -> Operation:
    """Make a fault that changes an argument, given by its place or its name."""

    def wrong(operation: Operation, *args: Any, **named: Any) -> Any:
        if name in named:
            return operation(*args, **named | {name: change(named[name])})
        changed = [change(arg) if i == position else arg for i, arg in enumerate(args)]
        if position >= len(args):
            named = named | {name: change(None)}
        return operation(*changed, **named)

    return wrong


def _other_stage(operation: Operation, mbarrier: View, *args: Any, **named: Any) -> Any:
    """Take the next barrier of the same allocation."""
    (position,) = mbarrier.positions.reshape(-1)
    other = (mbarrier.positions * 0) + (position + 1) % mbarrier.allocation.values.size
    return operation(View(mbarrier.allocation, other, gl.int64, mbarrier.layout), *args, **named)


def _number(value: Any) -> int:
    return int(0 if value is None else value)


_one_more = _with(0, "num_outstanding", lambda n: _number(n) + 1)

FAULTS: dict[str, dict[str, Operation]] = {
    "init": {
        "left out": _nothing,
        "count + 1": _with(1, "count", lambda n: int(n) + 1),
        "count - 1": _with(1, "count", lambda n: int(n) - 1),
    },
    "wait": {
        "left out": _nothing,
        "phase flipped": _with(1, "phase", lambda phase: int(phase) ^ 1),
        "next stage": _other_stage,
    },
    "arrive": {
        "left out": _nothing,
        "count + 1": _with(1, "count", lambda n: (1 if n is None else int(n)) + 1),
        "next stage": _other_stage,
    },
    "expect": {
        "left out": _nothing,
        "half the bytes": _with(1, "bytes_per_cta", lambda n: int(n) // 2),
        "twice the bytes": _with(1, "bytes_per_cta", lambda n: int(n) * 2),
        "next stage": _other_stage,
    },
    "invalidate": {"left out": _nothing},
    "fence_async_shared": {"left out": _nothing},
    "warpgroup_mma_wait": {"left out": _dependences, "leaves one more": _one_more},
    "store_wait": {
        "left out": _nothing,
        "leaves one more": _with(0, "pendings", lambda n: _number(n) + 1),
    },
    "commit_group": {"left out": _nothing},
    "wait_group": {"left out": _nothing, "leaves one more": _one_more},
}


class Faults:
    """Lists the faults that a kernel can have, and makes one of them.

    Parameters
    ----------
    made : Fault or None
        The one that is made.
    """

    def __init__(self, made: Fault | None = None) -> None:
        self.made = made
        self.possible: dict[Fault, None] = {}  # in the order in which they are met

    def wrap(self, operation: Operation) -> Operation:
        """Watch an operation of the model.

        Parameters
        ----------
        operation : callable

        Returns
        -------
        callable
            The operation itself, if it can have no fault.
        """
        faults = FAULTS.get(operation.__name__)
        if faults is None:
            return operation

        def call(*args: Any, **named: Any) -> Any:
            site = _site(operation.__name__, args)
            if self.made is None:
                self._note(site, args, named)
            elif self.made.site == site:
                return faults[self.made.kind](operation, *args, **named)
            return operation(*args, **named)

        return call

    def _note(self, site: Site, args: Any, named: Any) -> None:
        for kind in FAULTS[site.operation]:
            barrier = args[0] if args and isinstance(args[0], View) else None
            alone = barrier is not None and barrier.allocation.values.size == 1
            only_one = site.operation == "init" and int(named.get("count", (*args, 1)[1])) == 1
            if not (kind == "next stage" and alone) and not (kind == "count - 1" and only_one):
                self.possible[Fault(site, kind)] = None


def _site(operation: str, args: Any) -> Site:
    buffer = args[0].allocation.name if args and isinstance(args[0], View) else ""
    chain = tuple((f.f_code.co_filename, f.f_lineno, f.f_lasti) for f in frames())
    return Site(operation, buffer, chain)
