"""The number that proves: a float64 shadow to decide by, and the same computation in Z_P and Z_Q.

    x      the shadow: it alone decides comparisons, maxima, `where`, and what is infinite
    p      the value in Z_P
    q      the value in Z_Q; −1 where it is not known, None where it is nowhere known
    log    the y in Z_P that a logarithm was taken of, 1 where none was, None if nowhere
    unit   how often log₂e multiplies that logarithm
    rest   p without the logarithm's
    const  its meaning, if the number is a constant

exp(x) is ω^q in Z_P, so that exp(x + y) = exp(x)·exp(y). A logarithm has q = 0, rest = 0, log = y
and any p: a hash of y. Where there is a log, q and rest stand for the number less
log₂e^unit · log y, so that exp(x − log y) = exp(x) / y. What is no sum of known numbers and
logarithms has no q: its exponential is opaque, a hash of rest.

Beside them stands the degree (degrees.py), from which follows how likely a wrong identity holds by
chance.
"""

import dataclasses
import functools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np

from .array import Array
from .constants import Meaning, meaning
from .degrees import CONSTANT, Degree
from .modular import Field, field_of, inverse, matmul, power

# The greatest finite shadow: one that overflows is no infinity.
LARGEST = 1e300
# Different floats of one array that are taken for constants.
MOST_CONSTANTS = 4096


class NotFollowedError(NotImplementedError):
    """Something that is not followed in the field, named."""


@dataclasses.dataclass
class Run:
    """What one run counts.

    Attributes
    ----------
    field : Field
    divisors : float
        The degrees of all that was divided by, added up.
    degree : float
        The greatest degree of a number that was compared.
    counts : Counter
        Of what weakens the statement: opaque exponentials, divisors that are 0 in the field.
    """

    field: Field
    divisors: float = 0.0
    degree: float = 1.0
    counts: Counter[str] = dataclasses.field(default_factory=Counter)


run = Run(field_of(0))


def begin(seed: int) -> Run:
    """Choose a field, draw its numbers from the beginning, and count anew."""
    global run
    field = dataclasses.replace(field_of(seed), random=np.random.default_rng([seed, 1]))
    run = Run(field)
    return run


class Number(Array):
    """An array of numbers of the field. Its operations are NumPy's, as far as they are needed."""

    __array_ufunc__ = None
    __slots__ = ()

    def __setitem__(self, index: Any, value: Any) -> None:
        value = lift(value)
        self.const = None
        self.degree = self.degree.or_that(value.degree)
        for name, default in (("x", 0), ("p", 0), ("q", -1), ("log", 1), ("unit", 0)):
            mine, theirs = getattr(self, name), getattr(value, name)
            if mine is None and theirs is None:
                continue
            if mine is None:
                mine = np.full(self.x.shape, default, np.int64)
            elif not mine.flags.writeable:
                mine = mine.copy()
            mine[index] = default if theirs is None else theirs
            setattr(self, name, mine)
        if self.rest is not None or value.rest is not None:
            rest = np.array(self.p if self.rest is None else self.rest)
            rest[index] = without_log(value)
            self.rest = rest

    # --- arithmetic -------------------------------------------------------------------------------

    def __add__(self, other: Any) -> "Number":
        return add(self, lift(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Number":
        return add(self, -lift(other))

    def __rsub__(self, other: Any) -> "Number":
        return add(lift(other), -self)

    def __neg__(self) -> "Number":
        field = run.field
        q = None if self.q is None else np.where(self.q > 0, field.Q - self.q, self.q)
        log = None if self.log is None else inverse(self.log, field.P)
        const = self.const and self.const._replace(rational=-self.const.rational)
        p = np.where(self.p > 0, field.P - self.p, 0)
        rest = None if self.rest is None else np.where(self.rest > 0, field.P - self.rest, 0)
        return Number(-self.x, p, q, log, self.unit, rest, const, self.degree)

    def __mul__(self, other: Any) -> "Number":
        return multiply(self, lift(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Number":
        return multiply(self, reciprocal(lift(other)))

    def __rtruediv__(self, other: Any) -> "Number":
        return multiply(lift(other), reciprocal(self))

    def __pow__(self, exponent: Any) -> "Number":
        if exponent == 0.5:
            from .functions import sqrt

            return sqrt(self)
        if int(exponent) != exponent or exponent < 1:
            raise NotFollowedError(f"a power with the exponent {exponent}")
        result = self
        for _ in range(int(exponent) - 1):
            result = result * self
        return result

    def __matmul__(self, other: Any) -> "Number":
        return product(self, lift(other))

    def __rmatmul__(self, other: Any) -> "Number":
        return product(lift(other), self)

    def __abs__(self) -> "Number":
        return select(self.x < 0, -self, self)

    # --- reductions -------------------------------------------------------------------------------

    def sum(self, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> "Number":
        """Add up along axes."""
        if axis is None:
            return self.reshape(-1).sum(axis=0)
        if isinstance(axis, tuple):
            total = self
            for one in sorted((one % self.ndim for one in axis), reverse=True):
                total = total.sum(one, keepdims)
            return total
        if self.log is not None:
            return self._sum_of_logs(axis, keepdims)
        field, over = run.field, {"axis": axis, "keepdims": keepdims}
        q = None
        if self.q is not None:
            known = (self.q >= 0).all(**over)
            q = np.where(known, np.maximum(self.q, 0).sum(**over) % field.Q, -1)
        x, p = np.asarray(self.x.sum(**over)), np.asarray(self.p.sum(**over)) % field.P
        n = self.shape[axis]
        return tidy(Number(x, p, q, degree=self.degree.summed(n)))

    def _sum_of_logs(self, axis: int, keepdims: bool) -> "Number":
        parts = self.map(lambda v: np.moveaxis(v, axis, 0))
        if not len(parts):
            return lift(np.zeros(parts.shape[1:]))
        total = parts[0]
        for i in range(1, len(parts)):
            total = total + parts[i]
        return total.map(lambda v: np.expand_dims(v, axis)) if keepdims else total

    def mean(self, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> "Number":
        """Average along axes."""
        total = self.sum(axis, keepdims)
        if not self.size:
            return lift(np.full(total.shape, np.nan))
        return total * constant(Meaning(Fraction(max(total.size, 1), self.size)))

    def var(self, axis: Any = None, keepdims: bool = False) -> "Number":
        """Return the biased variance along axes."""
        return ((self - self.mean(axis, keepdims=True)) ** 2).mean(axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False, initial: Any = None) -> "Number":
        """Return the elements whose shadows are greatest."""
        return self._extreme(np.argmax, axis, keepdims, initial)

    def min(self, axis: Any = None, keepdims: bool = False, initial: Any = None) -> "Number":
        """Return the elements whose shadows are least."""
        return self._extreme(np.argmin, axis, keepdims, initial)

    def _extreme(self, chosen: Any, axis: Any, keepdims: bool, initial: Any) -> "Number":
        if axis is None:
            return self.reshape(-1)._extreme(chosen, 0, keepdims, initial)
        if self.shape[axis] == 0:
            shape = list(self.shape)
            shape[axis : axis + 1 or len(shape)] = [1] if keepdims else []
            return lift(np.full(shape, float(initial)))
        at = np.expand_dims(chosen(self.x, axis=axis), axis)
        found = self.map(lambda v: np.take_along_axis(v, at, axis))
        return found if keepdims else found.squeeze(axis)


# --- making numbers -------------------------------------------------------------------------------


def constant(what: Meaning, shape: tuple[int, ...] = ()) -> Number:
    """Make a Number of a constant's meaning."""
    field = run.field
    values = (what.number, *(what.modulo(m, field.symbols[m]) for m in (field.P, field.Q)))
    x, p, q = (np.broadcast_to(np.asarray(v), shape) for v in values)
    return Number(x, p, q, const=what, degree=CONSTANT)


def lift(value: Any) -> Number:
    """Make a Number of a number, or of an array of integers, bools or few different floats."""
    if isinstance(value, Number):
        return value
    array = np.asarray(value)
    field = run.field
    if array.dtype.kind in "iub":
        const = Meaning(Fraction(int(array))) if array.ndim == 0 else None
        whole = array.astype(np.int64)
        p, q = whole % field.P, whole % field.Q
        return Number(array.astype(float), p, q, const=const, degree=CONSTANT)
    if array.ndim == 0 and np.isfinite(array):
        return constant(meaning(float(array)))
    zeros = np.zeros(array.shape, np.int64)
    number = Number(array.astype(float), zeros, zeros.copy(), degree=CONSTANT)
    different = np.unique(array[np.isfinite(array)])
    if len(different) > MOST_CONSTANTS:
        raise NotFollowedError(f"{len(different)} different floats that are no Numbers")
    for one in different:
        known, at = constant(meaning(float(one))), array == one
        number.p[at], number.q[at] = known.p, known.q
    return number


def variable(x: np.ndarray) -> Number:
    """Make unknowns: this is their shadow, and nothing else is known of them."""
    x, field = np.asarray(x, float), run.field
    p, q = (field.random.integers(0, m, x.shape) for m in (field.P, field.Q))
    return tidy(Number(x, p, q))


def tidy(number: Number) -> Number:
    """Drop what the field says of what is infinite or NaN: there the shadow says all."""
    finite = np.isfinite(number.x)
    if not finite.all():
        number.p, number.const = np.where(finite, number.p, 0), None
        if number.q is not None:
            number.q = np.where(finite, number.q, 0)
        if number.log is not None:
            number.log = np.where(finite, number.log, 1)
            number.unit = np.where(finite, number.unit, 0)
            number.rest = np.where(finite, number.rest, 0)
    return number


# --- arithmetic -----------------------------------------------------------------------------------


def without_log(number: Number) -> np.ndarray:
    """Return what the number has in Z_P beside a logarithm."""
    return number.p if number.rest is None else number.rest


def _has_log(*numbers: Number) -> bool:
    return any(number.log is not None for number in numbers)


def _reduced(value: np.ndarray, modulus: int) -> np.ndarray:
    """Bring a sum of two below the modulus: quicker than a division."""
    return value - modulus * (value >= modulus)


def add(left: Number, right: Number) -> Number:
    """Add: known exponents add, logarithms multiply what they were taken of."""
    field = run.field
    with np.errstate(all="ignore"):
        x = left.x + right.x
    p = _reduced(left.p + right.p, field.P)
    q = None
    if left.q is not None and right.q is not None:
        q = _reduced(left.q + right.q, field.Q)
        unknown = (left.q < 0) | (right.q < 0)
        if unknown.any():
            q = np.where(unknown, -1, q)
    log, unit = left.log, left.unit
    rest: Any = None
    if log is not None or right.log is not None:
        rest = _reduced(without_log(left) + without_log(right), field.P)
    if right.log is not None:
        if log is None:
            log, unit = right.log, right.unit
        else:
            clash = (log != 1) & (right.log != 1) & (unit != right.unit)
            unit = np.where(log != 1, unit, right.unit)
            log = log * right.log % field.P
            if clash.any():  # of two bases: nothing is known of its exponential
                log, rest = np.where(clash, 1, log), np.where(clash, p, rest)
                q = None if q is None else np.where(clash, -1, q)
    if log is not None and log.shape != x.shape:
        log, unit = np.broadcast_to(log, x.shape), np.broadcast_to(unit, x.shape)
    const = None
    if left.const and right.const and left.const[1:] == right.const[1:]:
        const = left.const._replace(rational=left.const.rational + right.const.rational)
    return tidy(Number(x, p, q, log, unit, rest, const, left.degree.plus(right.degree)))


def multiply(left: Number, right: Number) -> Number:
    """Multiply: a logarithm stays one times r · log₂e^k, and loses its exponent otherwise."""
    field = run.field
    with np.errstate(all="ignore"):
        x = left.x * right.x
    p = left.p * right.p % field.P
    q = None
    if left.q is not None and right.q is not None:
        q = left.q * right.q % field.Q
        unknown = (left.q < 0) | (right.q < 0)
        if unknown.any():
            q = np.where(unknown, -1, q)
    log: Any = None
    unit: Any = None
    rest: Any = None
    for one, factor in ((left, right), (right, left)):
        if one.log is None or (factor.const is not None and not factor.const.rational):
            continue  # 0 times a logarithm is 0, whose exponent is known
        if _is_rational(factor.const):
            log = np.broadcast_to(_to_the(one.log, factor.const.rational), x.shape)
            unit = np.broadcast_to(one.unit + factor.const.symbols[0], x.shape)
            rest = np.broadcast_to(one.rest * factor.p % field.P, x.shape)
        elif q is not None:
            q = np.where(np.broadcast_to(one.log != 1, x.shape), -1, q)
    const = left.const.times(right.const) if left.const and right.const else None
    return tidy(Number(x, p, q, log, unit, rest, const, left.degree.times(right.degree)))


def _is_rational(const: Meaning | None) -> bool:
    """Say whether a constant is r · log₂e^k, r r neither large nor fine."""
    if const is None or const.root != 1 or const.symbols[1]:
        return False
    return 0 < abs(const.rational.numerator) < 1 << 20 > const.rational.denominator


def _to_the(value: np.ndarray, exponent: Fraction) -> np.ndarray:
    """Return value^exponent in Z_P, multiplicative: of an even root the square is ± the value."""
    field, n, d = run.field, exponent.numerator, exponent.denominator
    if d == 1:
        return power(value if n > 0 else inverse(value, field.P), abs(n), field.P)
    order = 2 * field.Q if d % 2 else field.Q
    return power(value, n * pow(d, -1, order) % order, field.P)


def reciprocal(number: Number) -> Number:
    """Return 1 / number."""
    if number.const and number.const.rational:
        return constant(number.const.inverted(), number.shape)
    field = run.field
    with np.errstate(all="ignore"):
        x = 1 / number.x
    finite = np.isfinite(x) & np.isfinite(number.x)
    run.counts["divisors that are 0 in the field"] += int(((number.p == 0) & finite).sum())
    q = None
    if number.q is not None and number.log is None:
        q = np.where(number.q < 0, -1, inverse(np.maximum(number.q, 0), field.Q))
    degree = number.degree.inverted(run.divisors)
    divided = number.degree.over + number.degree.depth * run.divisors
    run.divisors += _n_different(number.p) * min(divided, 1e30)
    return tidy(Number(x, inverse(number.p, field.P), q, degree=degree))


def _n_different(array: np.ndarray) -> int:
    """Count elements; those that a broadcast repeats count once."""
    sizes = zip(array.shape, array.strides, strict=True)
    return math.prod(size for size, stride in sizes if stride)


def select(condition: Any, left: Any, right: Any) -> Number:
    """Take the left number where the condition holds, the right one elsewhere."""
    left, right, condition = lift(left), lift(right), np.asarray(condition, bool)

    def pick(one: Any, other: Any, default: int) -> Any:
        if one is None and other is None:
            return None
        one, other = (default if v is None else v for v in (one, other))
        return np.broadcast_to(np.where(condition, one, other), x.shape)

    x = np.where(condition, left.x, right.x)
    return Number(
        x,
        np.where(condition, left.p, right.p),
        pick(left.q, right.q, -1),
        pick(left.log, right.log, 1),
        pick(left.unit, right.unit, 0),
        pick(without_log(left), without_log(right), 0) if _has_log(left, right) else None,
        left.const if left.const == right.const else None,
        left.degree.or_that(right.degree),
    )


def maximum(left: Any, right: Any) -> Number:
    """Take the number with the greater shadow; NaN if one is NaN."""
    left, right = lift(left), lift(right)
    return select(np.isnan(left.x) | (left.x >= right.x), left, right)


def minimum(left: Any, right: Any) -> Number:
    """Take the number with the smaller shadow; NaN if one is NaN."""
    left, right = lift(left), lift(right)
    return select(np.isnan(left.x) | (left.x <= right.x), left, right)


def product(left: Number, right: Number) -> Number:
    """Multiply matrices; vectors as NumPy does."""
    if left.ndim == 1:
        return product(left.reshape(1, -1), right).squeeze(-2)
    if right.ndim == 1:
        return product(left, right.reshape(-1, 1)).squeeze(-1)
    field = run.field
    with np.errstate(all="ignore"):
        x = left.x @ right.x
    q = None
    if _exponents_known(left) and _exponents_known(right):
        q = matmul(left.q, right.q, field.Q)
    degree = left.degree.times(right.degree).summed(left.shape[-1])
    return tidy(Number(x, matmul(left.p, right.p, field.P), q, degree=degree))


def _exponents_known(number: Number) -> bool:
    return number.q is not None and number.log is None and bool((number.q >= 0).all())


def concatenate(parts: Any, axis: int = 0) -> Number:
    """Join Numbers along an axis."""
    parts = [lift(part) for part in parts]

    def joined(name: str, default: int) -> Any:
        values = [getattr(part, name) for part in parts]
        if all(value is None for value in values):
            return None
        pairs = zip(values, parts, strict=True)
        filled = [np.full(part.shape, default) if v is None else v for v, part in pairs]
        return np.concatenate(filled, axis)

    return Number(
        joined("x", 0),
        joined("p", 0),
        joined("q", -1),
        joined("log", 1),
        joined("unit", 0),
        np.concatenate([without_log(p) for p in parts], axis) if _has_log(*parts) else None,
        degree=functools.reduce(Degree.or_that, (part.degree for part in parts), CONSTANT),
    )


def full(number: Number, shape: tuple[int, ...]) -> Number:
    """Broadcast to a shape."""
    if number.shape == shape:
        return number
    return number.map(lambda v: np.broadcast_to(v, shape), number.const)


def disagreements(left: Any, right: Any) -> np.ndarray:
    """Say which elements differ: neither their values nor their exponentials are equal.

    Exponentials decide where logarithms were taken: the value of one is a hash.
    """
    left, right = lift(left), lift(right)
    # Multiplied by both denominators, the equation is one between polynomials.
    run.degree = max(run.degree, sum(one.degree.total(run.divisors) for one in (left, right)))
    shape = np.broadcast_shapes(left.shape, right.shape)
    left, right = full(left, shape), full(right, shape)
    finite = np.isfinite(left.x) & np.isfinite(right.x)
    both_nan = np.isnan(left.x) & np.isnan(right.x)
    same = np.where(finite, left.p == right.p, (left.x == right.x) | both_nan)
    if left.log is not None or right.log is not None:
        same |= finite & _same_with_logs(left, right)
    return ~same


def _same_with_logs(left: Number, right: Number) -> np.ndarray:
    """Say where what is beside the logarithms is equal, or the exponentials are."""
    field, shape = run.field, left.shape
    ones, zeros = np.ones(shape, np.int64), np.zeros(shape, np.int64)
    logs = [ones if n.log is None else n.log for n in (left, right)]
    units = [zeros if n.unit is None else n.unit for n in (left, right)]
    alike = (without_log(left) == without_log(right)) & (logs[0] == logs[1])
    if left.q is not None and right.q is not None:
        exps = [
            field.omega(np.maximum(n.q, 0)) * log % field.P
            for n, log in zip((left, right), logs, strict=True)
        ]
        known = (left.q >= 0) & (right.q >= 0) & ((logs[0] != 1) | (logs[1] != 1))
        alike |= known & (exps[0] == exps[1])
    return alike & ((units[0] == units[1]) | ((logs[0] == 1) & (logs[1] == 1)))
