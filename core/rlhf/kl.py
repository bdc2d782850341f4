"""KL of two policies, token by token, estimated from the sampled token's two log-probabilities.

With δ = log π(token) − log π_ref(token) and the token drawn from π (Schulman 2020, "Approximating
KL divergence"):

    k1 = δ                 unbiased, of either sign, the noisiest; InstructGPT's reward uses it
    k2 = δ²/2              never negative, biased (its expectation is another f-divergence)
    k3 = e^(−δ) − 1 + δ    unbiased and never negative: k1 plus a control variate of mean 0

One function feeds both the reward (`token_rewards`) and the log (`sequence_kl`), so that the KL
that is reported is the KL that is trained on. The KL over the whole vocabulary, not estimated, is
`exact_kl`.

Edge semantics, the same in both twins: a position outside the mask gives 0 and gets gradient 0,
whatever it holds; an infinite or NaN log-probability inside it is refused. Nothing is clamped, so a
δ below about −88 makes k3 +inf in float32.
"""

from typing import Any

import numpy as np

from ..checks import expect_finite, expect_floats, expect_shape, refuse
from ..masking import expect_batch_time, expect_mask
from ..operation import at_least_float32, value_of

ESTIMATORS = ("k1", "k2", "k3")

Saved = tuple[np.ndarray, np.ndarray, str]


@at_least_float32
def kl_forward(
    log_prob: np.ndarray,
    reference_log_prob: np.ndarray,
    mask: np.ndarray,
    *,
    estimator: str = "k1",
) -> tuple[np.ndarray, Saved]:
    """Estimate KL(π‖π_ref) at each response token.

    Parameters
    ----------
    log_prob, reference_log_prob : numpy.ndarray [...]
        Log-probability of the sampled token under the policy and under the reference, in nats.
    mask : numpy.ndarray of bool [...]
        True at the response tokens that count.
    estimator : str
        "k1", "k2" or "k3".

    Returns
    -------
    kl : numpy.ndarray [...]
        In nats; 0 outside the mask.
    saved : tuple
        For `kl_backward`: δ, the mask and the estimator.

    Raises
    ------
    ValueError
        If a shape, the mask's dtype or the estimator is wrong, or a log-probability inside the
        mask is not finite.
    """
    check_kl(log_prob, reference_log_prob, mask, estimator)
    expect_finite("log_prob", log_prob, mask)
    expect_finite("reference_log_prob", reference_log_prob, mask)
    # The mask comes before the subtraction, for what lies outside may be inf or NaN.
    delta = np.where(mask, log_prob, 0) - np.where(mask, reference_log_prob, 0)
    if estimator == "k1":
        estimate = delta
    elif estimator == "k2":
        estimate = delta * delta / 2
    else:
        estimate = np.expm1(-delta) + delta
    return estimate, (delta, mask, estimator)


kl = value_of(kl_forward)


@at_least_float32
def kl_backward(saved: Saved, d_kl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Carry the gradient back to both log-probabilities.

    The slopes in δ are 1, δ and 1 − e^(−δ).

    Parameters
    ----------
    saved : tuple
        From `kl_forward`.
    d_kl : numpy.ndarray [...]
        Gradient of the loss with respect to the estimates.

    Returns
    -------
    d_log_prob, d_reference_log_prob : numpy.ndarray [...]
        One is the other's negative; 0 outside the mask.

    Raises
    ------
    ValueError
        If `d_kl` has another shape than the estimates.
    """
    delta, mask, estimator = saved
    expect_shape("d_kl", d_kl, delta.shape)
    if estimator == "k1":
        slope = np.ones_like(delta)
    elif estimator == "k2":
        slope = delta
    else:
        slope = -np.expm1(-delta)
    d_delta = np.where(mask, d_kl, 0) * slope
    return d_delta, -d_delta


@at_least_float32
def sequence_kl(
    log_prob: np.ndarray,
    reference_log_prob: np.ndarray,
    mask: np.ndarray,
    *,
    estimator: str = "k1",
) -> float:
    """Return the KL that is logged, in nats: the mean over sequences of the sum over tokens.

    The arguments are those of `kl`, [batch, time]. A sequence without response tokens counts as one
    of KL 0; an empty batch has KL 0.
    """
    expect_batch_time("log_prob", log_prob)
    per_token = kl(log_prob, reference_log_prob, mask, estimator=estimator)
    return float(per_token.sum(axis=-1).mean()) if len(per_token) else 0.0


def check_kl(log_prob: Any, reference_log_prob: Any, mask: Any, estimator: str) -> None:
    """Refuse arguments that `kl` has no meaning for."""
    expect_floats(log_prob=log_prob, reference_log_prob=reference_log_prob)
    if estimator not in ESTIMATORS:
        refuse("estimator", "'k1', 'k2' or 'k3'", repr(estimator))
    expect_shape(
        "reference_log_prob",
        reference_log_prob,
        log_prob.shape,
        "log-probabilities of another batch, or not shifted by one alike",
    )
    expect_mask("mask", mask, log_prob.shape, "log_prob")
