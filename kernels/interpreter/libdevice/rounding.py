"""Rounding as the symbol's suffix says: to nearest (rn), to zero (rz), down (rd), up (ru).

Exact results are fractions, element by element. A candidate within one unit in the last place of
the exact result is computed first; comparing it shows which two numbers lie around the result.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

# The sign of (a number - the exact result of the operands).
Compare = Callable[..., Fraction]

# Operation: a candidate from exact operands, and how a number compares with the exact result.
_OPERATIONS: dict[str, tuple[Callable[..., Any], Compare]] = {
    "add": (lambda a, b: a + b, lambda r, a, b: r - (a + b)),
    "sub": (lambda a, b: a - b, lambda r, a, b: r - (a - b)),
    "mul": (lambda a, b: a * b, lambda r, a, b: r - a * b),
    "div": (lambda a, b: a / b, lambda r, a, b: r - a / b),
    "rcp": (lambda a: 1 / a, lambda r, a: r - 1 / a),
    "fma": (lambda a, b, c: a * b + c, lambda r, a, b, c: r - (a * b + c)),
    "sqrt": (lambda a: math.sqrt(a), lambda r, a: r * r - a),
    "rsqrt": (lambda a: 1 / math.sqrt(a), lambda r, a: r * r * a - 1),
    "convert": (lambda a: a, lambda r, a: r - a),
}
# What NumPy makes of operands that no fraction can be computed from: infinities, NaN, zeros.
_OTHERWISE: dict[str, Callable[..., Any]] = {
    "rcp": lambda a: 1 / a,
    "fma": lambda a, b, c: a * b + c,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "convert": lambda a: a,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
}


def rounded(operation: str, mode: str, dtype: type) -> Callable[..., np.ndarray]:
    """Make an operation that rounds its exact result once.

    Parameters
    ----------
    operation : str
        Of `_OPERATIONS`.
    mode : str
        "rn", "rz", "rd" or "ru".
    dtype : type
        numpy.float32 or numpy.float64, of the result.

    Returns
    -------
    callable
        Of arrays of one shape.
    """

    def compute(*arrays: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            floats = np.broadcast_arrays(*(a.astype(dtype) for a in arrays))
            result: np.ndarray = np.array(_OTHERWISE[operation](*floats), dtype=dtype)
        for at in np.ndindex(result.shape):
            operands = [array[at].item() for array in np.broadcast_arrays(*arrays)]
            exact = _exactly(operation, operands)
            if exact is not None:
                result[at] = _round_one(*exact, mode, dtype)
            elif mode == "rd" and operation in ("add", "sub", "fma") and result[at] == 0:
                result[at] = _zero_rounded_down(operation, operands)
        return result

    return compute


def _exactly(operation: str, operands: list[Any]) -> tuple[Any, Callable[[Fraction], Any]] | None:
    """Give a candidate and the comparison, or None where the result is 0 or no finite number."""
    if not all(map(math.isfinite, operands)):
        return None
    candidate, compare = _OPERATIONS[operation]
    fractions = list(map(Fraction, operands))
    try:
        value = candidate(*fractions)
    except (ZeroDivisionError, ValueError):
        return None
    return (value, lambda r: compare(r, *fractions)) if value else None


def _round_one(value: Any, compare: Callable[[Fraction], Any], mode: str, dtype: type) -> Any:
    infinity = dtype(np.inf)
    beyond = Fraction(2) ** np.finfo(dtype).maxexp  # what would follow the largest number

    def exact(number: Any) -> Fraction:
        return Fraction(float(number)) if np.isfinite(number) else beyond * int(np.sign(number))

    try:
        with np.errstate(over="ignore", under="ignore"):
            near = dtype(float(value))
    except OverflowError:
        near = infinity if value > 0 else -infinity
    sign = compare(exact(near)) if np.isfinite(near) else near
    if sign == 0:
        return near
    if sign > 0:  # the result lies below; below an infinity in any case
        low, high = np.nextafter(near, -infinity), near
    else:
        low, high = near, np.nextafter(near, infinity)
    if mode == "rd":
        chosen = low
    elif mode == "ru":
        chosen = high
    elif mode == "rz":
        chosen = low if value > 0 else high
    else:
        middle = compare((exact(low) + exact(high)) / 2)
        even = low if low.view(f"u{low.itemsize}") % 2 == 0 else high
        chosen = even if middle == 0 else (low if middle > 0 else high)
    return np.copysign(chosen, dtype(1 if value > 0 else -1)) if chosen == 0 else chosen


def _zero_rounded_down(operation: str, operands: list[float]) -> float:
    """An exact sum of zero is -0 when rounded down, unless both terms are +0."""
    first, second = operands[0], operands[-1]
    if operation == "fma":
        first = operands[0] * operands[1]
    if operation == "sub":
        second = -second
    both_positive = all(v == 0 and math.copysign(1, v) > 0 for v in (first, second))
    return 0.0 if both_positive else -0.0
