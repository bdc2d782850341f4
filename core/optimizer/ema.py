"""Exponential moving average of a model's parameters.

    average ← decay · average + (1 − decay) · parameter

after each optimizer step: the average follows the parameters with a memory of 1 / (1 − decay)
steps. InstructGPT (arXiv 2203.02155, C.4) keeps one with decay 0.992 during PPO and deploys it.

After n steps, an average that began at a₀ is decayⁿ·a₀ + (1 − decay)·Σ decay^(n−1−t)·p_t, t from 0
to n − 1. There is no bias correction: start the average as a copy of the parameters.

Edge semantics, the same in both twins: decay 1 keeps the averages, decay 0 copies the parameters;
empty tensors and empty lists are fine; an infinite or NaN parameter spoils its own element alone.
There is no gradient: an average is a record, not part of a loss.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks import expect_matching_lists, refuse


def ema(
    averages: Sequence[np.ndarray], parameters: Sequence[np.ndarray], decay: float
) -> list[np.ndarray]:
    """Compute the averages after one more step.

    Parameters
    ----------
    averages : sequence of numpy.ndarray
        The averages so far; any shapes.
    parameters : sequence of numpy.ndarray
        The parameters now, in the same order and of the same shapes.
    decay : float
        Share of the old average that stays, 0 to 1.

    Returns
    -------
    list of numpy.ndarray
        The new averages, shaped and typed like the old ones.

    Raises
    ------
    ValueError
        If the lists do not match or `decay` is outside [0, 1].
    """
    check_ema(averages, parameters, decay)
    decay = float(decay)  # a NumPy float64 scalar would promote a float32 model
    result = []
    for average, parameter in zip(averages, parameters, strict=True):
        wide = np.promote_types(average.dtype, np.float32)  # float16 is rounded once, at the end
        moved = decay * average.astype(wide) + (1 - decay) * parameter.astype(wide)
        result.append(np.asarray(moved, dtype=average.dtype))
    return result


def check_ema(averages: Any, parameters: Any, decay: float) -> None:
    """Refuse arguments that `ema` has no meaning for."""
    expect_matching_lists(averages=averages, parameters=parameters)
    if not (math.isfinite(decay) and 0 <= decay <= 1):
        refuse("decay", "a number from 0 to 1", repr(decay))
