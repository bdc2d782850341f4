"""The PPO loss: clipped policy objective, clipped value error and entropy bonus over a mask.

Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) reuses one batch of rollouts
for several updates. With Δ = log π − log π_old of the token that was sampled, ρ = exp(Δ) the ratio
of its probabilities and A its advantage, per token:

    policy   max(−A·ρ, −A·clip(ρ, 1 − ε, 1 + ε))                  equation 7, as a loss
    value    ½·max((V − R)², (V_clip − R)²),  V_clip = V_old + clip(V − V_old, ±ε_V)
    entropy  H

    loss = mean(policy) + c_V·mean(value) − c_H·mean(H)           means over the True of the mask

The maximum takes the worse of the two: once ρ has left [1 − ε, 1 + ε] on the side that A rewards,
the term is constant and its gradient exactly 0, so nothing pulls the policy further away.

Kinks. Where the two branches are equal the unclipped one counts: the gradient is −A·ρ as long as
clipping does not make the loss strictly larger, and V − R likewise. Δ is clamped to ±20 first so
that ρ cannot overflow; beyond, the gradient is 0. V_clip is V itself, bit for bit, inside ±ε_V.

Gradients go to log π, V and H. log π_old, A, V_old and R are constants of the rollout.

Edge semantics, the same in both twins: masked positions are never looked at, whatever they hold,
and get gradient exactly 0. If nothing is unmasked, the loss, its gradients and every statistic
are 0. NaN or infinity at an unmasked position is refused.

Precision: float64, unless `log_prob` is float32, which makes everything float32.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..checks import expect_finite, expect_floats, expect_positive, expect_shape, refuse
from ..masking import expect_bool_mask, scatter
from ..operation import at_least_float32, value_of

MAX_LOG_RATIO = 20.0  # exp(20) = 4.9e8

FLOAT_ARGUMENTS = (
    "log_prob", "old_log_prob", "advantages", "values", "old_values", "returns", "entropy",
)  # fmt: skip

Saved = tuple[np.ndarray, np.ndarray, np.ndarray]


class PPOResults(NamedTuple):
    """What the PPO loss returns. Only `loss` carries a gradient.

    Attributes
    ----------
    loss : scalar
        policy_loss + value_coefficient·value_loss − entropy_coefficient·entropy.
    policy_loss, value_loss : scalar
        The masked means of the clipped terms.
    entropy : scalar
        Masked mean of the entropy, in nats.
    approx_kl : scalar
        ½·mean(Δ²), Δ not clamped: estimates KL(π_old ‖ π), in nats. 0 on the first minibatch.
    policy_clip_fraction, value_clip_fraction : scalar
        Share of tokens where clipping made the loss larger.
    ratio_mean, ratio_min, ratio_max : scalar
        Of ρ. All exactly 1 on the first minibatch.
    explained_variance : scalar
        1 − Var(R − V)/Var(R); 0 where the returns do not vary.
    n_tokens : scalar
        How many positions the mask counts, as the nearest float.
    """

    loss: Any
    policy_loss: Any
    value_loss: Any
    entropy: Any
    approx_kl: Any
    policy_clip_fraction: Any
    value_clip_fraction: Any
    ratio_mean: Any
    ratio_min: Any
    ratio_max: Any
    explained_variance: Any
    n_tokens: Any


@at_least_float32
def ppo_loss_forward(
    log_prob: np.ndarray,
    old_log_prob: np.ndarray,
    advantages: np.ndarray,
    values: np.ndarray,
    old_values: np.ndarray,
    returns: np.ndarray,
    entropy: np.ndarray,
    mask: np.ndarray,
    *,
    clip: float = 0.2,
    value_clip: float = 0.2,
    value_coefficient: float = 0.1,
    entropy_coefficient: float = 0.0,
) -> tuple[PPOResults, Saved]:
    """Compute the loss of one PPO minibatch and its statistics.

    Parameters
    ----------
    log_prob : numpy.ndarray [batch, time]
        log π of each sampled token, in nats. All arrays have this shape, which may be any.
    old_log_prob : numpy.ndarray [batch, time]
        The same under the policy that sampled it; constant.
    advantages : numpy.ndarray [batch, time]
        Constant.
    values : numpy.ndarray [batch, time]
        What the value network predicts now.
    old_values, returns : numpy.ndarray [batch, time]
        What it predicted at the rollout, and what it should predict; constant.
    entropy : numpy.ndarray [batch, time]
        Of π at each position, in nats.
    mask : numpy.ndarray of bool [batch, time]
        True for a response token that counts.
    clip : float
        ε of the ratio; above 0.
    value_clip : float
        ε_V: how far a value may move from the old one; above 0.
    value_coefficient, entropy_coefficient : float
        c_V and c_H; 0 or above.

    Returns
    -------
    results : PPOResults
    saved : tuple
        For `ppo_loss_backward`: the gradients of the loss itself.

    Raises
    ------
    ValueError
        If a shape, the mask's dtype or a coefficient is wrong, or an unmasked number not finite.
    """
    coefficients = (clip, value_clip, value_coefficient, entropy_coefficient)
    arrays = (log_prob, old_log_prob, advantages, values, old_values, returns, entropy)
    check_ppo_loss(*arrays, mask, *coefficients)
    expect_floats(**dict(zip(FLOAT_ARGUMENTS, arrays, strict=True)))
    for name, array in zip(FLOAT_ARGUMENTS, arrays, strict=True):
        expect_finite(name, array, mask)
    # A NumPy float64 scalar would promote a float32 model.
    clip, value_clip, value_coefficient, entropy_coefficient = map(float, coefficients)
    dtype = log_prob.dtype
    count = int(mask.sum())
    if count == 0:
        nothing = np.zeros(log_prob.shape, dtype)
        return PPOResults(*(dtype.type(0) for _ in PPOResults._fields)), (nothing,) * 3
    # [batch, time] -> [token]: only what the mask counts is ever looked at.
    new, old, advantage, value, old_value, target, disorder = (
        x[mask].astype(dtype, copy=False) for x in arrays
    )
    log_ratio = new - old  # Δ
    ratio = np.exp(np.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO))  # ρ
    policy = policy_term(ratio, log_ratio, advantage, clip)
    error = value_term(value, old_value, target, value_clip)
    policy_loss, value_loss, entropy_mean = policy.loss.mean(), error.loss.mean(), disorder.mean()

    results = PPOResults(
        loss=policy_loss + value_coefficient * value_loss - entropy_coefficient * entropy_mean,
        policy_loss=policy_loss,
        value_loss=value_loss,
        entropy=entropy_mean,
        approx_kl=(log_ratio**2).mean() / 2,
        policy_clip_fraction=policy.is_clipped.mean(dtype=dtype),
        value_clip_fraction=error.is_clipped.mean(dtype=dtype),
        ratio_mean=ratio.mean(),
        ratio_min=ratio.min(),
        ratio_max=ratio.max(),
        explained_variance=explained_variance(value, target),
        n_tokens=dtype.type(count),
    )
    return results, (
        scatter(mask, policy.slope / count),
        scatter(mask, error.slope * value_coefficient / count),
        scatter(mask, np.full_like(new, -entropy_coefficient / count)),
    )


ppo_loss = value_of(ppo_loss_forward)


class Term(NamedTuple):
    """A part of each token's loss, its slope, and where it is clipped; each [token]."""

    loss: np.ndarray
    slope: np.ndarray
    is_clipped: np.ndarray


def policy_term(
    ratio: np.ndarray, log_ratio: np.ndarray, advantage: np.ndarray, clip: float
) -> Term:
    """Compute max(−A·ρ, −A·clip(ρ, 1 − ε, 1 + ε)) of each token, and its slope in log π."""
    unclipped = -advantage * ratio
    clipped = -advantage * np.clip(ratio, 1 - clip, 1 + clip)
    binds = clipped > unclipped
    constant = binds | (np.abs(log_ratio) > MAX_LOG_RATIO)
    slope = np.where(constant, 0, unclipped)  # dρ/d log π = ρ
    return Term(np.maximum(unclipped, clipped), slope, binds)


def value_term(
    value: np.ndarray, old_value: np.ndarray, target: np.ndarray, value_clip: float
) -> Term:
    """Compute ½·max((V − R)², (V_clip − R)²) of each token, and its slope in V."""
    change = value - old_value
    moved = old_value + np.clip(change, -value_clip, value_clip)
    clipped_value = np.where(
        np.abs(change) <= value_clip, value, moved
    )  # Inside, it is V to the bit.
    error, clipped_error = value - target, clipped_value - target
    binds = np.abs(clipped_error) > np.abs(error)  # Their squares could be equal by rounding.
    slope = np.where(binds, 0, error)  # V_clip is constant wherever it is not V.
    return Term(np.maximum(error**2, clipped_error**2) / 2, slope, binds)


@at_least_float32
def ppo_loss_backward(
    saved: Saved, d_loss: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Carry the gradient from the loss back to log-probabilities, values and entropy.

    With n unmasked tokens: d_log_prob = −A·ρ/n, or 0 where the clip binds or |Δ| > 20; d_values =
    c_V·(V − R)/n, or 0 where the clip binds; d_entropy = −c_H/n; all times d_loss.

    Parameters
    ----------
    saved : tuple
        From `ppo_loss_forward`.
    d_loss : numpy.ndarray []
        Gradient with respect to `loss`. The statistics carry none.

    Returns
    -------
    d_log_prob, d_values, d_entropy : numpy.ndarray [batch, time]
        0 where masked.

    Raises
    ------
    ValueError
        If `d_loss` is not a scalar.
    """
    expect_shape("d_loss", np.asarray(d_loss), ())
    d_log_prob, d_values, d_entropy = saved
    return d_log_prob * d_loss, d_values * d_loss, d_entropy * d_loss


def explained_variance(values: np.ndarray, returns: np.ndarray) -> Any:
    """Say how much of the returns' variance the values predict: 1 − Var(R − V)/Var(R).

    It is 1 if perfect, 0 if no better than a constant, below 0 if worse. It is 0 where all returns
    are equal: there is nothing to explain.
    """
    if returns.min() == returns.max():
        return returns.dtype.type(0)
    return 1 - (returns - values).var() / returns.var()


def check_ppo_loss(
    log_prob: Any,
    old_log_prob: Any,
    advantages: Any,
    values: Any,
    old_values: Any,
    returns: Any,
    entropy: Any,
    mask: Any,
    clip: float,
    value_clip: float,
    value_coefficient: float,
    entropy_coefficient: float,
) -> None:
    """Refuse arguments that `ppo_loss` has no meaning for."""
    others = {
        "old_log_prob": old_log_prob,
        "advantages": advantages,
        "values": values,
        "old_values": old_values,
        "returns": returns,
        "entropy": entropy,
        "mask": mask,
    }
    for name, array in others.items():
        expect_shape(name, array, log_prob.shape, "a prompt left in, or another minibatch")
    expect_bool_mask(mask)
    expect_positive("clip", clip)
    expect_positive("value_clip", value_clip)
    expect_not_negative("value_coefficient", value_coefficient)
    expect_not_negative("entropy_coefficient", entropy_coefficient)


def expect_not_negative(name: str, value: float) -> None:
    """Refuse `value` unless it is a finite number, 0 or above."""
    if not (math.isfinite(value) and value >= 0):
        refuse(name, "a finite number, 0 or above", repr(value))
