"""What NumPy lacks: error functions, gamma and Bessel functions, all float64 to float64."""

import ctypes
import functools
from collections.abc import Callable

import numpy as np

Function = Callable[..., np.ndarray]

_TWO_BY_SQRT_PI = 1.1283791670955126
# 1 / sqrt(2), as a float64 and what is missing from it.
_HALF_SQRT, _HALF_SQRT_REST = 0.7071067811865476, -4.833646656726457e-17


def _from_c(name: str, real: type = ctypes.c_double, first: tuple[type, ...] = ()) -> Function:
    """Take a function of the C library, element by element; a long double is rounded."""

    @functools.cache
    def function() -> np.ufunc:
        found = getattr(ctypes.CDLL("libm.so.6"), name)
        found.restype, found.argtypes = real, (*first, real)
        return np.frompyfunc(found, len(found.argtypes), 1)

    return lambda *args: np.asarray(function()(*args), dtype=np.float64)


erf, erfc, tgamma, lgamma = map(_from_c, ("erf", "erfc", "tgamma", "lgamma"))
# In float64 they have errors of 30 units in the last place and more near their zeros.
j0, j1, _y0, _y1 = (_from_c(name, ctypes.c_longdouble) for name in ("j0l", "j1l", "y0l", "y1l"))
_jn, _yn = (_from_c(name, ctypes.c_longdouble, (ctypes.c_int,)) for name in ("jnl", "ynl"))


# --- Bessel functions -----------------------------------------------------------------------------


def y0(x: np.ndarray) -> np.ndarray:
    """Bessel function of the second kind, order 0; NaN below 0."""
    return np.where(x < 0, np.nan, _y0(np.abs(x)))


def y1(x: np.ndarray) -> np.ndarray:
    """Bessel function of the second kind, order 1; NaN below 0."""
    return np.where(x < 0, np.nan, _y1(np.abs(x)))


def jn(n: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bessel function of the first kind, order n; NaN if n is below 0."""
    return np.where(n < 0, np.nan, _jn(n, x))


def yn(n: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bessel function of the second kind, order n; NaN if n or x is below 0."""
    return np.where((n < 0) | (x < 0), np.nan, _yn(n, np.abs(x)))


def bessel_i0(x: np.ndarray) -> np.ndarray:
    """Modified Bessel function of the first kind, order 0."""
    return _bessel_i(0, np.abs(x))


def bessel_i1(x: np.ndarray) -> np.ndarray:
    """Modified Bessel function of the first kind, order 1; it is odd."""
    return np.copysign(_bessel_i(1, np.abs(x)), x)


def _bessel_i(order: int, x: np.ndarray) -> np.ndarray:
    """Sum the power series, or beyond 30 the asymptotic one: DLMF 10.25.2 and 10.40.1."""
    small, large = np.minimum(x, 30.0), np.clip(x, 30.0, 720.0)  # beyond 714 it is infinite
    term = (small / 2) ** order
    series = np.zeros_like(term)
    for k in range(1, 70):
        series = series + term
        term = term * (small / 2) * (small / 2) / (k * (k + order))
    term = np.ones_like(large)
    tail = np.zeros_like(term)
    for k in range(1, 30):
        tail = tail + term
        term = term * ((2 * k - 1) ** 2 - 4 * order**2) / (8 * k * large)
    half = np.exp(large / 2)  # the whole exponential would overflow too early
    return np.where(x <= 30.0, series, half * (tail / np.sqrt(2 * np.pi * large)) * half)


# --- error functions ------------------------------------------------------------------------------


def erfcx(x: np.ndarray) -> np.ndarray:
    """Scaled complementary error function, exp(x^2) erfc(x)."""
    near = np.clip(x, -30.0, 10.0)
    upper = near.astype(np.float32).astype(np.float64)  # its square is exact
    square_rest = (near - upper) * (near + upper)
    scaled = np.exp(upper * upper) * (erfc(near) * np.exp(square_rest))
    far = np.maximum(x, 10.0)
    term = np.ones_like(far)
    tail = np.zeros_like(term)
    for k in range(1, 16):  # DLMF 7.12.1
        tail = tail + term
        term = -term * (2 * k - 1) / (2 * far) / far
    return np.where(x <= 10.0, scaled, tail * (_TWO_BY_SQRT_PI / 2) / far) + 0 * _nan_of(x)


def _nan_of(x: np.ndarray) -> np.ndarray:
    """Keep what is not a number when others are clipped."""
    return np.where(np.isnan(x), x, 0.0)


def normcdf(x: np.ndarray) -> np.ndarray:
    """Cumulative distribution function of the standard normal, erfc(-x / sqrt(2)) / 2.

    The relative error of the argument grows with x^2 in the result, so what rounding it dropped is
    added to the first order.
    """
    x = np.clip(x, -40.0, 40.0)
    argument = -x * _HALF_SQRT
    upper, factor = (v.astype(np.float32).astype(np.float64) for v in (x, np.array(_HALF_SQRT)))
    lower, factor_rest = x - upper, _HALF_SQRT - factor
    product = -argument
    rest = ((upper * factor - product) + upper * factor_rest + lower * factor) + lower * factor_rest
    rest = rest + x * _HALF_SQRT_REST
    return erfc(argument) * (1 + rest * _TWO_BY_SQRT_PI / erfcx(argument)) / 2


def erfinv(x: np.ndarray) -> np.ndarray:
    """Inverse of erf, beyond one half through `erfcinv`."""
    size = np.abs(x)
    outer = erfcinv(1 - np.maximum(size, 0.5))
    return np.where(size <= 0.5, _erfinv_near_zero(x), np.copysign(outer, x))


def _erfinv_near_zero(x: np.ndarray) -> np.ndarray:
    """Solve erf(y) = x for |x| <= 1/2 by Halley's method."""
    x = np.clip(x, -0.5, 0.5)
    y = np.copysign(_first_guess((1 - x) * (1 + x)), x)
    for _ in range(3):
        step = (erf(y) - x) / (_TWO_BY_SQRT_PI * np.exp(-y * y))
        y = y - step / (1 + y * step)
    return y


def erfcinv(x: np.ndarray) -> np.ndarray:
    """Inverse of erfc: solved by Newton's method on its logarithm, which keeps tiny x exact."""
    tail = np.minimum(x, 2 - x)  # erfc(-y) = 2 - erfc(y)
    small = np.where((tail > 0) & (tail < 0.5), tail, 0.5)
    y = _first_guess(small * (2 - small))
    for _ in range(5):
        scaled = erfcx(y)
        y = y + (np.log(scaled) - y * y - np.log(small)) * scaled / _TWO_BY_SQRT_PI
    y = np.where(tail == 0, np.inf, y)
    y = np.where(x < 1, y, -y)
    y = np.where(tail < 0.5, y, _erfinv_near_zero(1 - x))
    return np.where(tail >= 0, y, np.nan)


def _first_guess(one_minus_square: np.ndarray) -> np.ndarray:
    """Winitzki's approximation of erfinv(x), given 1 - x^2: within 2 in 1000."""
    a, log = 0.147, np.log(one_minus_square)
    middle = 2 / (np.pi * a) + log / 2
    return np.sqrt(np.maximum(np.sqrt(middle * middle - log / a) - middle, 0.0))


def normcdfinv(x: np.ndarray) -> np.ndarray:
    """Inverse of `normcdf`."""
    return -erfcinv(2 * x) / _HALF_SQRT
