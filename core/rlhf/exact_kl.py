"""Exact KL: the divergence of two next-token distributions, over the whole vocabulary.

    KL(π‖π_ref) = Σ_j p[j]·(log p[j] − log q[j]),   p = softmax(logits), q = softmax(reference)

`kl` estimates this from the sampled token alone; here nothing is estimated. The file climbs:
`exact_kl` is the definition; `exact_kl_online` gets it in one pass over the vocabulary in blocks,
as the kernel must. With maxima m and sums s of both rows,

    KL = Σ_j e^(x[j] − m_p)·((x[j] − m_p) − (y[j] − m_q)) / s_p − log s_p + log s_q

and where a block raises a maximum, the sums so far are brought up to date.

Edge semantics, the same in both twins. A logit of −inf is a token of probability 0: in the policy
it contributes 0 (p log p → 0), and a row of nothing else gives 0; in the reference it makes the KL
+inf if the policy gives that token any probability, that is any logit above −inf, however small.
A row whose KL is +inf has gradient NaN. A logit of +inf or NaN makes its row NaN, and no other: it
is not refused as elsewhere, which would take a pass over the whole vocabulary. A row outside the
mask gives 0 and gets gradient 0, whatever it holds. The result is never below 0: what rounding
leaves of a smaller number is cut off.
"""

import math
from typing import Any

import numpy as np

from ..checks import expect_floats, expect_ndim, expect_positive, expect_shape, refuse
from ..masking import expect_mask
from ..operation import at_least_float32, value_of

Saved = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@at_least_float32
def exact_kl_forward(
    logits: np.ndarray, reference_logits: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, Saved]:
    """Compute KL(π‖π_ref) of each row: the definition.

    Parameters
    ----------
    logits, reference_logits : numpy.ndarray [..., vocab]
        Scores of the next token under the policy and the reference, before softmax.
    mask : numpy.ndarray of bool [...]
        True at the rows that count.

    Returns
    -------
    kl : numpy.ndarray [...]
        In nats, not below 0; 0 outside the mask.
    saved : tuple
        For `exact_kl_backward`.

    Raises
    ------
    ValueError
        If a shape or the mask's dtype is wrong.
    """
    check_exact_kl(logits, reference_logits, mask)
    x = np.where(mask[..., None], logits, 0)
    y = np.where(mask[..., None], reference_logits, 0)
    log_p, log_q = _log_softmax(x), _log_softmax(y)  # [..., vocab]
    p, q = np.exp(log_p), np.exp(log_q)
    never, never_by_reference = np.isneginf(x), np.isneginf(y)
    surprise = np.where(never, 0, log_p) - np.where(never | never_by_reference, 0, log_q)
    kl = (p * surprise).sum(axis=-1)  # [...]

    nothing = ~mask | never.all(axis=-1)
    impossible = np.asarray((~never & never_by_reference).any(axis=-1))
    kl = at_the_edges(kl, nothing, impossible).astype(p.dtype, copy=False)
    return kl, (p, q, surprise, kl, nothing)


exact_kl = value_of(exact_kl_forward)


@at_least_float32
def exact_kl_backward(saved: Saved, d_kl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Carry the gradient back to both rows of logits.

    d_logits = p·(log p − log q − KL) and d_reference_logits = q − p, times the row's gradient.

    Parameters
    ----------
    saved : tuple
        From `exact_kl_forward`.
    d_kl : numpy.ndarray [...]
        Gradient of the loss with respect to the KL of each row.

    Returns
    -------
    d_logits, d_reference_logits : numpy.ndarray [..., vocab]
        0 outside the mask; NaN in a row whose KL is +inf.

    Raises
    ------
    ValueError
        If `d_kl` has another shape than the result.
    """
    p, q, surprise, kl, nothing = saved
    expect_shape("d_kl", d_kl, kl.shape)
    d = np.where(nothing, 0, d_kl)[..., None]  # [..., 1]
    d_logits = p * (surprise - kl[..., None]) * d
    d_reference = (q - p) * d

    is_infinite, is_nothing = np.isposinf(kl)[..., None], nothing[..., None]
    d_logits, d_reference = (np.where(is_infinite, math.nan, g) for g in (d_logits, d_reference))
    return np.where(is_nothing, 0, d_logits), np.where(is_nothing, 0, d_reference)


@at_least_float32
def exact_kl_online(
    logits: np.ndarray, reference_logits: np.ndarray, mask: np.ndarray, block: int
) -> np.ndarray:
    """Compute `exact_kl` in one pass over blocks of the vocabulary."""
    expect_positive("block", block)
    check_exact_kl(logits, reference_logits, mask)
    all_x = np.where(mask[..., None], logits, 0)
    all_y = np.where(mask[..., None], reference_logits, 0)
    zeros = np.zeros((*mask.shape, 1), all_x.dtype)
    max_p, max_q = zeros - math.inf, zeros - math.inf  # running maxima
    sum_p, sum_q, cross = zeros, zeros, zeros  # Σ e^(x−m_p), Σ e^(y−m_q), Σ e^(x−m_p)·(…)
    impossible = zeros > 0
    for start in range(0, all_x.shape[-1], block):
        x, y = all_x[..., start : start + block], all_y[..., start : start + block]
        new_p = np.maximum(max_p, x.max(axis=-1, keepdims=True))
        new_q = np.maximum(max_q, y.max(axis=-1, keepdims=True))
        # −inf − (−inf) would be NaN, so a row that has seen nothing subtracts 0.
        pivot_p, pivot_q = (np.where(np.isneginf(m), 0, m) for m in (new_p, new_q))
        seen = ~np.isneginf(x)
        rescale_p, rescale_q = np.exp(max_p - pivot_p), np.exp(max_q - pivot_q)
        # The sums so far are relative to the old maxima.
        moved = np.where(sum_p == 0, 0, max_p - pivot_p)
        moved = moved - np.where(sum_q == 0, 0, max_q - pivot_q)
        cross = (cross + sum_p * moved) * rescale_p
        weight = np.exp(x - pivot_p)
        both = seen & ~np.isneginf(y)
        gap = np.where(seen, x - pivot_p, 0) - np.where(both, y - pivot_q, 0)
        cross = cross + (weight * gap).sum(axis=-1, keepdims=True)
        sum_p = sum_p * rescale_p + weight.sum(axis=-1, keepdims=True)
        sum_q = sum_q * rescale_q + np.exp(y - pivot_q).sum(axis=-1, keepdims=True)
        impossible = impossible | (seen & ~both).any(axis=-1, keepdims=True)
        max_p, max_q = new_p, new_q

    empty = np.isneginf(max_p)
    safe_p, safe_q = np.where(empty, 1, sum_p), np.where(sum_q == 0, 1, sum_q)
    kl = cross / safe_p - np.log(safe_p) + np.log(safe_q)
    kl = at_the_edges(kl, empty | ~mask[..., None], impossible)
    return kl[..., 0].astype(all_x.dtype, copy=False)


def at_the_edges(kl: np.ndarray, nothing: np.ndarray, impossible: np.ndarray) -> np.ndarray:
    """Put the rows' KL right where the sum does not give it.

    It is 0 where there is `nothing` to compare: outside the mask, or where the policy's logits are
    all −inf. It is +inf where the reference makes a token `impossible` that the policy does not.
    What rounding leaves below 0 is cut off.
    """
    kl = np.where(impossible & ~np.isnan(kl), math.inf, kl)
    kl = np.where(kl < 0, 0, kl)
    return np.where(nothing, 0, kl)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax, −inf throughout a row of −inf."""
    highest = x.max(axis=-1, keepdims=True)
    centred = x - np.where(np.isneginf(highest), 0, highest)
    total = np.exp(centred).sum(axis=-1, keepdims=True)
    return centred - np.log(np.where(total == 0, 1, total))


def check_exact_kl(logits: Any, reference_logits: Any, mask: Any) -> None:
    """Refuse arguments that `exact_kl` has no meaning for."""
    expect_floats(logits=logits, reference_logits=reference_logits)
    expect_ndim("logits", logits, 1, "[..., vocab]")
    expect_shape(
        "reference_logits", reference_logits, logits.shape, "a reference of another vocabulary"
    )
    if logits.shape[-1] == 0:
        refuse("logits", "a vocabulary of at least 1", f"shape {tuple(logits.shape)}")
    expect_mask("mask", mask, logits.shape[:-1], "the rows of logits")
