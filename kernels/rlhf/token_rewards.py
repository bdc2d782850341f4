"""Per-token rewards in Triton: the KL penalty, the score on the last token, the missing-end rule.

Mathematics (core/rlhf/token_rewards.py): r_t = −β·KL_t + 1[t = last]·score, where the score of a
response without its end token is replaced, reduced or left. KL_t is `kl_of` of kernels/rlhf/kl.py,
the very function that is logged.

Tiling: one program per row walks its blocks from the end.

    ┌───────┬───────┬───────┬──┐
    │ ◄──────────── start here │   the first True met is the last response token
    └───────┴───────┴───────┴──┘

So the mask is read once, in the pass that writes, though only the end of the row decides where the
score goes. Each input is read once, each output written once; backward walks the same way and
recomputes δ. Deterministic: nothing crosses a row.
"""

import torch

from ...core.checks import expect_finite
from ...core.rlhf.token_rewards import MISSING_END_RULES, check_token_rewards, scores_that_count
from ...core.rlhf.token_rewards import find_ended as find_ended
from ..common._triton import tl, triton
from ..common.derivative import first_derivative_only
from ..common.finite import checks_finite, expect_all_finite
from ..common.indices import expect_countable
from ..common.launch import launch, runs_on_triton
from ..common.widened import at_least_float32
from .kl import ESTIMATOR_NUMBERS, expect_float32, kl_eager, kl_of

# Rows longer than this take several blocks.
MAX_BLOCK = 1024
TOKEN_REWARDS_CONFIGS = [triton.Config({}, num_warps=2), triton.Config({}, num_warps=4)]


@triton.autotune(TOKEN_REWARDS_CONFIGS, key=["BLOCK_TIME"])
@triton.jit
def token_rewards_forward_kernel(
    log_prob_ptr,  # this and all others contiguous
    reference_ptr,
    scores_ptr,
    mask_ptr,  # int8
    ended_ptr,  # int8, or None if there is no rule
    rewards_ptr,
    n_time,
    beta,
    missing_end_value,
    ESTIMATOR: tl.constexpr,
    RULE: tl.constexpr,  # index into MISSING_END_RULES: none, replace, penalise
    BLOCK_TIME: tl.constexpr,
):
    """Write the rewards of one row."""
    row = tl.program_id(0).to(tl.int64)
    score = tl.load(scores_ptr + row)
    if RULE > 0:
        ended = tl.load(ended_ptr + row) != 0
        if RULE == 1:
            score = tl.where(ended, score, missing_end_value)
        else:
            score = tl.where(ended, score, score + missing_end_value)
    found = 0  # whether a later block held the last token
    n_blocks = tl.cdiv(n_time, BLOCK_TIME)
    for block in range(0, n_blocks):
        time = (n_blocks - 1 - block) * BLOCK_TIME + tl.arange(0, BLOCK_TIME)
        at = row * n_time + time
        inside = time < n_time
        live = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
        log_prob = tl.load(log_prob_ptr + at, mask=live, other=0.0)
        delta = log_prob - tl.load(reference_ptr + at, mask=live, other=0.0)
        estimate, _ = kl_of(delta, ESTIMATOR)
        last = tl.max(tl.where(live, time, -1), axis=0)
        is_last = (time == last) & (found == 0)
        rewards = tl.where(is_last, score, 0.0) - estimate * beta
        tl.store(rewards_ptr + at, tl.where(live, rewards, 0.0), mask=inside)
        found = tl.where(last >= 0, 1, found)


@triton.autotune(TOKEN_REWARDS_CONFIGS, key=["BLOCK_TIME"])
@triton.jit
def token_rewards_backward_kernel(
    log_prob_ptr,
    reference_ptr,
    mask_ptr,  # int8
    ended_ptr,  # int8, or None if there is no rule
    d_rewards_ptr,
    d_log_prob_ptr,
    d_reference_ptr,
    d_scores_ptr,
    n_time,
    beta,
    ESTIMATOR: tl.constexpr,
    RULE: tl.constexpr,
    BLOCK_TIME: tl.constexpr,
):
    """Carry the gradient of one row back."""
    row = tl.program_id(0).to(tl.int64)
    d_score = 0.0
    found = 0
    n_blocks = tl.cdiv(n_time, BLOCK_TIME)
    for block in range(0, n_blocks):
        time = (n_blocks - 1 - block) * BLOCK_TIME + tl.arange(0, BLOCK_TIME)
        at = row * n_time + time
        inside = time < n_time
        live = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
        log_prob = tl.load(log_prob_ptr + at, mask=live, other=0.0)
        delta = log_prob - tl.load(reference_ptr + at, mask=live, other=0.0)
        _, slope = kl_of(delta, ESTIMATOR)
        d_rewards = tl.load(d_rewards_ptr + at, mask=live, other=0.0)
        d_reference = tl.where(live, d_rewards * slope * beta, 0.0)
        tl.store(d_reference_ptr + at, d_reference, mask=inside)
        tl.store(d_log_prob_ptr + at, -d_reference, mask=inside)
        last = tl.max(tl.where(live, time, -1), axis=0)
        is_last = (time == last) & (found == 0)
        d_score += tl.sum(tl.where(is_last, d_rewards, 0.0), axis=0)
        found = tl.where(last >= 0, 1, found)
    if RULE == 1:  # a constant stands in the score's place
        d_score = tl.where(tl.load(ended_ptr + row) != 0, d_score, 0.0)
    tl.store(d_scores_ptr + row, d_score)


def _block(n_time: int) -> int:
    return min(max(triton.next_power_of_2(n_time), 64), MAX_BLOCK)


class _TokenRewards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_prob, reference, scores, mask, beta, estimator, ended, rule, value):
        log_prob, reference, mask = (x.contiguous() for x in (log_prob, reference, mask))
        ended = None if ended is None else ended.contiguous().view(torch.int8)
        n_batch, n_time = log_prob.shape
        expect_countable("token_rewards", tokens=n_time)
        rewards = torch.empty_like(log_prob)
        ctx.constants = {
            "ESTIMATOR": ESTIMATOR_NUMBERS[estimator],
            "RULE": MISSING_END_RULES.index(rule),
            "BLOCK_TIME": _block(n_time),
        }
        launch(
            token_rewards_forward_kernel,
            (n_batch if n_time else 0,),
            *(log_prob, reference, scores.contiguous()),
            *(mask.view(torch.int8), ended, rewards, n_time, beta, value),
            **ctx.constants,
        )
        ctx.save_for_backward(log_prob, reference, mask, ended)
        ctx.beta = beta
        return rewards

    @staticmethod
    @first_derivative_only("token_rewards")
    def backward(ctx, d_rewards):
        log_prob, reference, mask, ended = ctx.saved_tensors
        n_batch, n_time = log_prob.shape
        d_log_prob, d_reference = torch.empty_like(log_prob), torch.empty_like(log_prob)
        d_scores = torch.empty(n_batch, dtype=log_prob.dtype, device=log_prob.device)
        launch(
            token_rewards_backward_kernel,
            (n_batch,),
            *(log_prob, reference, mask.view(torch.int8), ended, d_rewards.contiguous()),
            *(d_log_prob, d_reference, d_scores, n_time, ctx.beta),
            **ctx.constants,
        )
        return d_log_prob, d_reference, d_scores, *(None,) * 6


def token_rewards(
    log_prob: torch.Tensor,
    reference_log_prob: torch.Tensor,
    scores: torch.Tensor,
    mask: torch.Tensor,
    *,
    beta: float,
    estimator: str = "k1",
    ended: torch.Tensor | None = None,
    missing_end: str | None = None,
    missing_end_value: float = -1.0,
) -> torch.Tensor:
    """Turn log-probabilities and scores into per-token rewards; the twin of `core.token_rewards`.

    Parameters
    ----------
    log_prob, reference_log_prob : torch.Tensor [batch, time]
        float32, any strides (a strided tensor is copied). In nats.
    scores : torch.Tensor [batch]
        float32: the reward model's score of each response.
    mask : torch.Tensor of bool [batch, time]
        True at the response tokens, the end token among them.
    beta : float
        The KL coefficient, finite and not below 0.
    estimator : str
        As in `kl`.
    ended : torch.Tensor of bool [batch], optional
        True where the response holds its end token (`find_ended`); given exactly if `missing_end`
        is.
    missing_end : str or None
        What happens to the score where `ended` is False: "replace" or "penalise" it, or nothing.
    missing_end_value : float
        What replaces the score, or is added to it; not above 0 for "penalise".

    Returns
    -------
    torch.Tensor [batch, time]
        0 outside the mask.

    Raises
    ------
    ValueError
        If a shape, dtype, device or an option is wrong, or, where that is checked
        (kernels/common/finite.py), a number that counts is not finite.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_token_rewards(
        log_prob, reference_log_prob, scores, mask, beta, estimator,
        ended, missing_end, missing_end_value,
    )  # fmt: skip
    floats = {"log_prob": log_prob, "reference_log_prob": reference_log_prob, "scores": scores}
    on_triton = runs_on_triton("token_rewards", **floats, mask=mask, ended=ended)
    expect_all_finite(mask, log_prob=log_prob, reference_log_prob=reference_log_prob)
    if checks_finite(scores):
        expect_finite("scores", scores, scores_that_count(mask, ended, missing_end))
    if on_triton:
        expect_float32(**floats)
        return _TokenRewards.apply(
            log_prob, reference_log_prob, scores, mask, float(beta), estimator,
            ended, missing_end, float(missing_end_value),
        )  # fmt: skip
    return token_rewards_eager(
        log_prob, reference_log_prob, scores, mask, beta=beta, estimator=estimator,
        ended=ended, missing_end=missing_end, missing_end_value=missing_end_value,
    )  # fmt: skip


@at_least_float32
def token_rewards_eager(
    log_prob: torch.Tensor,
    reference_log_prob: torch.Tensor,
    scores: torch.Tensor,
    mask: torch.Tensor,
    *,
    beta: float,
    estimator: str = "k1",
    ended: torch.Tensor | None = None,
    missing_end: str | None = None,
    missing_end_value: float = -1.0,
) -> torch.Tensor:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick."""
    if ended is not None and missing_end == "replace":
        scores = scores.masked_fill(~ended, missing_end_value)
    elif ended is not None:
        scores = torch.where(ended, scores, scores + missing_end_value)
    counted_from_the_end = mask.flip(1).cumsum(1).flip(1)
    is_last = mask & (counted_from_the_end == 1)
    estimate = kl_eager(log_prob, reference_log_prob, mask, estimator=estimator)
    # scores[:, None] is spread over the row only where it is wanted: NaN times 0 would be NaN.
    return torch.where(is_last, scores[:, None], 0) - beta * estimate
