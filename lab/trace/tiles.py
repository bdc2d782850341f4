"""From addresses to tensors: what each program did to which tile of which tensor, in which turn."""

import dataclasses
import functools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from .record import addresses_in_order
from .traffic import READ, WRITE, Pass, Trace, Visit

Program = tuple[int, int, int]
Extents = tuple[tuple[int, int], ...]  # first and last index along each axis


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """A tensor and the names of its axes."""

    name: str
    tensor: torch.Tensor
    axes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """[row, column], with the leading axes flattened."""
        if self.tensor.ndim < 2:
            return 1, self.tensor.numel()
        return math.prod(self.tensor.shape[:-1]), self.tensor.shape[-1]

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        addresses = addresses_in_order(self.tensor)
        order = np.argsort(addresses, kind="stable")
        return addresses[order], order

    def find(self, addresses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find elements by address.

        Parameters
        ----------
        addresses : numpy.ndarray

        Returns
        -------
        at : numpy.ndarray
            The elements' flat indices.
        rest : numpy.ndarray
            The addresses that belong to none.
        """
        places = self.places(addresses)
        return places[places >= 0], addresses[places < 0]

    def places(self, addresses: np.ndarray) -> np.ndarray:
        """Give each address the flat index of its element; −1 if it is of none.

        Parameters
        ----------
        addresses : numpy.ndarray

        Returns
        -------
        numpy.ndarray of int64
        """
        own, order = self._sorted
        if not len(own):
            return np.full(len(addresses), -1)
        position = np.searchsorted(own, addresses).clip(max=len(own) - 1)
        return np.where(own[position] == addresses, order[position], -1)


@dataclasses.dataclass(frozen=True, eq=False)
class Touch:
    """One read or write of one program.

    Attributes
    ----------
    program : tuple of int
    at : numpy.ndarray
        Flat indices of the elements.
    turn : int
        How many the program had at this tensor before: in a loop, the iteration.
    """

    program: Program
    at: np.ndarray
    turn: int


@dataclasses.dataclass(eq=False)
class Panel:
    """All reads or all writes of one launch in one tensor."""

    kind: str
    field: Field
    touches: list[Touch] = dataclasses.field(default_factory=list)
    _turns: Counter[Program] = dataclasses.field(default_factory=Counter)

    def add(self, program: Program, at: np.ndarray) -> None:
        """Add one, in the order of time."""
        self.touches.append(Touch(program, at, self._turns[program]))
        self._turns[program] += 1

    @functools.cached_property
    def programs(self) -> list[Program]:
        """In the order of their first touch."""
        return list(self._turns)

    @functools.cached_property
    def tiles(self) -> dict[Extents, list[Touch]]:
        """The touches by the extents of what they touch, in the order of the tensor's axes.

        Where programs share what is no block, such as rows that ids choose, by rows.
        """
        groups = defaultdict(list)
        for touch in self.touches:
            groups[self._extents(touch.at)].append(touch)
        if self.is_shared and any(
            len(touch.at) != math.prod(1 + last - first for first, last in extents)
            for extents, touches in groups.items()
            for touch in touches
        ):
            groups = defaultdict(list)
            for touch in self.touches:
                row = touch.at // self.field.shape[1]
                for at in np.split(touch.at, np.flatnonzero(np.diff(row)) + 1):
                    groups[self._extents(at)].append(touch)
        return dict(sorted(groups.items()))

    def _extents(self, at: np.ndarray) -> Extents:
        indices = np.unravel_index(at, tuple(self.field.tensor.shape) or (1,))
        return tuple((int(i.min()), int(i.max())) for i in indices)

    @property
    def is_one_number(self) -> bool:
        """Whether there is nothing to draw."""
        return self.field.tensor.numel() == 1

    @functools.cached_property
    def is_shared(self) -> bool:
        """Whether two programs touch the same number."""
        owner = np.full(self.field.tensor.numel(), -1)
        for touch in self.touches:
            number = self.programs.index(touch.program)
            before = owner[touch.at]
            if ((before >= 0) & (before != number)).any():
                return True
            owner[touch.at] = number
        return False

    @functools.cached_property
    def times(self) -> float:
        """How often a number is touched, on average over those that are."""
        distinct = np.unique(np.concatenate([touch.at for touch in self.touches]))
        return sum(len(touch.at) for touch in self.touches) / len(distinct)


def panels_of(trace: Trace, one: Pass, index: int) -> list[Panel]:
    """Sort what a launch touched by tensor.

    Parameters
    ----------
    trace : Trace
    one : Pass
        One of its passes.
    index : int
        Of the launch in the pass.

    Returns
    -------
    list of Panel
        First what is read, then what is written.
    """
    panels: dict[tuple[str, int], Panel] = {}
    for kind in (READ, WRITE):
        fields = list(_fields(trace, one, index, kind))
        for visit in one.visits:
            if visit.launch == index and visit.kind == kind:
                _place(panels, fields, visit)
    return list(panels.values())


def _place(panels: dict[tuple[str, int], Panel], fields: list[Field], visit: Visit) -> None:
    left = visit.addresses
    for field in fields:
        at, left = field.find(left)
        if len(at):
            panel = panels.setdefault((visit.kind, id(field.tensor)), Panel(visit.kind, field))
            panel.add(visit.program, np.sort(at))
        if not len(left):
            return


def _fields(trace: Trace, one: Pass, index: int, kind: str) -> Iterator[Field]:
    """Yield whose an address may be: the operation's tensors', then those of the launches so far.

    A workspace keeps the name and the shape that the first kernel knew it by.
    """
    for each in (kind, WRITE if kind == READ else READ):
        for name, tensor in one.named[each].items():
            yield Field(name, tensor, _axes(trace, name, tensor))
    so_far = [*(one.before.launches if one.before else ()), *one.launches[: index + 1]]
    names: Counter[str] = Counter()
    known: set[tuple[int, int]] = set()
    for launch in so_far:
        for argument, tensor in launch.tensors.items():
            where = tensor.data_ptr(), tensor.numel()
            if where in known:
                continue
            known.add(where)
            name = argument.removesuffix(".ptr").removesuffix("_ptr")
            names[name] += 1
            again = f" {names[name]}" if names[name] > 1 else ""
            yield Field(f"[{name}{again}]", tensor, _axes(trace, "", tensor))


def _axes(trace: Trace, name: str, tensor: torch.Tensor) -> tuple[str, ...]:
    """Name a tensor's axes, by number if nobody has named them."""
    n = tensor.ndim
    known = trace.twin.axes.get(name.removeprefix("d_"), "").split()[-n or None :]
    return tuple(known) if len(known) == n else tuple(f"axis {i}" for i in range(n))
