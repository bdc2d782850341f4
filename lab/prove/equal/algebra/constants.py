"""What a constant was meant to be: a kernel has it in float32, the reference in float64.

1.4426950 is log₂e, 0.70710677 is 1/√2, 0.1 is 1/10. A constant's meaning is a rational number times
powers of log₂e and √(2/π) times the root of a whole number; in a field all of these are exact. One
meaning for each float32, so that both sides read alike; float64, where it is met first, decides.
What has no short meaning is taken as the float32 that it is, and counted: it is opaque.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

SYMBOLS = (math.log2(math.e), math.sqrt(2 / math.pi))


class Meaning(NamedTuple):
    """rational · log₂e^symbols[0] · √(2/π)^symbols[1] · √root."""

    rational: Fraction
    symbols: tuple[int, int] = (0, 0)
    root: int = 1

    @property
    def number(self) -> float:
        """The nearest float64, or almost."""
        unit = math.prod(s**k for s, k in zip(SYMBOLS, self.symbols, strict=True))
        return float(self.rational) * unit * math.sqrt(self.root)

    def times(self, other: "Meaning") -> "Meaning":
        """Multiply two meanings."""
        common = math.gcd(self.root, other.root)
        return Meaning(
            self.rational * other.rational * common,
            (self.symbols[0] + other.symbols[0], self.symbols[1] + other.symbols[1]),
            self.root * other.root // common**2,
        )

    def inverted(self) -> "Meaning":
        """Return 1 / this."""
        negative = (-self.symbols[0], -self.symbols[1])
        return Meaning(1 / (self.rational * self.root), negative, self.root)

    def modulo(self, modulus: int, symbols: tuple[int, int]) -> int:
        """Return the number in a field, in which the symbols have these values."""
        value = self.rational.numerator * pow(self.rational.denominator, -1, modulus)
        value *= pow(self.root, (modulus + 1) // 4, modulus)
        for symbol, k in zip(symbols, self.symbols, strict=True):
            value = value * pow(symbol, k, modulus) % modulus
        return value % modulus


# The symbols by which a number is divided before what is left is looked at.
_UNITS = tuple(
    (math.prod(s**k for s, k in zip(SYMBOLS, powers, strict=True)), powers)
    for powers in ((1, 0), (-1, 0), (0, 1), (0, -1), (0, 2), (0, -2))
)
_NONE = (1.0, (0, 0))
_meanings: dict[float, Meaning] = {}
opaque: set[float] = set()


# Digits that a person writes of a number that has more.
SHORTEST, LONGEST = 7, 14


def forget() -> None:
    """Begin anew: another kernel's constants need not mean what this one's do."""
    _meanings.clear()
    opaque.clear()


def meaning(value: float) -> Meaning:
    """Return what a finite number was meant to be.

    Parameters
    ----------
    value : float
        A float64, or a float32 as one.

    Returns
    -------
    Meaning
        The same for all numbers that round to the same float32.
    """
    with np.errstate(over="ignore", under="ignore"):
        key = float(np.float32(value))
    if not math.isfinite(key) or key == 0:
        return Meaning(Fraction(value))  # beyond float32: exactly what it is
    if key not in _meanings:
        _meanings[key] = _look_for(value, is_single=key == value)
    return _meanings[key]


def _look_for(value: float, *, is_single: bool) -> Meaning:
    """Try a short fraction, then symbols, roots, and a longer decimal; the order matters."""
    exact = Fraction(value)
    if abs(exact.numerator) >> (exact.numerator & -exact.numerator).bit_length() < 128:
        return Meaning(exact)  # a power of two, or a small multiple of one
    if short := _fraction(value, is_single, 1.0, 4):
        return Meaning(short)
    for unit, powers in _UNITS:
        if short := _fraction(value, is_single, unit, 1 if is_single else 6):
            return Meaning(short, powers)
    for unit, powers in (_NONE, *_UNITS):
        if found := _root(value, is_single, unit):
            return Meaning(found[0], powers, found[1])
    if long := _fraction(value, is_single, 1.0, 7 if is_single else 12):
        return Meaning(long)
    opaque.add(value)
    return Meaning(Fraction(float(np.float32(value))))


def _fraction(value: float, is_single: bool, unit: float, digits: int) -> Fraction | None:
    """Return the short fraction or decimal that is the value divided by the unit, or None."""
    quotient = value / unit
    mantissa, twos = math.frexp(quotient)

    def shortest(denominator: int) -> Fraction:
        return Fraction(mantissa).limit_denominator(denominator) * Fraction(2) ** twos

    short = shortest(256 if is_single else 10**6)
    for candidate in (short, Fraction(f"{quotient:.{digits}g}")):
        if candidate and _same(float(candidate) * unit, value, is_single):
            return candidate
    short = shortest(256)
    return short if short and not is_single and _written(float(short) * unit, value) else None


def _same(candidate: float, value: float, is_single: bool) -> bool:
    if is_single:
        with np.errstate(over="ignore", under="ignore"):
            return bool(np.float32(candidate) == np.float32(value))
    return abs(candidate - value) <= abs(value) * 2.0**-50


def _written(candidate: float, value: float) -> bool:
    """Say whether a float64 is a number written with fewer digits: 0.7978845608 is √(2/π)."""
    digits = len(repr(abs(value)).partition("e")[0].replace(".", "").strip("0"))
    return SHORTEST <= digits <= LONGEST and f"{candidate:.{digits}g}" == f"{value:.{digits}g}"


def _root(value: float, is_single: bool, unit: float) -> tuple[Fraction, int] | None:
    """Return (rational, n) if the value divided by the unit is rational · √n, n without squares."""
    square = Fraction((value / unit) ** 2).limit_denominator(64 if is_single else 4096)
    n = square.numerator * square.denominator
    if not 1 < n < (128 if is_single else 10**7):
        return None
    if not _same(math.copysign(math.sqrt(square), value) * unit, value, is_single):
        return None
    k = next(k for k in range(math.isqrt(n), 0, -1) if n % (k * k) == 0)
    return Fraction(int(math.copysign(k, value)), square.denominator), n // (k * k)
