"""Sampling in plain PyTorch: on a CPU, and as a yardstick.

Mathematics: core/language/sampling.py. The tokens are the reference's bit for bit here, too:
weights are integers after two roundings, and sums of integers have no order. A draw is made in two
parts: what only Python knows, which is seed, step and rows, becomes random bits and factors
(`Draw`), and then logits become tokens.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch

from ...core.language.sampling import (
    HALF_BITS,
    MAX_STEPS,
    POLYNOMIAL,
    STEP_BITS,
    WEIGHT_BITS,
    inverse_temperature,
    steps_per_unit,
    units,
    without_filters,
)
from ...core.philox import philox

# Draws whose random words are computed at once.
WORDS_AT_ONCE = 4096
_LOW_HALF = 2**HALF_BITS - 1


def sampling_eager(
    logits: torch.Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    step: int = 0,
    rows: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same in plain PyTorch, by sorting: for the CPU and as a yardstick.

    Parameters
    ----------
    logits, temperature, top_k, top_p, seed, step, rows
        As in `sampling`.

    Returns
    -------
    tuple of torch.Tensor
        As from `sampling`; the log-probabilities are float64 if the logits are.
    """
    temperature, top_k, top_p = without_filters(logits.shape[1], temperature, top_k, top_p)
    logits = logits.detach()
    numbers = tuple(range(len(logits)) if rows is None else rows.tolist())
    draw = draw_of(numbers, logits.device, temperature=temperature, seed=seed, step=step)
    row_max = logits.amax(dim=1, keepdim=True).float()  # [row, 1], NaN if a logit is
    if all(map(math.isfinite, row_max[:, 0].tolist())):
        return _drawn(logits, row_max, draw, top_k, top_p)
    return _drawn_where_possible(logits, row_max, draw, top_k, top_p)


class Draw(NamedTuple):
    """What rows of logits are drawn from by.

    Attributes
    ----------
    u_halves : torch.Tensor of int64 [2, row]
        31 higher and 31 lower random bits of each row.
    to_steps, inverse : torch.Tensor [] and the same or None
        What logits are multiplied with for the draw, and for the log-probability; None: 1.
    """

    u_halves: torch.Tensor
    to_steps: torch.Tensor
    inverse: torch.Tensor | None


def draw_of(
    rows: tuple[int, ...], device: torch.device, *, temperature: float, seed: int, step: int
) -> Draw:
    """Prepare a draw.

    Parameters
    ----------
    device : torch.device
    temperature : float
        Above 0.
    """
    n_steps = max(1, WORDS_AT_ONCE // max(1, len(rows)))
    u_halves = _random_halves(seed, rows, step // n_steps, n_steps, device)[step % n_steps]
    return Draw(u_halves, *_factors(temperature, device))


@functools.lru_cache(maxsize=4)
def _factors(temperature: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    to_steps = torch.tensor(steps_per_unit(temperature), dtype=torch.float32, device=device)
    inverse = torch.tensor(inverse_temperature(temperature), dtype=torch.float64, device=device)
    return to_steps, None if temperature == 1 else inverse


def _drawn_where_possible(
    logits: torch.Tensor,
    row_max: torch.Tensor,
    draw: Draw,
    top_k: int | None = None,
    top_p: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a token of each row; −1 and NaN where its largest logit is not finite."""
    drawable = row_max.isfinite()
    others, of_others = logits.where(drawable, 0), row_max.where(drawable, 0)
    tokens, log_prob = _drawn(others, of_others, draw, top_k, top_p)
    return tokens.where(drawable[:, 0], -1), log_prob.where(drawable[:, 0], torch.nan)


def _drawn(
    logits: torch.Tensor,
    row_max: torch.Tensor,
    draw: Draw,
    top_k: int | None,
    top_p: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a token of each row, all of which hold something to draw."""
    x = logits.float()
    kept = _weights(x, row_max, draw.to_steps)
    if top_k is not None or top_p is not None:
        kept = _filtered(kept, x, top_k, top_p)
    up_to = kept.cumsum(dim=1)
    target = _draw_target(up_to[:, -1], draw.u_halves)
    tokens = torch.searchsorted(up_to, target[:, None], right=True)  # [row, 1]
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if draw.inverse is not None:  # of differences: at low temperatures a product may be infinite
        scaled = (scaled - row_max) * draw.inverse
    log_prob = scaled.log_softmax(dim=1).gather(1, tokens)
    return tokens[:, 0], log_prob[:, 0]


def _filtered(
    weights: torch.Tensor, x: torch.Tensor, top_k: int | None, top_p: float | None
) -> torch.Tensor:
    """Set to 0 the weights [row, vocab] that the filters leave out of the draw."""
    by_logit = x.argsort(dim=1, descending=True, stable=True)
    kept = weights.gather(1, by_logit)  # [row, vocab], the likeliest first
    if top_k is not None:
        kept[:, top_k:] = 0
    if top_p is not None:
        p, total = units(top_p), kept.sum(dim=1, keepdim=True)
        rest = p * (total & _LOW_HALF)
        target = p * (total >> HALF_BITS) + ((rest + _LOW_HALF) >> HALF_BITS)
        kept = kept.where(kept.cumsum(dim=1) - kept < target, 0)
    return torch.empty_like(kept).scatter_(1, by_logit, kept)  # by token again


def _draw_target(total: torch.Tensor, u_halves: torch.Tensor) -> torch.Tensor:
    """Return ⌊u · total⌋ [row], u being 62 random bits / 2⁶², in halves that do not overflow."""
    u_high, u_low = u_halves.unbind()
    high, low = total >> HALF_BITS, total & _LOW_HALF
    middle = (u_low * low >> HALF_BITS).addcmul_(u_high, low).addcmul_(u_low, high)
    return (middle >> HALF_BITS).addcmul_(u_high, high)


@functools.lru_cache(maxsize=4)
def _random_halves(
    seed: int, rows: tuple[int, ...], block: int, n_steps: int, device: torch.device
) -> torch.Tensor:
    """Draw 31 higher and 31 lower bits for some steps, [step, 2, row]: few numbers take as long."""
    steps = block * n_steps + np.arange(n_steps)[:, None]
    words = philox(seed, np.array(rows, dtype=np.int64), steps, 0, 0)[:2]
    return torch.from_numpy(np.stack(words, axis=1).astype(np.int64) >> 1).to(device)


def _weights(x: torch.Tensor, row_max: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the integers that probabilities are proportional to: 2⁴⁰ for the maximum."""
    below = (row_max - x).mul_(scale)
    steps = below.clamp_(max=float(MAX_STEPS)).long()
    minus_fraction = (steps & (2**STEP_BITS - 1)).neg_()
    # Of two negative numbers the product is positive: what is dropped of it is what the reference
    # drops, and its coefficient − ⌊mantissa·fraction⌋, negated, is a shift and a subtraction.
    minus_mantissa = torch.full_like(steps, -POLYNOMIAL[-1])
    for coefficient in reversed(POLYNOMIAL[:-1]):
        minus_mantissa.mul_(minus_fraction).bitwise_right_shift_(STEP_BITS).sub_(coefficient)
    whole = steps.bitwise_right_shift_(STEP_BITS)
    return minus_mantissa.neg_().bitwise_left_shift_(WEIGHT_BITS - 31).bitwise_right_shift_(whole)
