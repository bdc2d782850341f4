"""Two judges that learnt from different halves: why they part when one of them is optimised.

Bai et al. (arXiv 2204.05862, section 4.2) split the comparisons, train a preference model on each
half, optimise a policy against the first, and read both. They agree at first and part at high
scores: the first one's error is optimised along with what it means. Here is the case in which all
of it is known. An answer's worth is g ~ N(0, 1), and judge i sees

    PM_i = g + e_i,      e_i ~ N(0, s²), independent

Keep the best of n answers by PM_1. With m_n the mean of the greatest of n standard normals,

    E PM_1 = m_n·√(1 + s²)          what the optimised judge says
    E PM_2 = E g = m_n / √(1 + s²)  what the other one says, and what it is worth

since PM_1 alone is known of a chosen answer, and g given PM_1 is PM_1/(1 + s²) on average. Their
ratio is 1 + s² for every n, so that the gap grows as m_n does, and later for a better judge. (A
tail heavier than the normal's would let g itself fall, as the policies of real runs do.)
"""

import math
from typing import NamedTuple

import numpy as np

from ..checks import expect_positive, refuse

_X = np.linspace(-12.0, 12.0, 4801)
_BELOW = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in _X])  # Φ(x)


class Judged(NamedTuple):
    """What two judges say of the best of n by the first: `train` is its word, `test` the other's.

    `test` is also what the answers are worth.
    """

    train: float
    test: float


def mean_of_greatest(n: int) -> float:
    """Return m_n, the mean of the greatest of n standard normals: ∫ x dΦ(x)^n.

    Parameters
    ----------
    n : int
        At least 1.

    Returns
    -------
    float
        To 10 digits for n up to a million.
    """
    expect_positive("n", n)
    # By parts: the mean is ∫_0^∞ (1 − Φ^n) dx − ∫_−∞^0 Φ^n dx, without a derivative.
    above, below = _X >= 0, _X <= 0
    power = _BELOW**n
    return float(np.trapezoid(1 - power[above], _X[above]) - np.trapezoid(power[below], _X[below]))


def best_of_n_judged(n: int, error_variance: float) -> Judged:
    """Return what two judges say of the best of n by the first.

    Parameters
    ----------
    n : int
        At least 1.
    error_variance : float
        s², from 0 on.

    Returns
    -------
    Judged
    """
    if not (math.isfinite(error_variance) and error_variance >= 0):
        refuse("error_variance", "a finite number, at least 0", repr(error_variance))
    m, spread = mean_of_greatest(n), math.sqrt(1 + error_variance)
    return Judged(m * spread, m / spread)
