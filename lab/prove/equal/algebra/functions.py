"""Exponentials, logarithms, roots: what the field says of functions that are no polynomials."""

import math
from typing import Any

import numpy as np

from . import number as n
from .modular import power
from .number import LARGEST, Number, lift, multiply, select, tidy

# Opaque functions, by their salts.
OF_EXP, OF_LOG, OF_ERF = 0, 1, 2
# A finite stand-in for −∞: the exponential of what is below is 0, as of −1e30.
AS_MINUS_INF = -1e4
TAKEN_FOR_0 = "exponentials taken for 0"


def exp(argument: Any, base_2: bool = False) -> Number:
    """Return e to a power, or 2: ω^q · log where the exponent is known, else an opaque number."""
    argument = lift(argument)
    field = n.run.field
    with np.errstate(all="ignore"):
        x = (np.exp2 if base_2 else np.exp)(argument.x)
    # A shadow that overflows is no infinity.
    x = np.where(np.isposinf(argument.x), x, np.minimum(x, LARGEST))
    q = np.full(argument.shape, -1) if argument.q is None else argument.q
    known, times = argument.p, None  # what is exponentiated, and a factor
    if argument.log is not None:
        clash = (argument.log != 1) & (argument.unit != int(base_2))
        q = np.where(clash, -1, q)
        known = np.where(clash, argument.p, argument.rest)
        times = np.where(clash, 1, argument.log)
    exponent = np.maximum(q, 0)
    if base_2:  # 2^x = e^(x / log₂e)
        exponent = exponent * pow(field.symbols[field.Q][0], -1, field.Q) % field.Q
    p = field.omega(exponent)
    unknown = (q < 0) & np.isfinite(argument.x)
    if unknown.any():
        n.run.counts["opaque exponentials"] += int(unknown.sum())
        p = np.where(unknown, _opaque_exp(known, base_2), p)
    if times is not None:
        p = p * times % field.P
    below = argument.x < AS_MINUS_INF
    p = np.where(below, 0, p)
    n.run.counts[TAKEN_FOR_0] += int((below & np.isfinite(argument.x)).sum())
    return tidy(Number(x, p))


def _opaque_exp(value: np.ndarray, base_2: bool) -> np.ndarray:
    """Hash a value to a power of ω, so that 2^(x · log₂e) = e^x and e^(−x) = 1 / e^x."""
    field = n.run.field
    if base_2:
        value = value * pow(field.symbols[field.P][0], -1, field.P) % field.P
    hashed = field.hashed(np.minimum(value, field.P - value), OF_EXP, field.Q)
    return field.omega(np.where(2 * value < field.P, hashed, field.Q - hashed) % field.Q)


def log(argument: Any, base_2: bool = False) -> Number:
    """Return a logarithm: an opaque value that remembers what it was taken of."""
    argument = lift(argument)
    field = n.run.field
    with np.errstate(all="ignore"):
        x = (np.log2 if base_2 else np.log)(argument.x)
    p = np.where(argument.p == 1, 0, field.hashed(argument.p, OF_LOG, field.P))
    if base_2:
        p = p * field.symbols[field.P][0] % field.P
    unit = np.full(p.shape, int(base_2))
    zeros = np.zeros_like(p)
    return tidy(Number(x, p, zeros, argument.p, unit, zeros))


def sqrt(argument: Any) -> Number:
    """Return a root, multiplicative: its square is the argument or, for half of all, its negative.

    With P − 1 twice an odd number, one of y and −y is a square, and y^((P + 1) / 4) its root.
    """
    argument = lift(argument)
    field = n.run.field
    with np.errstate(all="ignore"):
        x = np.sqrt(argument.x)
    q = None
    if argument.q is not None and argument.log is None:
        root = power(np.maximum(argument.q, 0), (field.Q + 1) // 4, field.Q)
        q = np.where(argument.q < 0, -1, root)
    return tidy(Number(x, power(argument.p, (field.P + 1) // 4, field.P), q))


def tanh(argument: Any) -> Number:
    """Return 1 − 2 / (e^(2x) + 1)."""
    return 1 - 2 / (exp(lift(argument) * 2) + 1)


def erf(argument: Any) -> Number:
    """Return an opaque number, odd: erf(−x) = −erf(x)."""
    argument = lift(argument)
    field = n.run.field
    x = np.vectorize(math.erf, otypes=[float])(argument.x)
    value = argument.p
    hashed = field.hashed(np.minimum(value, field.P - value), OF_ERF, field.P)
    p = np.where(2 * value < field.P, hashed, field.P - hashed) % field.P
    return tidy(Number(np.asarray(x), np.where(value == 0, 0, p)))


def whole(argument: Any, rounded: Any) -> Number:
    """Round: the shadow decides which whole number it is."""
    argument = lift(argument)
    x = rounded(argument.x)
    finite = np.isfinite(x)
    return select(finite, lift(np.where(finite, x, 0).astype(np.int64)), argument)


def clip(argument: Any, low: Any, high: Any) -> Number:
    """Bound by two numbers; None is no bound."""
    bounded = lift(argument) if low is None else n.maximum(argument, low)
    return bounded if high is None else n.minimum(bounded, high)


def square(argument: Any) -> Number:
    """Multiply by itself."""
    argument = lift(argument)
    return multiply(argument, argument)
