"""A loop over lanes in three parts, of which two need no masks.

A mask such as `features < n_features` holds up to some element, and for none from there on. So a
long loop is cut where its masks change:

    0 ───────────── whole ───────────── none ───────────── n
      every mask holds,   each vector     no mask holds:
      all is in bounds    looks           nothing is read or written

"whole" is 0 if an access along the loop would leave its tensor: then every vector looks.
"""

import dataclasses

from ..instructions.forms import FALSE, FIRST, TRUE, Affine, Form, Index, Uniform
from ..instructions.ttir import BITS, Op, Value
from .evaluation import VIEWS, Evaluation, Row, along_lanes, viewed

WORTH_CUTTING = 128  # elements: in a shorter loop it takes longer to find out where to cut

At = tuple[Index, ...]
Place = tuple[int | None, ...]  # which axis of the nest each axis of a value runs along
Ends = tuple[str, str]  # i64s: a mask holds before the first, and nowhere from the second on


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of a loop, from `first` to `end`.

    Attributes
    ----------
    first, end : str
        i64s.
    form : Form
        What the masks are there that are known.
    masks : tuple of (Value, Place)
        These; none where each vector has to look.
    rows : dict of Row
        What is known of the bounds of what is accessed: "true", or nothing.
    """

    first: str
    end: str
    form: Form = TRUE
    masks: tuple[tuple[Value, Place], ...] = ()
    rows: dict[Row, str] = dataclasses.field(default_factory=dict)


class Parts(Evaluation):
    """Finds out where to cut a loop."""

    def cut(
        self, n: int, width: int, masks: dict[tuple[Value, Place], At],
        pointers: list[tuple[Value, At]],
    ) -> list[Part]:  # fmt: skip
        """Return the parts of a loop over lanes that is about to be opened.

        Parameters
        ----------
        n, width : int
            Its elements, a multiple of `width`, and how many it takes at a time.
        masks : dict
            Each mask's index, by value and place.
        pointers : list of (Value, index)
            Of what is loaded and stored.
        """
        ends = {key: self.ends(key[0], at, n) for key, at in masks.items()}
        known = {key: pair for key, pair in ends.items() if pair is not None}
        rows = [row for pointer, at in pointers if (row := self.row_of(pointer, at)) is not None]
        if not known and not rows:
            return [Part("0", str(n))]
        self.out = self.scopes[-1]
        whole, none = str(n), "0"
        for first, last in known.values():
            whole, none = self.least(whole, first), self.greatest(none, last)
        whole = self.set(f"and i64 {whole}, {-width}")
        tests = [self.stretch_inside(row, whole) for row in dict.fromkeys(rows)]
        for test in tests:
            whole = self.set(f"select i1 {test}, i64 {whole}, i64 0")
        first_part = Part("0", whole, TRUE, tuple(known), dict.fromkeys(rows, "true"))
        each_looks = dict.fromkeys(rows, "")
        if not known:
            return [first_part, Part(whole, str(n), rows=each_looks)]
        none = self.set(f"and i64 {self.integer('add', 'i64', none, str(width - 1))}, {-width}")
        last_part = Part(none, str(n), FALSE, tuple(known))
        return [first_part, Part(whole, none, rows=each_looks), last_part]

    def ends(self, mask: Value, at: At, n: int) -> Ends | None:
        """Return where a mask ends along the loop over lanes, if that can be known before it."""
        if mask.shape is None:
            return self.all_or_none(self.scalars[mask], n)
        op = mask.op
        if op is None or mask in self.buffers or mask in self.bumped:
            return None
        if op.name in VIEWS:
            return self.ends(op.operands[0], viewed(op, at, FIRST), n)
        if op.name == "arith.andi":
            a, b = (self.ends(v, at, n) for v in op.operands)
            if a is None or b is None:
                return None
            return self.least(a[0], b[0]), self.least(a[1], b[1])
        if op.name == "arith.constant":
            return self.all_or_none(self.constant(op), n)
        return self.ends_of_comparison(op, at, n) if op.name == "arith.cmpi" else None

    def all_or_none(self, holds: str, n: int) -> Ends:
        """Return where a mask ends that is the same for all lanes."""
        self.out = self.scopes[-1]
        end = self.set(f"select i1 {holds}, i64 {n}, i64 0")
        return end, end

    def ends_of_comparison(self, op: Op, at: At, n: int) -> Ends | None:
        """Return where `first + i < limit` ends; i counts the loop's elements."""
        axis = along_lanes(at)
        if axis is None:
            form = self.ev(op.results[0], at)
            return self.all_or_none(form.v, n) if isinstance(form, Uniform) else None
        if [self.stride(v, axis) for v in op.operands] != [1, 0]:
            return None
        if op.predicate not in ("slt", "sle"):
            return None
        first, limit = (self.ev(v, self.before_lanes(at, axis)) for v in op.operands)
        if not isinstance(first, Affine) or not isinstance(limit, Uniform):
            return None
        self.out, element = self.scopes[-1], op.operands[0].element
        base = self.resized(first.base, element, "i64")
        length = self.saturated("sub", self.resized(limit.v, element, "i64"), base)
        if op.predicate == "sle":
            length = self.saturated("add", length, "1")
        length = self.least(self.greatest(length, "0"), str(n))
        # Beyond the type's largest number they begin anew: then each vector looks.
        room = self.saturated("sub", str((1 << BITS[element] - 1) - 1), base)
        wraps = self.set(f"icmp slt i64 {room}, {n - 1}")
        return (
            self.set(f"select i1 {wraps}, i64 0, i64 {length}"),
            self.set(f"select i1 {wraps}, i64 {n}, i64 {length}"),
        )

    def saturated(self, opcode: str, a: str, b: str) -> str:
        """Add or subtract; what is too large becomes the largest number."""
        return self.intrinsic(f"s{opcode}.sat", "i64", None, [a, b])

    def least(self, a: str, b: str) -> str:
        """Return the lesser i64."""
        return a if a == b else self.intrinsic("smin", "i64", None, [a, b])

    def greatest(self, a: str, b: str) -> str:
        """Return the greater i64."""
        return a if a == b else self.intrinsic("smax", "i64", None, [a, b])
