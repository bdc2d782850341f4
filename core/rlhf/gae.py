"""GAE: generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, eq. 16).

    δ_t = r_t + γ·V_{t+1} − V_t
    A_t = δ_t + γλ·A_{t+1}
    returns_t = A_t + V_t

The time axis of one row holds a response's tokens and things that are not: prompt, padding. Time
here runs over the tokens inside the mask alone, contiguous or not: "t + 1" is the next True of the
row. After the last one, V and A are 0: the episode is over.

The file climbs. `gae` is the definition, a loop from the end. A GPU wants no loop of that length,
and needs none: the returns obey

    R_t = r_t + C_{t+1},   C_t = γ(1−λ)·V_t + γλ·R_t = γλ·C_{t+1} + (γ(1−λ)·V_t + γλ·r_t)

(C_t is what the rest of the episode, from t on, is worth one step earlier: the λ-return.) This is
a linear recurrence C_t = a_t·C_{t+1} + b_t, with a = 1 and b = 0 outside the mask; and linear maps
compose associatively, so any bracketing gives the same: `gae_blockwise`, the kernel's own loop.
A = R − V. λ = 0 leaves C = γV, so A = δ; γ = λ = 1 leaves the sum of the rewards, so A is that
minus V.

Edge semantics, the same in both twins: outside the mask both results are 0 and both gradients 0,
whatever is there; a row without response tokens is all 0. An infinite or NaN reward or value
inside the mask is refused: the recurrence would carry it to every token before it.
"""

from typing import Any

import numpy as np

from ..checks import expect_finite, expect_floats, expect_positive, expect_shape, refuse
from ..masking import expect_batch_time, expect_mask
from ..operation import at_least_float32, value_of

Saved = tuple[np.ndarray, float, float]


@at_least_float32
def gae_forward(
    rewards: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[tuple[np.ndarray, np.ndarray], Saved]:
    """Compute advantages and returns: the definition.

    Parameters
    ----------
    rewards, values : numpy.ndarray [batch, time]
        r_t and V_t at each response token.
    mask : numpy.ndarray of bool [batch, time]
        True at the response tokens, in any pattern.
    gamma, lam : float
        Discount γ and λ, both in [0, 1].

    Returns
    -------
    advantages, returns : numpy.ndarray [batch, time]
        0 outside the mask.
    saved : tuple
        For `gae_backward`: the mask, γ and λ. The operation is linear: no values are needed.

    Raises
    ------
    ValueError
        If a shape, the mask's dtype, `gamma` or `lam` is wrong, or a reward or value inside the
        mask is not finite.
    """
    check_gae(rewards, values, mask, gamma, lam)
    expect_finite("rewards", rewards, mask)
    expect_finite("values", values, mask)
    gamma, lam = float(gamma), float(lam)
    rewards, values = np.where(mask, rewards, 0), np.where(mask, values, 0)
    advantages = np.zeros_like(rewards)
    next_value = np.zeros(rewards.shape[0], dtype=rewards.dtype)  # [batch]
    next_advantage: np.ndarray = next_value
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        live = mask[:, t]
        advantages[:, t] = np.where(live, advantage, 0)
        next_value = np.where(live, values[:, t], next_value)
        next_advantage = np.where(live, advantage, next_advantage)
    return (advantages, advantages + values), (mask, gamma, lam)


gae = value_of(gae_forward)


@at_least_float32
def gae_backward(
    saved: Saved, d_advantages: np.ndarray, d_returns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Carry the gradients back to rewards and values: the transposed recurrence, from the start.

    A_t also reaches the loss through every earlier advantage, so the gradient of δ_t, which is
    that of r_t, gathers B_t = d_A_t + d_returns_t + γλ·B_{t−1}. V_t stands in returns_t, in δ_t
    with −1 and in δ_{t−1} with γ.

    Parameters
    ----------
    saved : tuple
        From `gae_forward`.
    d_advantages, d_returns : numpy.ndarray [batch, time]
        Gradients of the loss with respect to both results.

    Returns
    -------
    d_rewards, d_values : numpy.ndarray [batch, time]
        0 outside the mask.

    Raises
    ------
    ValueError
        If a gradient has another shape than the results.
    """
    mask, gamma, lam = saved
    expect_shape("d_advantages", d_advantages, mask.shape)
    expect_shape("d_returns", d_returns, mask.shape)
    d_advantages, d_returns = np.where(mask, d_advantages, 0), np.where(mask, d_returns, 0)
    d_rewards, d_values = np.zeros_like(d_advantages), np.zeros_like(d_advantages)
    before: np.ndarray = np.zeros(mask.shape[0], dtype=d_advantages.dtype)  # B_{t−1}: [batch]
    for t in range(mask.shape[1]):
        d_delta = d_advantages[:, t] + d_returns[:, t] + gamma * lam * before
        live = mask[:, t]
        d_rewards[:, t] = np.where(live, d_delta, 0)
        d_values[:, t] = np.where(live, d_returns[:, t] - d_delta + gamma * before, 0)
        before = np.where(live, d_delta, before)
    return d_rewards, d_values


@at_least_float32
def gae_blockwise(
    rewards: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
    block: int,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute `gae` by scanning blocks from the end, carrying one number a row.

    Lane t needs C_{t+1}, so the block that writes tokens [start, stop) scans [start + 1, stop + 1).
    """
    expect_positive("block", block)
    check_gae(rewards, values, mask, gamma, lam)
    expect_finite("rewards", rewards, mask)
    expect_finite("values", values, mask)
    gamma, lam = float(gamma), float(lam)
    rewards, values = np.where(mask, rewards, 0), np.where(mask, values, 0)
    batch, time = rewards.shape
    decay = np.where(mask, gamma * lam, 1).astype(rewards.dtype)
    gain = gamma * (1 - lam) * values + gamma * lam * rewards  # It is 0 outside the mask.
    # One more token follows the last, and is worth nothing.
    decay = np.concatenate([decay, np.ones((batch, 1), decay.dtype)], axis=1)
    gain = np.concatenate([gain, np.zeros((batch, 1), gain.dtype)], axis=1)

    returns = np.zeros_like(rewards)
    carry = np.zeros((batch, 1), dtype=rewards.dtype)  # C at the start of the block to the right
    for start in reversed(range(0, time, block)):
        ahead = slice(start + 1, min(start + block, time) + 1)
        product, worth = scan_from_the_end(decay[:, ahead], gain[:, ahead])
        worth = worth + product * carry  # C_{t+1}: [batch, block]
        returns[:, start : start + block] = rewards[:, start : start + block] + worth
        carry = worth[:, :1]
    returns = np.where(mask, returns, 0)
    return returns - values, returns


def scan_from_the_end(decay: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compose the maps c → decay·c + gain of each position and all after it, in log₂(n) steps.

    Both are [batch, n]. The result maps what lies behind the last position to each position's C.
    """
    reach = 1  # Each map already covers this many positions.
    while reach < decay.shape[1]:
        # (d₁, g₁) after (d₂, g₂): c → d₁·(d₂·c + g₂) + g₁
        covered_gain = gain[:, :-reach] + decay[:, :-reach] * gain[:, reach:]
        covered_decay = decay[:, :-reach] * decay[:, reach:]
        gain = np.concatenate([covered_gain, gain[:, -reach:]], axis=1)
        decay = np.concatenate([covered_decay, decay[:, -reach:]], axis=1)
        reach *= 2
    return decay, gain


def check_gae(rewards: Any, values: Any, mask: Any, gamma: float, lam: float) -> None:
    """Refuse arguments that `gae` has no meaning for."""
    expect_floats(rewards=rewards, values=values)
    expect_batch_time("rewards", rewards)
    expect_shape(
        "values", values, rewards.shape, "one value too many: V after the last token is taken as 0"
    )
    expect_mask("mask", mask, rewards.shape, "rewards")
    for name, number in (("gamma", gamma), ("lam", lam)):
        if not 0 <= number <= 1:
            refuse(name, "a number in [0, 1]", repr(number))
