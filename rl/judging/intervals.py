"""How sure a share is: Wilson's interval, which is honest near 0 and 1, too.

With p = k/n and z = 1.96 (95%),

    centre = (p + z²/2n) / (1 + z²/n)        half = z/(1 + z²/n) · √(p(1 − p)/n + z²/4n²)

Where k is 0 or n the textbook's p ± z√(p(1 − p)/n) has no width at all: 0 of 50 would be "0% for
certain", while the true share may well be 7%. Source: Wilson, JASA 22, 1927.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ...core.checks import refuse

Z = 1.959963984540054  # 97.5% of a normal distribution lies below


def wilson(right: int, n: int, z: float = Z) -> tuple[float, float]:
    """Return the interval of a share of which `right` of `n` trials were seen.

    Parameters
    ----------
    right, n : int
        Successes, and independent trials, at least one.
    z : float
        1.96 for 95%.

    Returns
    -------
    low, high : float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If there is no trial, or `right` is not from 0 to `n`.
    """
    if n < 1:
        refuse("n", "a trial at least", str(n), "no item was left to count")
    if not 0 <= right <= n:
        refuse("right", f"0 to n = {n}", str(right))
    share, spread = right / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low = 0.0 if right == 0 else centre - half
    high = 1.0 if right == n else centre + half
    return low, high


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A share of right answers; `low` and `high` are the ends of Wilson's 95% interval."""

    right: int
    n: int

    @property
    def share(self) -> float:
        """Right answers of all."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval, of 95%."""
        return wilson(self.right, self.n)

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"right": self.right, "n": self.n, "accuracy": self.share, "interval": self.interval}


def accuracy(rights: Sequence[bool]) -> Accuracy:
    """Count right answers."""
    return Accuracy(sum(rights), len(rights))
