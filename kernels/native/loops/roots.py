"""What loop nests are written for: roots, of which those of one nest see the same elements."""

import dataclasses
from typing import Any

from ..instructions.forms import FIRST, Form, Index
from ..instructions.ttir import Op, Value
from .evaluation import Buffer
from .parts import At, Place


@dataclasses.dataclass(eq=False)
class Root:
    """What a nest is written for. `axis` is the one that is reduced."""

    values: list[Value]
    op: Op | None = None
    axis: int | None = None

    def before(self, g: Any, nest: "Nest") -> None:
        """Write code before the nest."""

    def body(self, g: Any, nest: "Nest") -> None:
        """Write the innermost code."""

    def after_axis(self, g: Any, nest: "Nest") -> None:
        """Write code behind the loop over the reduced axis."""


class Load(Root):
    """A load: the nest reads it, and keeps it if it is needed later."""


class Store(Root):
    """tt.store."""

    def body(self, g: Any, nest: "Nest") -> None:
        """Write the store, when everything has been read."""
        pointer, value, *mask = (g.ev(v, nest.at) for v in self.values)
        row = g.row_inside(self.values[0], nest.at)
        g.out = g.scopes[-1]
        g.store(self.op, pointer, value, mask[0] if mask else None, nest.width, row)


class Keep(Root):
    """A value that a loop carries: the nest keeps it where it is wanted."""

    def before(self, g: Any, nest: "Nest") -> None:
        """Let it be kept, unless it is."""
        (value,) = self.values
        if value not in g.buffers and value not in nest.kept:
            nest.kept[value] = g.new_buffer(value)


class Copy(Root):
    """Writes a value into a buffer that is not its own."""

    def __init__(self, value: Value, buffer: Buffer) -> None:
        super().__init__([value])
        self.buffer = buffer

    def body(self, g: Any, nest: "Nest") -> None:
        """Note what is to be written at the end of the body."""
        form = g.ev(self.values[0], nest.at)
        nest.writes.append((self.buffer, nest.at, form))


@dataclasses.dataclass(eq=False)
class Nest:
    """Loops over a shape, `width` elements along the axis `lanes` at a time."""

    shape: tuple[int, ...]
    lanes: int | None
    width: int | None
    roots: list[Root]
    row: int | None = None  # the axis of which a loop around the nest has chosen one index
    at: tuple[Index, ...] = ()
    seen: dict[tuple[Value, Place], None] = dataclasses.field(default_factory=dict)
    places: dict[Value, Place] = dataclasses.field(default_factory=dict)
    kept: dict[Value, Buffer] = dataclasses.field(default_factory=dict)
    writes: list[tuple[Buffer, At, Form]] = dataclasses.field(default_factory=list)

    @property
    def values(self) -> list[Value]:
        """What the roots need."""
        return [v for root in self.roots for v in root.values]

    @property
    def stores(self) -> list[Root]:
        """Those of the roots that write to a tensor."""
        return [root for root in self.roots if isinstance(root, Store)]

    @property
    def everywhere(self) -> Place:
        """The place of a value that differs along every axis."""
        return tuple(a if n > 1 else None for a, n in enumerate(self.shape))

    def index_of(self, place: Place) -> At:
        """Return the index, in the loops that are open, of a value at a place."""
        return tuple(FIRST if axis is None else self.at[axis] for axis in place)
