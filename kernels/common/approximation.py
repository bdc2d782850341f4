"""How a kernel file declares that a device function approximates another: `stands_for`.

A proof of equality (lab/prove/equal/) takes the exact function instead, and so says what the kernel
computes if the approximation is perfect. How far from that it is, is measured on every float32 of
the interval. The two together cover the kernel.
"""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Approximation:
    """What a device function approximates.

    Attributes
    ----------
    exact : a `triton.jit` function
        Takes the same arguments; compiled into no kernel.
    low, high : float
        The interval of the first argument on which it is used, the ends included.
    """

    exact: Any
    low: float
    high: float


def stands_for(exact: Any, *, low: float, high: float) -> Callable[[Any], Any]:
    """Declare that a device function approximates another.

    Parameters
    ----------
    exact : a `triton.jit` function
    low, high : float
        The interval of the first argument on which it is used.

    Returns
    -------
    callable
        A decorator, above `triton.jit`; the function stays as it is.
    """

    def mark(function: Any) -> Any:
        function.approximation = Approximation(exact, low, high)
        return function

    return mark
