"""The reward of each response token: a KL penalty everywhere, the score on the last token.

    r_t = −β·KL_t + 1[t = last response token]·score

(Ziegler et al. 2019, arXiv 1909.08593, eq. 2; InstructGPT, arXiv 2203.02155, eq. 2, per token.)
KL_t is `kl` of the same file for all: what the log shows is what is subtracted here.

A response that ran into the length limit has no end token, and its score was given to a text cut
short. One explicit rule for it, or none:

    missing_end=None         the score stays, whatever happened                 (`ended` not given)
    missing_end="replace"    the score becomes `missing_end_value`              (lm-hp, sfd: −1)
    missing_end="penalise"   `missing_end_value`, not above 0, is added to it   (TRL)

Where the score goes does not depend on the rule: on the last True of the row's mask, which is the
end token if there is one and the last token before the limit if not.

Edge semantics, the same in both twins: positions outside the mask give 0 and get gradient 0; a row
without response tokens gets no score, and its score gets gradient 0; a replaced score gets
gradient 0. What counts, scores included, must be finite; what does not count may hold anything.
"""

import math
from typing import Any

import numpy as np

from ..checks import expect_finite, expect_floats, expect_shape, refuse
from ..masking import expect_batch_time, expect_mask
from ..operation import at_least_float32, value_of
from .kl import (
    check_kl,
    kl_backward,
    kl_forward,
)

MISSING_END_RULES = (None, "replace", "penalise")

Saved = tuple[Any, np.ndarray, np.ndarray, float]


@at_least_float32
def token_rewards_forward(
    log_prob: np.ndarray,
    reference_log_prob: np.ndarray,
    scores: np.ndarray,
    mask: np.ndarray,
    *,
    beta: float,
    estimator: str = "k1",
    ended: np.ndarray | None = None,
    missing_end: str | None = None,
    missing_end_value: float = -1.0,
) -> tuple[np.ndarray, Saved]:
    """Turn log-probabilities and scores into per-token rewards.

    Parameters
    ----------
    log_prob, reference_log_prob : numpy.ndarray [batch, time]
        Log-probability of each sampled token under the policy and the reference, in nats.
    scores : numpy.ndarray [batch]
        The reward model's score of each response.
    mask : numpy.ndarray of bool [batch, time]
        True at the response tokens, the end token among them.
    beta : float
        The KL coefficient, finite and not below 0 (InstructGPT: 0.02).
    estimator : str
        As in `kl`.
    ended : numpy.ndarray of bool [batch], optional
        True where the response holds its end token (`find_ended`); given exactly if `missing_end`
        is.
    missing_end : str or None
        What happens to the score where `ended` is False: "replace", "penalise" or nothing.
    missing_end_value : float
        What replaces the score, or is added to it; finite, and not above 0 for "penalise".

    Returns
    -------
    rewards : numpy.ndarray [batch, time]
        0 outside the mask.
    saved : tuple
        For `token_rewards_backward`.

    Raises
    ------
    ValueError
        If a shape, a dtype or an option is wrong, or a number that counts is not finite.
    """
    check_token_rewards(
        log_prob, reference_log_prob, scores, mask, beta, estimator,
        ended, missing_end, missing_end_value,
    )  # fmt: skip
    beta, missing_end_value = float(beta), float(missing_end_value)
    expect_finite("scores", scores, scores_that_count(mask, ended, missing_end))
    estimate, saved_kl = kl_forward(log_prob, reference_log_prob, mask, estimator=estimator)

    given = scores  # [batch]
    counts = np.ones(scores.shape, dtype=bool)  # False where the score itself is replaced
    if ended is not None and missing_end == "replace":
        given = np.where(ended, scores, missing_end_value).astype(scores.dtype, copy=False)
        counts = np.asarray(ended)
    elif ended is not None:
        given = np.where(ended, scores, scores + missing_end_value)

    is_last = last_of_each_row(mask)  # [batch, time]
    rewards = -beta * estimate + np.where(is_last, given[:, None], 0)
    return rewards, (saved_kl, is_last, counts, beta)


token_rewards = value_of(token_rewards_forward)


@at_least_float32
def token_rewards_backward(
    saved: Saved, d_rewards: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Carry the gradient back to the log-probabilities and the scores.

    Parameters
    ----------
    saved : tuple
        From `token_rewards_forward`.
    d_rewards : numpy.ndarray [batch, time]
        Gradient of the loss with respect to the rewards.

    Returns
    -------
    d_log_prob, d_reference_log_prob : numpy.ndarray [batch, time]
        As in `kl_backward`, times −β.
    d_scores : numpy.ndarray [batch]
        The gradient at the row's last response token; 0 where there is none or the score was
        replaced.

    Raises
    ------
    ValueError
        If `d_rewards` has another shape than the rewards.
    """
    saved_kl, is_last, counts, beta = saved
    expect_shape("d_rewards", d_rewards, is_last.shape)
    d_log_prob, d_reference = kl_backward(saved_kl, -beta * d_rewards)
    d_scores = np.where(is_last & counts[:, None], d_rewards, 0).sum(axis=-1)
    return d_log_prob, d_reference, d_scores


def scores_that_count(mask: Any, ended: Any, missing_end: str | None) -> Any:
    """Say which scores reach a reward, bool [batch].

    Those of the rows with response tokens do, unless the score is replaced.
    """
    given = mask.any(-1)
    return given & ended if missing_end == "replace" else given


def last_of_each_row(mask: np.ndarray) -> np.ndarray:
    """Mark the last True of each row that has any."""
    counted_from_the_end = np.cumsum(mask[:, ::-1], axis=1)[:, ::-1]
    return mask & (counted_from_the_end == 1)


def find_ended(tokens: np.ndarray, mask: np.ndarray, end_token: int) -> np.ndarray:
    """Say which responses hold their end token, bool [batch]; one in the prompt does not count.

    `mask` is True at the response tokens among `tokens` [batch, time].
    """
    expect_batch_time("tokens", tokens)
    expect_mask("mask", mask, tokens.shape, "tokens")
    return ((tokens == end_token) & mask).any(axis=-1)


def check_token_rewards(
    log_prob: Any,
    reference_log_prob: Any,
    scores: Any,
    mask: Any,
    beta: float,
    estimator: str,
    ended: Any,
    missing_end: str | None,
    missing_end_value: float,
) -> None:
    """Refuse arguments that `token_rewards` has no meaning for."""
    expect_batch_time("log_prob", log_prob)
    check_kl(log_prob, reference_log_prob, mask, estimator)
    expect_floats(scores=scores)
    batch = (log_prob.shape[0],)
    expect_shape("scores", scores, batch, "scores of each token: the score belongs to the response")
    if not (math.isfinite(beta) and beta >= 0):
        refuse("beta", "a finite number not below 0", repr(beta))
    if missing_end not in MISSING_END_RULES:
        refuse("missing_end", "None, 'replace' or 'penalise'", repr(missing_end))
    if missing_end is None and ended is not None:
        refuse("missing_end", "'replace' or 'penalise'", "None", "`ended` given without a rule")
    if missing_end is not None:
        if ended is None:
            refuse("ended", "bools [batch]", "None", f"missing_end={missing_end!r} needs it")
        expect_mask("ended", ended, batch, "scores")
    if not math.isfinite(missing_end_value):
        refuse("missing_end_value", "a finite number", repr(missing_end_value))
    if missing_end == "penalise" and missing_end_value > 0:
        refuse(
            "missing_end_value",
            "a number not above 0 for 'penalise'",
            repr(missing_end_value),
            "the penalty's size; it is added to the score, so it carries its sign",
        )
