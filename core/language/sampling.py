"""Sampling: the next token, drawn from the logits; the same token on every machine.

    p[j] ∝ exp(x[j] / temperature),   restricted to top_k, then to top_p,   token = inverse CDF at u

A draw is a comparison, and floating point makes comparisons fragile: exp differs in its last digit
between NumPy, PyTorch and a GPU, a sum depends on its order, and once in a while the cumulative
probability falls on the other side of u. From there on a rollout is another text. So only two
roundings happen in floating point here, a subtraction and a product, which IEEE arithmetic does the
same everywhere; from then on everything is integers:

    steps[j] = ⌊(max x − x[j]) · log₂e · 2²⁴ / temperature⌋      float32, then an integer
    w[j]     = ⌊2⁴⁰ · 2^(−steps[j] / 2²⁴)⌋                        a polynomial in integers

Sums of integers do not depend on their order. top_p asks whether an integer sum reaches the integer
⌈p · Σ w⌉, the draw whether it passes ⌊u · Σ w⌋. Given the same float32 logits the tokens are
therefore equal bit for bit, whatever sums them and in whatever blocks.

What it costs: w is exact to 10⁻⁷ (as exp in float32 is, roughly), and a token whose probability is
less than 2⁻⁴⁰ of the likeliest one's has weight 0 and is never drawn. What is not bit for bit: the
log-probability that is returned, a float of the usual precision, and of course the logits, which
another machine's matrix products round differently.

Ties. The order of tokens is by logit, then by index. top_k keeps the first k of it; top_p keeps the
smallest beginning whose mass is at least p of what top_k left (the token that reaches p is in).
OpenAI's released code for GPT-2 keeps those whose cumulative probability is *at most* p, so mostly
one token less, and at least the first.

The file climbs: `keep` sorts; `keep_by_threshold` finds the same set without sorting, as the kernel
must: the k-th largest logit is the largest number t such that k tokens lie at or above t, and the
bits of t, read from a form of the float that sorts as an integer, are found one by one from the
top. With masses for counts the same search finds the nucleus.

Edge semantics, the same in both twins: temperature 0 takes the likeliest token, the first of equal
ones, as does top_k = 1; a logit of −inf is never drawn; a row that holds NaN or +inf or nothing
above −inf gives token −1 and log-probability NaN, and no other row is touched; no rows give none;
an empty vocabulary is refused.
"""

import math
from typing import Any

import numpy as np

from ..checks import expect_floats, expect_integers, expect_shape, refuse, whole
from ..operation import at_least_float32, value_of
from ..philox import philox

# The exponent of 2 goes in steps of 2⁻²⁴; the likeliest token's weight is 2⁴⁰.
STEP_BITS, WEIGHT_BITS = 24, 40
# At 2⁻⁴⁸ of the likeliest token the weight is 0, and the steps still fit an int32.
MAX_STEPS = 48 << STEP_BITS
# Sums of weights stay below 2⁶¹, so that products of their halves with 31 bits fit an int64.
MAX_VOCAB = 2**20
# 2^(−f) ≈ c₀ − f·(c₁ − f·(c₂ − ...)), interpolated at Chebyshev's points of [0, 1]; times 2³¹.
POLYNOMIAL = (2147483648, 1488522224, 515881603, 119183688, 20609476, 2773769, 246789)
# top_p is taken to the nearest multiple of 2⁻³¹.
HALF_BITS = 31

Results = tuple[np.ndarray, np.ndarray]


@at_least_float32
def sampling_forward(
    logits: np.ndarray,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    step: int = 0,
    rows: np.ndarray | None = None,
) -> tuple[Results, tuple[()]]:
    """Draw one token for each row of logits: the definition.

    Row r takes the random bits `philox(seed, rows[r], step, 0, 0)`: give each step of a rollout
    another `step`, and every batch of prompts another `seed`.

    Parameters
    ----------
    logits : numpy.ndarray of floats [row, vocab]
        Looked at in float32.
    temperature : float
        Divides the logits; finite. 0 takes the likeliest token.
    top_k : int, optional
        Draw from the `top_k` likeliest tokens alone; at least 1, and vocab or more is all of them.
    top_p : float, optional
        Draw from the fewest tokens that have at least this share of the probability that `top_k`
        left; above 0, and 1 is all of them.
    seed : int
        Of the random bits; fits 64 bits.
    step : int
        Of the rollout; fits 32 bits.
    rows : numpy.ndarray of int [row], optional
        Each row's number in the whole draw, from 0, for one that is done in parts; by default
        0, 1, 2, ...

    Returns
    -------
    tokens : numpy.ndarray of int64 [row]
        The draws; −1 where nothing can be drawn.
    log_prob : numpy.ndarray [row]
        Of each drawn token under the *whole* softmax at this temperature, before `top_k` and
        `top_p`: what a policy ratio needs, since training does not filter. At temperature 0, under
        the softmax at temperature 1. Of the logits' dtype; at most 0; NaN where nothing is drawn.
    saved : tuple
        Empty.

    Raises
    ------
    ValueError
        If an argument has no meaning.
    """
    check_sampling(logits, temperature, top_k, top_p, seed, step, rows)
    seed, step = int(seed), int(step)
    temperature, top_k, top_p = without_filters(logits.shape[1], temperature, top_k, top_p)
    # The maximum alone shows what cannot be drawn from: it is NaN if a logit is.
    drawable = np.isfinite(logits.astype(np.float32).max(axis=1))
    logits = np.where(drawable[:, None], logits, 0)  # The other rows are put right at the end.
    x = logits.astype(np.float32)

    w = weights(x, temperature)  # [row, vocab]
    kept = np.where(keep(x, w, top_k, top_p), w, 0)
    target = draw_target(kept.sum(axis=1), seed, step, rows)
    passed = np.cumsum(kept, axis=1) <= target[:, None]
    tokens = passed.sum(
        axis=1
    )  # Drawn is the first token whose cumulative weight lies above the target.

    inverse = logits.dtype.type(inverse_temperature(temperature))
    scaled = (logits - logits.max(axis=1, keepdims=True)) * inverse
    log_total = np.log(np.exp(scaled).sum(axis=1))
    log_prob = np.take_along_axis(scaled, tokens[:, None], axis=1)[:, 0] - log_total
    log_prob = np.where(drawable, np.minimum(log_prob, 0), np.nan).astype(logits.dtype)
    return (np.where(drawable, tokens, -1), log_prob), ()


sampling = value_of(sampling_forward)


def weights(x: np.ndarray, temperature: float) -> np.ndarray:
    """Return the integers, int64 [row, vocab], that the tokens' probabilities are proportional to.

    They are 2⁴⁰ for each row's maximum, which must be finite, and 0 for −inf.
    """
    with np.errstate(over="ignore"):  # A logit infinitely far below has weight 0.
        below = x.max(axis=1, keepdims=True) - x
    steps = np.minimum(below * np.float32(steps_per_unit(temperature)), MAX_STEPS).astype(np.int64)
    fraction = steps & ((1 << STEP_BITS) - 1)
    mantissa = np.full_like(steps, POLYNOMIAL[-1])  # 2³¹ · 2^(−fraction), by Horner's rule
    for coefficient in reversed(POLYNOMIAL[:-1]):
        mantissa = coefficient - (mantissa * fraction >> STEP_BITS)
    return (mantissa << (WEIGHT_BITS - 31)) >> (steps >> STEP_BITS)


def steps_per_unit(temperature: float) -> float:
    """Return how many steps of 2⁻²⁴ in the exponent of 2 one unit of logit is.

    It is log₂e · 2²⁴ / temperature, as a float32 holds it: neither 0 nor infinite.
    """
    return float(np.float32(_bounded(math.log2(math.e) * 2**STEP_BITS / temperature)))


def inverse_temperature(temperature: float) -> float:
    """Return 1 / temperature within float32's range: neither 0 nor infinite."""
    return _bounded(1 / temperature)


def _bounded(number: float) -> float:
    info = np.finfo(np.float32)
    return min(max(number, float(info.tiny)), float(info.max))


def keep(x: np.ndarray, w: np.ndarray, top_k: int | None, top_p: float | None) -> np.ndarray:
    """Say which tokens may be drawn, bool [row, vocab], by sorting: the definition.

    `x` are the logits, float32 without NaN; `w` their weights.
    """
    if top_k is None and top_p is None:
        return np.ones(x.shape, dtype=bool)
    if top_k == 1:  # Greedy generation asks for this at every step.
        return (
            np.arange(x.shape[1]) == x.argmax(axis=1)[:, None]
        )  # Of equal logits argmax takes the first.
    order = np.argsort(-x, axis=1, kind="stable")  # Of equal logits the first token comes first.
    sorted_w = np.take_along_axis(w, order, axis=1)
    kept = np.broadcast_to(np.arange(x.shape[1]) < (top_k or x.shape[1]), x.shape)
    if top_p is not None:
        mass_before = np.cumsum(sorted_w, axis=1) - sorted_w
        target = share_of(np.where(kept, sorted_w, 0).sum(axis=1), top_p)
        kept = kept & (mass_before < target[:, None])
    place = np.argsort(order, axis=1)  # where each token stands in that order
    return np.take_along_axis(kept, place, axis=1)


def keep_by_threshold(
    x: np.ndarray, w: np.ndarray, top_k: int | None, top_p: float | None
) -> np.ndarray:
    """Say the same as `keep` without sorting: a threshold, and how many of the tokens equal to it.

    This is the kernel's way. Each search reads the row once for every bit (for every two, in the
    kernel).
    """
    keys = sortable(x)
    kept = np.ones(x.shape, dtype=bool)
    if top_k is not None:
        target = np.full(len(x), min(top_k, x.shape[1]))
        kept = _fewest(keys, np.ones_like(w), target)
    if top_p is not None:
        kept = _fewest(keys, w, share_of(np.where(kept, w, 0).sum(axis=1), top_p))
    return kept


def _fewest(keys: np.ndarray, size: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Keep the fewest tokens whose sizes reach the target: the largest, of equal ones the first."""
    threshold = largest_threshold(keys, size, target)[:, None]
    above, tied = keys > threshold, keys == threshold
    missing = target - np.where(above, size, 0).sum(axis=1)
    n_tied = -(
        -missing // np.where(tied, size, 0).max(axis=1)
    )  # This many of the equal ones are in.
    return above | (tied & (np.cumsum(tied, axis=1) <= n_tied[:, None]))


def largest_threshold(keys: np.ndarray, size: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Find in each row the largest t such that what lies at or above t adds up to the target [row].

    Returns one of the row's keys, uint32. `size`, int64 [row, vocab], is what each token adds: 1 to
    count tokens, its weight to sum their mass.
    """
    threshold = np.zeros(len(keys), dtype=np.uint32)
    for bit in reversed(range(32)):
        candidate = threshold | np.uint32(1 << bit)
        at_or_above = np.where(keys >= candidate[:, None], size, 0).sum(axis=1)
        threshold = np.where(at_or_above >= target, candidate, threshold)
    return threshold


def sortable(x: np.ndarray) -> np.ndarray:
    """Map floats to integers, uint32, that compare as the floats do.

    Positive floats are in order already and only have to come after the negative ones; those run
    backwards, so that all their bits are flipped. No float may be NaN; −0 counts as 0.
    """
    bits = np.where(x == 0, np.float32(0), x).view(np.uint32)
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))


def share_of(total: np.ndarray, top_p: float) -> np.ndarray:
    """Return ⌈p · total⌉, with p to the nearest 2⁻³¹; exact in 64 bits for totals below 2⁶¹."""
    p = units(top_p)
    low = total & ((1 << HALF_BITS) - 1)
    return p * (total >> HALF_BITS) + (-(-p * low >> HALF_BITS))


def units(top_p: float) -> int:
    """Return `top_p` in units of 2⁻³¹, at least one."""
    return max(1, round(top_p * 2**HALF_BITS))


def draw_target(
    total: np.ndarray, seed: int, step: int, rows: np.ndarray | None = None
) -> np.ndarray:
    """Return ⌊u · total⌋ for each row, u being 62 random bits over 2⁶².

    It is exact in 64 bits for totals below 2⁶¹. Each number from 0 to total − 1 is as likely as the
    next to one part in 2⁶² / total.
    """
    words = philox(seed, np.arange(len(total)) if rows is None else rows, step, 0, 0)
    u_high, u_low = (word.astype(np.int64) >> 1 for word in words[:2])  # 31 bits each
    high, low = total >> HALF_BITS, total & ((1 << HALF_BITS) - 1)
    middle = u_high * low + u_low * high + (u_low * low >> HALF_BITS)
    return u_high * high + (middle >> HALF_BITS)


def without_filters(
    vocab: int, temperature: float, top_k: int | None, top_p: float | None
) -> tuple[float, int | None, float | None]:
    """Drop the filters that keep everything, and write temperature 0 as top_k = 1."""
    if temperature == 0:
        temperature, top_k = 1.0, 1
    if top_k is not None and top_k >= vocab and vocab > 1:
        top_k = None
    if top_k == 1 or top_p == 1:
        top_p = None
    return temperature, top_k, top_p


def check_sampling(
    logits: Any,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    step: int,
    rows: Any = None,
) -> None:
    """Refuse what `sampling` has no meaning for; the logits' values are not looked at."""
    if len(logits.shape) != 2:
        cause = "logits of all times: take the last, logits[:, -1]"
        refuse("logits", "2 dimensions [row, vocab]", f"shape {tuple(logits.shape)}", cause)
    expect_floats(logits=logits)
    if not 1 <= logits.shape[1] <= MAX_VOCAB:
        refuse("logits", f"a vocabulary of 1 to {MAX_VOCAB} tokens", f"{logits.shape[1]}")
    if not (math.isfinite(temperature) and temperature >= 0):
        refuse("temperature", "a finite number, at least 0", repr(temperature))
    if top_k is not None and whole("top_k", top_k) < 1:
        cause = "0 for no filter: leave it out" if top_k == 0 else ""
        refuse("top_k", "None or an integer, at least 1", repr(top_k), cause)
    if top_p is not None and not 0 < top_p <= 1:
        cause = "0 for greedy: that is temperature=0" if top_p == 0 else ""
        refuse("top_p", "None or a number above 0 and at most 1", repr(top_p), cause)
    for name, number, least, limit in (("seed", seed, -(2**63), 2**64), ("step", step, 0, 2**32)):
        if not least <= whole(name, number) < limit:
            refuse(name, f"an integer from {least} to {limit - 1}", repr(number))
    expect_integers(rows=rows)
    if rows is not None:
        expect_shape("rows", rows, (len(logits),), "not one for each row of logits")
