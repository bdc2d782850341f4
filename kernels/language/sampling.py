"""Sampling in Triton: temperature, top-k, top-p and the draw in one launch, without sorting.

Mathematics (core/language/sampling.py): weights w[j] = ⌊2⁴⁰ · exp((x[j] − max x) / temperature)⌋ as
exact integers, the fewest tokens that top_k and top_p keep, and the first token whose cumulative
weight lies above ⌊u · Σ w⌋. The tokens are the reference's bit for bit, since after one subtraction
and one product in float32 all is integers: no sum depends on its order, and nothing can be
contracted or approximated (a subtraction before a product is no fused multiply-add).

Tiling. One program is one row, walked in blocks; nothing of the row stays between walks:

    vocab ─►  ┌───────┬───────┬───────┬──┐
              │ ──────► max x, any NaN?  │  1
              │ ──────► Σ w              │  1
              │ ──────► two bits of t    │  N_BITS / 2 for top_k, as many for top_p
              │ ──────► what lies above t│  1 for each
              │ ──────► the token        │  1: the cumulative weight of what is kept
              └───────┴───────┴───────┴──┘

A threshold t stands for top_k or top_p: the largest t for which the tokens at or above it number
top_k, or weigh p. Logits are compared as integers of the same order, and t's bits are found from
the top, two in a walk: three candidates are summed side by side. bfloat16 has 16 bits to find,
float16 20 (as a float32), float32 32. Sorting a row of 50,257 takes 16 · 17 / 2 = 136 passes of
compare and exchange, and two arrays as long as the row to exchange in.

Memory. The logits are read from memory once and again from the L2 cache: 3 walks without filters,
up to 12 (bfloat16) or 20 (float32) with one. Two numbers a row are written. The weight of a token
is computed anew in each walk that needs it, some 25 integer operations.

The log-probability comes from the same integers: −(max x − x[token]) / T − log(1 + rest / 2⁴⁰),
where rest is the weight of all tokens but the likeliest.

Deterministic, and no gradient: the results are not differentiable.
"""

import torch

from ...core.language.sampling import (
    HALF_BITS,
    MAX_STEPS,
    MAX_VOCAB,
    POLYNOMIAL,
    STEP_BITS,
    WEIGHT_BITS,
    check_sampling,
    inverse_temperature,
    steps_per_unit,
    units,
    without_filters,
)
from ..common._triton import for_architecture, tl, triton
from ..common.approximation import stands_for
from ..common.indices import signed
from ..common.launch import launch, runs_on_triton
from ..common.strided import part_of, strided
from .sampling_eager import sampling_eager

# The other five sizes that we tried spill: each token needs half a dozen int64 values at once. Left
# alone, Triton 3.9's ptxas spills six registers on sm_90 to fit a third program on a
# multiprocessor. AMD knows no such limit.
_REGISTERS = for_architecture(128, amd=None)
SAMPLING_CONFIGS = [triton.Config({"BLOCK": 2048}, num_warps=8, num_stages=1, maxnreg=_REGISTERS)]
# Low bits of a float32 that are the same in all numbers of one sign.
LOW_BITS = {torch.float32: 0, torch.float16: 12, torch.bfloat16: 16}

_C0, _C1, _C2, _C3, _C4, _C5, _C6 = (tl.constexpr(c) for c in POLYNOMIAL)
_MAX_STEPS = tl.constexpr(float(MAX_STEPS))
_STEP_BITS = tl.constexpr(STEP_BITS)
_STEP = tl.constexpr(2.0**-STEP_BITS)
_HEADROOM = tl.constexpr(WEIGHT_BITS - 31)
_ONE = tl.constexpr(2**WEIGHT_BITS)
_HALF_BITS = tl.constexpr(HALF_BITS)
_LOW_HALF = tl.constexpr(2**HALF_BITS - 1)
_SIGN = tl.constexpr(2**31)


@triton.jit
def _load_logits(row, tokens, vocab):
    """Load as float32; −inf, which is never drawn, beyond the vocabulary."""
    x = tl.load(
        row.ptr + tokens.to(tl.int64) * row.strides[0], mask=tokens < vocab, other=-float("inf")
    )
    return x.to(tl.float32)


@triton.jit
def _keys(x, LOW_BITS: tl.constexpr):
    """Map floats to uint32 of the same order, without the bits that are the same in all."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.int32, bitcast=True)  # −0 counts as 0
    flipped = (bits >> 31).to(tl.uint32, bitcast=True) | _SIGN  # all bits, or the sign alone
    return (bits.to(tl.uint32, bitcast=True) ^ flipped) >> LOW_BITS


@triton.jit
def _weights(x, row_max, steps_per_unit):
    """Return the integers that probabilities are proportional to: 2⁴⁰ for the maximum."""
    steps = tl.minimum((row_max - x) * steps_per_unit, _MAX_STEPS).to(tl.int32)
    fraction = steps.to(tl.uint32) << (32 - _STEP_BITS)  # the whole part falls off the top
    mantissa = tl.full(x.shape, _C6, tl.uint32)
    mantissa = _C5 - tl.umulhi(mantissa, fraction)
    mantissa = _C4 - tl.umulhi(mantissa, fraction)
    mantissa = _C3 - tl.umulhi(mantissa, fraction)
    mantissa = _C2 - tl.umulhi(mantissa, fraction)
    mantissa = _C1 - tl.umulhi(mantissa, fraction)
    mantissa = _C0 - tl.umulhi(mantissa, fraction)
    return (mantissa.to(tl.int64) << _HEADROOM) >> (steps >> _STEP_BITS).to(tl.int64)


@triton.jit
def _rest_exactly(row, vocab, row_max, steps_per_unit, total, BLOCK: tl.constexpr):
    """Return Σ 2^(−(max x − x[j]) · log₂e / temperature) of all tokens but one likeliest."""
    rest = tl.full([], -1.0, tl.float32)
    for start in range(0, vocab, BLOCK):
        x = _load_logits(row, start + tl.arange(0, BLOCK), vocab)
        rest += tl.sum(tl.exp2((x - row_max) * steps_per_unit * _STEP), axis=0)
    return rest


@stands_for(_rest_exactly, low=0.0, high=float("inf"))
@triton.jit
def _rest(row, vocab, row_max, steps_per_unit, total, BLOCK: tl.constexpr):
    """Return the weight of all tokens but one likeliest in units of that one's, from integers."""
    return (total - _ONE).to(tl.float32) * (1.0 / _ONE)


@triton.jit
def _log_1_plus_exactly(rest):
    """Return log(1 + rest)."""
    return tl.log(1.0 + rest)


@stands_for(_log_1_plus_exactly, low=0.0, high=float(MAX_VOCAB))
@triton.jit
def _log_1_plus(rest):
    """Return log(1 + rest) without the digits that 1 + rest rounds away."""
    more = 1.0 + rest
    return tl.where(more == 1.0, rest, tl.log(more) * (rest / (more - 1.0)))


@triton.jit
def _threshold(
    row,  # Strided [token]
    vocab,
    row_max,
    steps_per_unit,
    target,  # int64
    BY_WEIGHT: tl.constexpr,
    LOW_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find the largest key such that the tokens at or above it number, or weigh, the target.

    Returns the key, what the tokens above it number or weigh, their weight, and the weight of one
    token at the key.
    """
    threshold = tl.full([], 0, tl.uint32)
    for i in range(0, (32 - LOW_BITS) // 2):
        quarter = tl.full([], 1, tl.uint32) << (32 - LOW_BITS - 2 - 2 * i)
        first, second, third = threshold + quarter, threshold + 2 * quarter, threshold + 3 * quarter
        at_first = tl.full([], 0, tl.int64)
        at_second = tl.full([], 0, tl.int64)
        at_third = tl.full([], 0, tl.int64)
        for start in range(0, vocab, BLOCK):
            tokens = start + tl.arange(0, BLOCK)
            x = _load_logits(row, tokens, vocab)
            keys = _keys(x, LOW_BITS)
            if BY_WEIGHT:
                size = _weights(x, row_max, steps_per_unit)
            else:
                size = (tokens < vocab).to(tl.int64)
            at_first += tl.sum(tl.where(keys >= first, size, 0), axis=0)
            at_second += tl.sum(tl.where(keys >= second, size, 0), axis=0)
            at_third += tl.sum(tl.where(keys >= third, size, 0), axis=0)
        # The sums fall from one candidate to the next, so the first ones reach the target.
        reached = (at_first >= target).to(tl.uint32)
        reached += (at_second >= target).to(tl.uint32)
        reached += (at_third >= target).to(tl.uint32)
        threshold += reached * quarter

    n_above = tl.full([], 0, tl.int32)
    above = tl.full([], 0, tl.int64)
    at = tl.full([], 0, tl.int64)
    for start in range(0, vocab, BLOCK):
        tokens = start + tl.arange(0, BLOCK)
        x = _load_logits(row, tokens, vocab)
        keys = _keys(x, LOW_BITS)
        weights = _weights(x, row_max, steps_per_unit)
        n_above += tl.sum((keys > threshold).to(tl.int32), axis=0)
        above += tl.sum(tl.where(keys > threshold, weights, 0), axis=0)
        at = tl.maximum(at, tl.max(tl.where(keys == threshold, weights, 0), axis=0))
    return threshold, n_above, above, at


@triton.jit
def _draw_target(total, seed, row, step):
    """Return ⌊u · total⌋, u being 62 random bits / 2⁶², in halves that do not overflow."""
    u_high, u_low, _, _ = tl.philox(seed, row.to(tl.uint32), tl.cast(step, tl.uint32), 0, 0)
    u_high, u_low = u_high.to(tl.int64) >> 1, u_low.to(tl.int64) >> 1
    high, low = total >> _HALF_BITS, total & _LOW_HALF
    middle = u_high * low + u_low * high + ((u_low * low) >> _HALF_BITS)
    return u_high * high + (middle >> _HALF_BITS)


@triton.autotune(SAMPLING_CONFIGS, key=["vocab"])
@triton.jit(do_not_specialize=["seed", "step"])
def sampling_kernel(
    logits,  # Strided [row, token]
    tokens_ptr,  # int64 [row]
    log_prob_ptr,  # float32 [row]
    rows_ptr,  # int32 or int64 [row], or None
    vocab,
    steps_per_unit,  # log₂e · 2²⁴ / temperature
    inverse_temperature,
    top_k,  # or None
    top_p_units,  # in 2⁻³¹, or None
    seed,
    step,
    GREEDY: tl.constexpr,
    LOW_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Draw one row's token."""
    number = tl.program_id(0)
    row = part_of(logits, number)
    largest = tl.full([BLOCK], -float("inf"), tl.float32)
    broken = tl.zeros([BLOCK], tl.int32)
    for start in range(0, vocab, BLOCK):
        x = _load_logits(row, start + tl.arange(0, BLOCK), vocab)
        largest = tl.maximum(largest, x)
        broken |= ((x != x) | (x == float("inf"))).to(tl.int32)
    row_max = tl.max(largest, axis=0)
    drawable = (tl.max(broken, axis=0) == 0) & (row_max > -float("inf"))

    total = tl.full([], 0, tl.int64)
    for start in range(0, vocab, BLOCK):
        x = _load_logits(row, start + tl.arange(0, BLOCK), vocab)
        total += tl.sum(_weights(x, row_max, steps_per_unit), axis=0)
    rest = _rest(row, vocab, row_max, steps_per_unit, total, BLOCK)
    log_total = _log_1_plus(rest)

    if GREEDY:
        token = tl.cast(vocab, tl.int32)
        x_token = row_max
        for start in range(0, vocab, BLOCK):
            tokens = start + tl.arange(0, BLOCK)
            x = _load_logits(row, tokens, vocab)
            token = tl.minimum(token, tl.min(tl.where(x == row_max, tokens, vocab), axis=0))
    else:
        # All tokens above the threshold are kept, and the first n_tied of those at it.
        threshold = tl.full([], 0, tl.uint32)
        n_tied = tl.cast(vocab, tl.int64)
        kept_total = total
        if top_k is not None:
            target = tl.cast(top_k, tl.int64)
            threshold, n_above, above, weight = _threshold(
                row, vocab, row_max, steps_per_unit, target, False, LOW_BITS, BLOCK
            )  # fmt: skip
            n_tied = target - n_above
            kept_total = above + n_tied * weight
        if top_p_units is not None:
            p = tl.cast(top_p_units, tl.int64)
            # ⌈p · kept_total / 2³¹⌉, in halves that do not overflow.
            rest = p * (kept_total & _LOW_HALF)
            target = p * (kept_total >> _HALF_BITS) + ((rest + _LOW_HALF) >> _HALF_BITS)
            threshold, n_above, above, weight = _threshold(
                row, vocab, row_max, steps_per_unit, target, True, LOW_BITS, BLOCK
            )  # fmt: skip
            weight = tl.maximum(weight, 1)  # it is 0 only in a row that cannot be drawn from
            n_tied = (target - above + weight - 1) // weight
            kept_total = above + n_tied * weight

        drawn_for = number if rows_ptr is None else tl.load(rows_ptr + number)
        target = _draw_target(kept_total, seed, drawn_for, step)
        token = tl.full([], 0, tl.int32)  # the first whose cumulative weight lies above the target
        x_token = tl.full([], 0.0, tl.float32)
        weight_before = tl.full([], 0, tl.int64)
        tied_before = tl.full([], 0, tl.int32)
        for start in range(0, vocab, BLOCK):
            tokens = start + tl.arange(0, BLOCK)
            x = _load_logits(row, tokens, vocab)
            weights = _weights(x, row_max, steps_per_unit)
            if top_k is not None or top_p_units is not None:
                keys = _keys(x, LOW_BITS)
                tied = ((keys == threshold) & (tokens < vocab)).to(tl.int32)
                rank = tied_before + tl.cumsum(tied, axis=0)
                kept = (keys > threshold) | ((tied == 1) & (rank <= n_tied))
                weights = tl.where(kept, weights, 0)
                tied_before += tl.sum(tied, axis=0)
            up_to = weight_before + tl.cumsum(weights, axis=0)
            token += tl.sum(((up_to <= target) & (tokens < vocab)).to(tl.int32), axis=0)
            drawn = (up_to > target) & (up_to - weights <= target)  # one token of the row
            x_token += tl.sum(tl.where(drawn, x, 0.0), axis=0)
            weight_before += tl.sum(weights, axis=0)
    log_prob = (x_token - row_max) * inverse_temperature - log_total
    tl.store(tokens_ptr + number, tl.where(drawable, token, -1).to(tl.int64))
    tl.store(log_prob_ptr + number, tl.where(drawable, log_prob, float("nan")))


def sampling(
    logits: torch.Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    step: int = 0,
    rows: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token for each row of logits; the twin of `gptwin.core.language.sampling.sampling`.

    Given the same logits, the tokens are the reference's, bit for bit.

    Parameters
    ----------
    logits : torch.Tensor [row, vocab]
        float32, float16 or bfloat16, any strides.
    temperature : float
        Divides the logits; finite. 0 takes the likeliest token, the first of equal ones.
    top_k : int, optional
        Draw from the `top_k` likeliest tokens alone; of equal ones the first.
    top_p : float, optional
        Draw from the fewest tokens that have at least this share of the probability that `top_k`
        left; of equal ones the first.
    seed : int
        Of the random bits; fits 64 bits.
    step : int
        Of the rollout; fits 32 bits. Row r draws `philox(seed, rows[r], step, 0, 0)`.
    rows : torch.Tensor of int [row], optional
        Each row's number in the whole draw, from 0 and below 2^32, for one that is done in parts;
        by default 0, 1, 2, ...

    Returns
    -------
    tokens : torch.Tensor of int64 [row]
        The draws; −1 in a row that holds NaN or +inf, or nothing above −inf.
    log_prob : torch.Tensor of float32 [row]
        Of each drawn token under the whole softmax at this temperature, before `top_k` and `top_p`;
        at temperature 0, under the softmax at temperature 1. At most 0; NaN where nothing is drawn.
        Without a gradient.

    Raises
    ------
    ValueError
        If an argument has no meaning.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_sampling(logits, temperature, top_k, top_p, seed, step, rows)
    rows, seed, step = signed(rows), int(seed), int(step)
    top_k = None if top_k is None else int(top_k)
    if not runs_on_triton("sampling", logits=logits, rows=rows):
        return sampling_eager(
            logits,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            step=step,
            rows=rows,
        )
    n_rows, vocab = logits.shape
    temperature, top_k, top_p = without_filters(vocab, temperature, top_k, top_p)
    tokens = torch.empty(n_rows, dtype=torch.int64, device=logits.device)
    log_prob = torch.empty(n_rows, dtype=torch.float32, device=logits.device)
    launch(
        sampling_kernel,
        (n_rows,),
        *(strided(logits.detach()), tokens, log_prob),
        *(None if rows is None else rows.contiguous(), vocab),
        *(steps_per_unit(temperature), inverse_temperature(temperature)),
        *(top_k, None if top_p is None else units(top_p), seed, step),
        GREEDY=top_k == 1,
        LOW_BITS=LOW_BITS[logits.dtype],
    )
    return tokens, log_prob
