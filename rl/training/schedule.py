"""Learning rates as functions of the step, so that a resumed run needs no scheduler's state."""

import math


def cosine(step: int, steps: int, peak: float, warmup: int, final: float) -> float:
    """Rise linearly, then fall along a cosine: GPT-3's schedule, appendix B.

    Parameters
    ----------
    step, steps : int
        The step, from 0, and how many there are.
    peak : float
        The highest rate.
    warmup : int
        Steps of the rise; the rate is never 0.
    final : float
        The last rate as a share of the peak.

    Returns
    -------
    float
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(steps - 1 - warmup, 1)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def constant_after_warmup(step: int, peak: float, warmup: int, first: float = 0.1) -> float:
    """Rise linearly from a share of the peak, then stay: InstructGPT C.4.

    Parameters
    ----------
    step : int
        From 0.
    peak : float
        The rate after the rise.
    warmup : int
        Steps of the rise.
    first : float
        Share of the peak at step 0.

    Returns
    -------
    float
    """
    if step >= warmup:
        return peak
    return peak * (first + (1 - first) * step / warmup)


def linear(step: int, steps: int, peak: float, warmup: int) -> float:
    """Rise linearly, then fall linearly to 0: GPT-1's fine-tuning.

    Parameters
    ----------
    step, steps : int
        The step, from 0, and how many there are.
    peak : float
        The highest rate.
    warmup : int
        Steps of the rise; the rate is never 0 while there is a step.

    Returns
    -------
    float
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / max(steps - warmup, 1)
