"""What each operation of TTIR does to the values that it is given."""

import math
import re
from collections.abc import Callable
from typing import Any

import z3

from .....kernels.native.instructions.ttir import BITS, Op, Type, Value
from .terms import Poly, poly
from .values import Index, Symbol, Values, first_of, is_integer

_SIGNED = {
    "slt": "lt", "sle": "le", "sgt": "gt", "sge": "ge", "eq": "eq", "ne": "ne",
    "ult": "lt", "ule": "le", "ugt": "gt", "uge": "ge",
}  # fmt: skip
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
}
# Operations that hand on what they are given. A float that is made narrower may become another one.
_SAME = {"arith.extf", "tt.bitcast", "arith.index_cast"}
_WRAPS = {"arith.addi", "arith.subi", "arith.muli", "arith.trunci", "arith.shli"}


class Evaluate(Values):
    """Evaluates operations that have no regions and touch no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[Value, Symbol] = {}
        self.grid: tuple[Poly, ...] = ()
        self.programs: tuple[Poly, ...] = ()

    def evaluate(self, op: Op) -> Symbol:
        """Evaluate an operation with one result; nothing is known of one that is not listed."""
        kind = op.results[0].type
        given = [self.known[v] for v in op.operands]
        name = op.name.replace(".", "_")
        method = getattr(self, f"_{name}", None)
        if method is not None:
            return method(op, kind, *given)
        if op.name in _SAME and self._keeps(op, kind):
            return Symbol(kind, given[0].element, given[0].base)
        base = "" if kind.is_pointer else None
        return self.opaque(kind, op.name.split(".")[1] + "_", base)

    def _keeps(self, op: Op, kind: Type) -> bool:
        """Say whether an operation leaves numbers, and the units of offsets, as they are."""
        before = op.operands[0].type
        if kind.is_pointer:
            return bytes_of(before.pointee) == bytes_of(kind.pointee)
        return before.is_float == kind.is_float and is_integer(before) == is_integer(kind)

    def may_wrap(self, op: Op) -> bool:
        """Say whether an operation's exact result may be too large for its type."""
        return op.name in _WRAPS and is_integer(op.results[0].type)

    def bits(self, op: Op) -> int:
        """Return the width of an operation's result."""
        return BITS[op.results[0].element]

    # -- sources ---------------------------------------------------------------------------------

    def _arith_constant(self, op: Op, kind: Type) -> Symbol:
        text = op.text.rsplit(" : ", 1)[0].strip()
        found = re.fullmatch(r"(?:dense<)?([^<>\[\]]+?)>?", text)
        if found is None:
            return self.opaque(kind)
        word = found[1]
        if word in ("true", "false"):
            return self.constant(kind, word == "true")
        if kind.is_float:
            return self.constant(kind, _float(word, kind.element))
        return self.constant(kind, int(word, 0))

    def _tt_get_program_id(self, op: Op, kind: Type) -> Symbol:
        number = self.programs["xyz".index(op.text.strip()[0])]
        return Symbol(kind, lambda i: number)

    def _tt_get_num_programs(self, op: Op, kind: Type) -> Symbol:
        number = self.grid["xyz".index(op.text.strip()[0])]
        return Symbol(kind, lambda i: number)

    def _tt_make_range(self, op: Op, kind: Type) -> Symbol:
        start = op.integer("start")
        return Symbol(kind, lambda i: i[0] + start)

    # -- shapes ----------------------------------------------------------------------------------

    def _tt_splat(self, op: Op, kind: Type, x: Symbol) -> Symbol:
        return Symbol(kind, lambda i: x.at(()), x.base)

    def _tt_unsplat(self, op: Op, kind: Type, x: Symbol) -> Symbol:
        return Symbol(kind, lambda i: x.at((poly(0),) * len(x.shape)), x.base)

    def _tt_expand_dims(self, op: Op, kind: Type, x: Symbol) -> Symbol:
        axis = op.integer("axis")
        return Symbol(kind, lambda i: x.at(i[:axis] + i[axis + 1 :]), x.base)

    def _tt_broadcast(self, op: Op, kind: Type, x: Symbol) -> Symbol:
        return Symbol(kind, lambda i: x.at(first_of(x.shape, i)), x.base)

    def _tt_trans(self, op: Op, kind: Type, x: Symbol) -> Symbol:
        order = op.integers("order")
        places = [order.index(d) for d in range(len(order))]
        return Symbol(kind, lambda i: x.at(tuple(i[p] for p in places)), x.base)

    def _tt_reshape(self, op: Op, kind: Type, x: Symbol) -> Symbol:
        if "allow_reorder" in op.text:
            return self.opaque(kind, base="" if kind.is_pointer else None)
        shape = kind.shape or ()

        def element(index: Index) -> Any:
            place = poly(0)
            for i, n in zip(index, shape, strict=True):
                place = place * n + i
            inner: list[Poly] = []
            for n in reversed(x.shape):
                place, rest = self.unknowns.divide(place, poly(n))
                inner.append(rest)
            return x.at(tuple(reversed(inner)))

        return Symbol(kind, element, x.base)

    def _tt_join(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        def element(index: Index) -> Any:
            *outer, last = index
            first = self.unknowns.formula(last) == 0
            return self.choice(first, x.at(tuple(outer)), y.at(tuple(outer)))

        return Symbol(kind, element, x.base if x.base == y.base else "")

    def half(self, x: Symbol, kind: Type, which: int) -> Symbol:
        """Return one of the results of a split."""
        return Symbol(kind, lambda i: x.at((*i, poly(which))), x.base)

    # -- integers --------------------------------------------------------------------------------

    def _tt_addptr(self, op: Op, kind: Type, pointer: Symbol, offset: Symbol) -> Symbol:
        return Symbol(kind, lambda i: pointer.at(i) + offset.at(i), pointer.base)

    def _tt_int_to_ptr(self, op: Op, kind: Type, address: Symbol) -> Symbol:
        return Symbol(kind, address.element, address.base or "")

    def _arith_addi(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        if not is_integer(kind):
            return Symbol(kind, lambda i: z3.Xor(x.at(i), y.at(i)))
        return Symbol(kind, lambda i: x.at(i) + y.at(i))

    def _arith_subi(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        if not is_integer(kind):
            return Symbol(kind, lambda i: z3.Xor(x.at(i), y.at(i)))
        return Symbol(kind, lambda i: x.at(i) - y.at(i))

    def _arith_muli(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        if not is_integer(kind):
            return Symbol(kind, lambda i: z3.And(x.at(i), y.at(i)))
        return Symbol(kind, lambda i: x.at(i) * y.at(i))

    def _divided(self, op: Op, kind: Type, x: Symbol, y: Symbol, which: int) -> Symbol:
        return Symbol(kind, lambda i: self.unknowns.divide(x.at(i), y.at(i))[which])

    def _arith_divsi(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        return self._divided(op, kind, x, y, 0)

    def _arith_remsi(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        return self._divided(op, kind, x, y, 1)

    def _unsigned(self, op: Op, kind: Type, x: Symbol, y: Symbol, which: int) -> Symbol:
        """Divide unsigned numbers: as signed ones, where neither can be negative."""
        lost = self.opaque(kind, "unsigned")

        def element(index: Index) -> Any:
            a, b = x.at(index), y.at(index)
            lows = self.unknowns.bounds(a)[0], self.unknowns.bounds(b)[0]
            if any(low is None or low < 0 for low in lows):
                return lost.at(index)
            return self.unknowns.divide(a, b)[which]

        return Symbol(kind, element)

    def _arith_divui(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        return self._unsigned(op, kind, x, y, 0)

    def _arith_remui(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        return self._unsigned(op, kind, x, y, 1)

    def _arith_minsi(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        return Symbol(kind, lambda i: self.unknowns.least(x.at(i), y.at(i)))

    def _arith_maxsi(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        return Symbol(kind, lambda i: self.unknowns.least(x.at(i), y.at(i), largest=True))

    def _arith_extsi(self, op: Op, kind: Type, x: Symbol) -> Symbol:
        return self._extended(op, kind, x, -1)

    def _arith_extui(self, op: Op, kind: Type, x: Symbol) -> Symbol:
        return self._extended(op, kind, x, 1)

    def _extended(self, op: Op, kind: Type, x: Symbol, true: int) -> Symbol:
        if not is_integer(x.type):
            return Symbol(kind, lambda i: self.choice(x.at(i), poly(true), poly(0)))
        if true < 0:
            return Symbol(kind, x.element)
        whole = 2 ** BITS[x.type.element]

        def element(index: Index) -> Any:
            a = x.at(index)
            low = self.unknowns.bounds(a)[0]
            if low is not None and low >= 0:
                return a
            return self.choice(self.unknowns.formula(a) >= 0, a, a + whole)

        return Symbol(kind, element)

    def _arith_trunci(self, op: Op, kind: Type, x: Symbol) -> Symbol:
        if is_integer(kind):
            return Symbol(kind, x.element)
        return self.opaque(kind)

    def _arith_shli(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        return self._shifted(op, kind, x, y, lambda a, b: a * 2**b)

    def _arith_shrsi(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        return self._shifted(op, kind, x, y, lambda a, b: self.unknowns.divide(a, poly(2**b))[0])

    def _arith_shrui(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        return self._arith_shrsi(op, kind, x, y)

    def _shifted(self, op: Op, kind: Type, x: Symbol, y: Symbol, by: Any) -> Symbol:
        """Shift by a constant: to the right only what cannot be negative, for that rounds down."""
        lost = self.opaque(kind, "shifted")

        def element(index: Index) -> Any:
            a, b = x.at(index), y.at(index).constant
            low = self.unknowns.bounds(a)[0]
            known = op.name == "arith.shli" or (low is not None and low >= 0)
            return by(a, b) if known and b is not None and 0 <= b < 64 else lost.at(index)

        return Symbol(kind, element)

    def _arith_andi(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        if not is_integer(kind):
            return Symbol(kind, lambda i: z3.And(x.at(i), y.at(i)))
        lost = self.opaque(kind, "and")

        def element(index: Index) -> Any:
            a, b = x.at(index), y.at(index).constant
            low = self.unknowns.bounds(a)[0]
            if b is None or b < 0 or b & (b + 1) or low is None or low < 0:
                return lost.at(index)
            return self.unknowns.divide(a, poly(b + 1))[1]

        return Symbol(kind, element)

    def _arith_ori(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        if is_integer(kind):
            return self.opaque(kind, "or")
        return Symbol(kind, lambda i: z3.Or(x.at(i), y.at(i)))

    def _arith_xori(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        if is_integer(kind):
            return self.opaque(kind, "xor")
        return Symbol(kind, lambda i: z3.Xor(x.at(i), y.at(i)))

    # -- conditions ------------------------------------------------------------------------------

    def _arith_cmpi(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        predicate, lost = op.predicate, self.opaque(kind, "compared")
        compare = _COMPARE[_SIGNED[predicate]]

        def element(index: Index) -> Any:
            a, b = x.at(index), y.at(index)
            if not isinstance(a, Poly):  # bools
                same = a == b
                if predicate in ("eq", "ne"):
                    return same if predicate == "eq" else z3.Not(same)
                return lost.at(index)
            lows = self.unknowns.bounds(a)[0], self.unknowns.bounds(b)[0]
            if predicate[0] == "u" and any(low is None or low < 0 for low in lows):
                return lost.at(index)
            if a.constant is not None and b.constant is not None:
                return z3.BoolVal(bool(compare(a.constant, b.constant)))
            return compare(self.unknowns.formula(a), self.unknowns.formula(b))

        return Symbol(kind, element)

    def _arith_cmpf(self, op: Op, kind: Type, x: Symbol, y: Symbol) -> Symbol:
        lost, predicate = self.opaque(kind, "compared"), op.predicate
        return Symbol(kind, lambda i: self.compared_floats(predicate, x.at(i), y.at(i), lost.at(i)))

    def _arith_select(self, op: Op, kind: Type, c: Symbol, x: Symbol, y: Symbol) -> Symbol:
        def element(index: Index) -> Any:
            return self.choice(c.at(index if c.shape else ()), x.at(index), y.at(index))

        return Symbol(kind, element, x.base if x.base == y.base else "")


def bytes_of(element: str) -> int:
    """Return how many bytes a number of a type has."""
    return -(-BITS.get(element, 64) // 8)


_INFINITIES = {
    "f16": ("7C00", "FC00"), "bf16": ("7F80", "FF80"), "f32": ("7F800000", "FF800000"),
    "f64": ("7FF0000000000000", "FFF0000000000000"),
}  # fmt: skip


def _float(word: str, element: str) -> Any:
    """Read a float as MLIR writes it; None if its bits are no number that is told apart."""
    if not word.startswith("0x"):
        return float(word)
    bits, pair = word[2:].upper(), _INFINITIES.get(element, ())
    return (math.inf, -math.inf)[pair.index(bits)] if bits in pair else None
