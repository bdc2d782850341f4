"""GELU: the Gaussian error linear unit, x·Φ(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415).

    erf:   gelu(x) = x · ½(1 + erf(x / √2))                        the definition
    tanh:  gelu(x) = x · ½(1 + tanh(u)),  u = √(2/π)·(x + 0.044715·x³)

GPT-1, GPT-2 and GPT-3 use the tanh form; the two differ by up to 4.73e-4, so weights trained with
one are not to be run with the other.

Edge semantics, the same in both twins: gelu(∞) = ∞; gelu(−∞) = −∞ · 0 and the derivative at ±∞,
which contains ∞ · 0, are NaN, as in PyTorch.
"""

import math
from typing import Any

import numpy as np

from ..checks import expect_floats, expect_shape, refuse
from ..operation import at_least_float32, value_of

Saved = tuple[np.ndarray, str]

APPROXIMATIONS = ("tanh", "erf")
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715
# Beyond ±40 both forms are x or 0 to the last bit of float64, and their slopes have underflowed to
# 0. Clamping there keeps x³ from overflowing.
SATURATED = 40.0

_erf = np.vectorize(math.erf, otypes=[np.float64])


@at_least_float32
def gelu_forward(x: np.ndarray, *, approximate: str = "tanh") -> tuple[np.ndarray, Saved]:
    """Apply GELU to each element.

    Parameters
    ----------
    x : numpy.ndarray [...]
        Any shape.
    approximate : str
        "tanh" (what the GPTs use) or "erf" (the definition).

    Returns
    -------
    result : numpy.ndarray
        Shaped like `x`.
    saved : tuple
        For `gelu_backward`: the input itself.

    Raises
    ------
    ValueError
        If there is no such form.
    """
    check_gelu(x, approximate)
    return x * gate(x, approximate), (x, approximate)


gelu = value_of(gelu_forward)


@at_least_float32
def gelu_backward(saved: Saved, d_result: np.ndarray) -> np.ndarray:
    """Carry the gradient back: d(x·g(x)) = g + x·g′.

    Parameters
    ----------
    saved : tuple
        From `gelu_forward`.
    d_result : numpy.ndarray
        Gradient with respect to the result, shaped like `x`.

    Returns
    -------
    numpy.ndarray
        Gradient with respect to `x`.

    Raises
    ------
    ValueError
        If `d_result` is not shaped like `x`.
    """
    x, approximate = saved
    expect_shape("d_result", d_result, x.shape)
    share = gate(x, approximate)
    slope = gate_slope(x, share, approximate)
    return d_result * (share + x * slope)


def gate(x: np.ndarray, approximate: str) -> np.ndarray:
    """Return the share of x that passes, g(x): Φ(x) or its tanh form."""
    x = np.clip(x, -SATURATED, SATURATED)  # NaN stays NaN.
    if approximate == "erf":
        return 0.5 * (1 + _erf(x * math.sqrt(0.5)).astype(x.dtype))
    u = SQRT_2_OVER_PI * x * (1 + CUBIC * x * x)
    return 0.5 * (1 + np.tanh(u))


def gate_slope(x: np.ndarray, share: np.ndarray, approximate: str) -> np.ndarray:
    """Return the derivative g′(x), given g(x)."""
    x = np.clip(x, -SATURATED, SATURATED)
    if approximate == "erf":
        return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    # g = ½(1 + tanh u) has the derivative ½(1 − tanh² u) = 2g(1 − g) in u.
    d_u = SQRT_2_OVER_PI * (1 + 3 * CUBIC * x * x)
    return 2 * share * (1 - share) * d_u


def check_gelu(x: Any, approximate: Any) -> None:
    """Refuse what holds no floats, and a form that does not exist."""
    expect_floats(x=x)
    if approximate not in APPROXIMATIONS:
        refuse("approximate", "'tanh' or 'erf'", repr(approximate), "PyTorch's 'none' is 'erf'")
