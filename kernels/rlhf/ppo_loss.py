"""The PPO loss in Triton: loss, every statistic and all gradients from one pass over the tokens.

Mathematics (core/rlhf/ppo_loss.py): with ρ = exp(clamp(log π − log π_old, ±20)), over unmasked
tokens,

    loss =   mean(max(−Aρ, −A·clip(ρ, 1 ± ε)))
           + c_V·½·mean(max((V − R)², (V_clip − R)²)) − c_H·mean(H)

Tiling. [batch, time] is one long row of tokens, one block a program:

    tokens   ┌─────────┬─────────┬─────────┬────┐
             │ block 0 │ block 1 │ block 2 │    │   ppo_loss_kernel: n·d_log_prob and n·d_values of
             └────┬────┴────┬────┴────┬────┴──┬─┘   each token, and one column of partial sums
    partial  [    ▼         ▼         ▼       ▼ ]   [16, block] float32
    sums     [           ─────►                 ]   ppo_loss_statistics_kernel (its own file)
                                                    adds the columns up: loss and statistics

The number n of unmasked tokens is known only when all blocks are counted, so the first kernel
leaves the gradients un-normalised; `ppo_loss_scale_kernel` multiplies them by d_loss / n, both read
on the device, when autograd asks. The host never waits for a number.

Memory, per token: forward reads seven floats and a byte and writes two floats (37 bytes); backward
reads those two and the mask, and writes three (21 bytes). Recomputing them in backward would read
six floats for the two it saves: 37 bytes instead of 8 written and 21. The entropy's gradient is
−c_H·d_loss/n at every unmasked token and needs no storage. Eager PyTorch makes some forty passes.

Deterministic: each token is written by one program and each sum has one order. No atomics.
"""

from typing import Any, NamedTuple

import torch

from ...core.checks import expect_floats, refuse
from ...core.rlhf.ppo_loss import FLOAT_ARGUMENTS, MAX_LOG_RATIO, PPOResults, check_ppo_loss
from ..common._triton import tl, triton
from ..common.derivative import first_derivative_only
from ..common.finite import expect_all_finite
from ..common.launch import expect_same_dtype, launch, runs_on_triton
from ..common.rows import bucketed
from ..common.widened import at_least_float32
from .ppo_statistics import (
    COUNT,
    ENTROPY,
    ERROR,
    ERROR_SQUARES,
    N_ROWS,
    POLICY_BINDS,
    POLICY_LOSS,
    RATIO,
    RATIO_MAX,
    RATIO_MIN,
    RETURN,
    RETURN_MAX,
    RETURN_MIN,
    RETURN_SQUARES,
    SQUARED_ERROR,
    SQUARED_LOG_RATIO,
    VALUE_BINDS,
    Sums,
    ppo_loss_statistics_kernel,
    squares_about_mean,
)

PPO_LOSS_CONFIGS = [triton.Config({}, num_warps=4), triton.Config({}, num_warps=8)]
SCALE_CONFIGS = [
    triton.Config({"BLOCK": 1024}, num_warps=4),
    triton.Config({"BLOCK": 4096}, num_warps=8),
]
# Tokens of one program: not tuned, since each block has its column of partial sums.
BLOCK = 1024

_MAX_LOG_RATIO = tl.constexpr(MAX_LOG_RATIO)
_INFINITY = tl.constexpr(float("inf"))
_PROPAGATE = tl.constexpr(tl.PropagateNan.ALL)


class Tokens(NamedTuple):
    """The float arguments of the loss, each [token] and contiguous.

    Not `values`: a tuple in a Triton kernel has an attribute of that name.
    """

    log_prob: Any
    old_log_prob: Any
    advantage: Any
    value: Any
    old_value: Any
    returns: Any
    entropy: Any


class Limits(NamedTuple):
    """How far the policy's ratio and the value may move, and what the values weigh."""

    ratio_low: float
    ratio_high: float
    value_clip: float
    value_coefficient: float


@triton.autotune(PPO_LOSS_CONFIGS, key=["size_bucket"])
@triton.jit
def ppo_loss_kernel(
    given,  # Tokens
    mask_ptr,  # int8 [token]
    d_log_prob_ptr,  # [token]: n times the gradient, like the next
    d_values_ptr,
    sums,  # Sums; this block's column is written
    n_tokens,
    size_bucket,  # n_tokens rounded up to a power of two: tuned once for each
    limits,  # Limits
    BLOCK: tl.constexpr,
):
    """One block of tokens: its gradients and its share of every sum."""
    block = tl.program_id(0).to(tl.int64)
    tokens = block * BLOCK + tl.arange(0, BLOCK)
    inside = tokens < n_tokens
    counts = tl.load(mask_ptr + tokens, mask=inside, other=0) != 0
    # Masked tokens are not read: all that follows is 0 for them, save the ratio, which is 1.
    log_prob = tl.load(given.log_prob + tokens, mask=counts, other=0.0)
    old_log_prob = tl.load(given.old_log_prob + tokens, mask=counts, other=0.0)
    advantage = tl.load(given.advantage + tokens, mask=counts, other=0.0)
    value = tl.load(given.value + tokens, mask=counts, other=0.0)
    old_value = tl.load(given.old_value + tokens, mask=counts, other=0.0)
    target = tl.load(given.returns + tokens, mask=counts, other=0.0)
    entropy = tl.load(given.entropy + tokens, mask=counts, other=0.0)

    log_ratio = log_prob - old_log_prob
    too_far = tl.abs(log_ratio) > _MAX_LOG_RATIO
    ratio = tl.exp(tl.clamp(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO, _PROPAGATE))
    unclipped = -advantage * ratio
    clipped = -advantage * tl.clamp(ratio, limits.ratio_low, limits.ratio_high)
    policy_binds = clipped > unclipped
    policy_loss = tl.where(policy_binds, clipped, unclipped)
    d_log_prob = tl.where(policy_binds | too_far, 0.0, unclipped)

    change = value - old_value
    moved = old_value + tl.clamp(change, -limits.value_clip, limits.value_clip)
    clipped_error = tl.where(tl.abs(change) <= limits.value_clip, value, moved) - target
    error = value - target
    value_binds = tl.abs(clipped_error) > tl.abs(error)  # rounded squares could compare otherwise
    squared_error = tl.maximum(clipped_error * clipped_error, error * error, _PROPAGATE)
    d_value = tl.where(value_binds, 0.0, error) * limits.value_coefficient

    tl.store(d_log_prob_ptr + tokens, d_log_prob, mask=inside)
    tl.store(d_values_ptr + tokens, d_value, mask=inside)

    count = tl.sum(counts.to(tl.float32))
    at = sums.ptr + block
    row_stride = tl.cast(sums.n_columns, tl.int64)
    tl.store(at + row_stride * COUNT, count)
    tl.store(at + row_stride * POLICY_LOSS, tl.sum(policy_loss))
    tl.store(at + row_stride * SQUARED_ERROR, tl.sum(squared_error))
    tl.store(at + row_stride * ENTROPY, tl.sum(entropy))
    tl.store(at + row_stride * SQUARED_LOG_RATIO, tl.sum(log_ratio * log_ratio))
    tl.store(at + row_stride * POLICY_BINDS, tl.sum(policy_binds.to(tl.float32)))
    tl.store(at + row_stride * VALUE_BINDS, tl.sum(value_binds.to(tl.float32)))
    tl.store(at + row_stride * RATIO, tl.sum(tl.where(counts, ratio, 0.0)))
    tl.store(at + row_stride * RATIO_MIN, tl.min(tl.where(counts, ratio, _INFINITY)))
    tl.store(at + row_stride * RATIO_MAX, tl.max(tl.where(counts, ratio, -_INFINITY)))
    tl.store(at + row_stride * RETURN, tl.sum(target))
    tl.store(at + row_stride * RETURN_SQUARES, squares_about_mean(target, counts, count))
    tl.store(at + row_stride * RETURN_MIN, tl.min(tl.where(counts, target, _INFINITY)))
    tl.store(at + row_stride * RETURN_MAX, tl.max(tl.where(counts, target, -_INFINITY)))
    tl.store(at + row_stride * ERROR, tl.sum(-error))
    tl.store(at + row_stride * ERROR_SQUARES, squares_about_mean(-error, counts, count))


class Gradients(NamedTuple):
    """Of the arguments that have one, each [token] and contiguous."""

    log_prob: Any
    value: Any
    entropy: Any


@triton.autotune(SCALE_CONFIGS, key=["size_bucket"])
@triton.jit
def ppo_loss_scale_kernel(
    raw,  # Gradients, n times too large; the entropy's is not there
    mask_ptr,  # int8 [token]
    d_loss_ptr,  # []
    count_ptr,  # []
    scaled,  # Gradients, written
    n_tokens,
    size_bucket,
    entropy_coefficient,
    BLOCK: tl.constexpr,
):
    """Multiply the gradients by d_loss / n."""
    tokens = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = tokens < n_tokens
    counts = tl.load(mask_ptr + tokens, mask=inside, other=0) != 0
    scale = tl.load(d_loss_ptr) / tl.maximum(tl.load(count_ptr), 1.0)
    d_log_prob = tl.load(raw.log_prob + tokens, mask=counts, other=0.0)
    d_value = tl.load(raw.value + tokens, mask=counts, other=0.0)
    tl.store(scaled.log_prob + tokens, tl.where(counts, d_log_prob * scale, 0.0), mask=inside)
    tl.store(scaled.value + tokens, tl.where(counts, d_value * scale, 0.0), mask=inside)
    d_entropy = tl.where(counts, scale * -entropy_coefficient, 0.0)
    tl.store(scaled.entropy + tokens, d_entropy, mask=inside)


Coefficients = tuple[float, float, float, float]


def ppo_loss_forward(
    tokens: tuple[torch.Tensor, ...], mask: torch.Tensor, coefficients: Coefficients
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the pass over the tokens and the one over its partial sums.

    Parameters
    ----------
    tokens : tuple of torch.Tensor
        The seven float arguments of `ppo_loss` in its order; copied if not contiguous.
    mask : torch.Tensor of bool
        Contiguous.
    coefficients : tuple of float
        clip, value_clip, value_coefficient and entropy_coefficient.

    Returns
    -------
    loss : torch.Tensor []
    statistics : torch.Tensor [11]
        The other `PPOResults`, in their order.
    d_log_prob, d_values : torch.Tensor
        n times the gradients of the loss; contiguous.
    """
    clip, value_clip, value_coefficient, entropy_coefficient = coefficients
    given = Tokens(*(x.contiguous() for x in tokens))
    n_tokens, device = mask.numel(), mask.device
    n_columns = max(1, triton.cdiv(n_tokens, BLOCK))  # without tokens one program still writes 0
    d_log_prob, d_values = torch.empty_like(given.log_prob), torch.empty_like(given.log_prob)
    sums = Sums(torch.empty(N_ROWS, n_columns, dtype=torch.float32, device=device), n_columns)
    loss = torch.empty((), dtype=torch.float32, device=device)
    statistics = torch.empty(len(PPOResults._fields) - 1, dtype=torch.float32, device=device)
    launch(
        ppo_loss_kernel,
        (n_columns,),
        *(given, mask.view(torch.int8), d_log_prob, d_values, sums, *bucketed(n_tokens)),
        Limits(1 - clip, 1 + clip, value_clip, value_coefficient),
        BLOCK=BLOCK,
    )
    launch(
        ppo_loss_statistics_kernel,
        (1,),
        *(sums, loss, statistics, value_coefficient, entropy_coefficient),
        BLOCK=BLOCK,
    )
    return loss, statistics, d_log_prob, d_values


def ppo_loss_backward(
    d_log_prob: torch.Tensor,
    d_values: torch.Tensor,
    mask: torch.Tensor,
    count: torch.Tensor,
    d_loss: torch.Tensor,
    entropy_coefficient: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the kernel that scales the gradients.

    Parameters
    ----------
    d_log_prob, d_values : torch.Tensor
        From `ppo_loss_forward`.
    mask : torch.Tensor of bool
        Contiguous.
    count, d_loss : torch.Tensor []
        Unmasked tokens, and the gradient of the loss.
    entropy_coefficient : float
        As in `ppo_loss`.

    Returns
    -------
    d_log_prob, d_values, d_entropy : torch.Tensor
        Gradients, contiguous.
    """
    raw = Gradients(d_log_prob, d_values, None)
    scaled = Gradients(*(torch.empty_like(d_log_prob) for _ in Gradients._fields))
    n_tokens = mask.numel()
    launch(
        ppo_loss_scale_kernel,
        lambda meta: (triton.cdiv(n_tokens, meta["BLOCK"]),),
        *(raw, mask.view(torch.int8), d_loss, count, scaled),
        *(*bucketed(n_tokens), entropy_coefficient),
    )
    return scaled


class _PPOLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *arguments):
        *tokens, mask, coefficients = arguments
        mask = mask.contiguous()
        loss, statistics, d_log_prob, d_values = ppo_loss_forward(tokens, mask, coefficients)
        ctx.mark_non_differentiable(statistics)
        ctx.save_for_backward(d_log_prob, d_values, mask, statistics)
        ctx.entropy_coefficient = coefficients[-1]
        return loss, statistics

    @staticmethod
    @first_derivative_only("ppo_loss")
    def backward(ctx, d_loss, _):
        d_log_prob, d_values, mask, statistics = ctx.saved_tensors
        d_log_prob, d_values, d_entropy = ppo_loss_backward(
            d_log_prob, d_values, mask, statistics[-1], d_loss, ctx.entropy_coefficient
        )
        return d_log_prob, None, None, d_values, None, None, d_entropy, None, None


def ppo_loss(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    entropy: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip: float = 0.2,
    value_clip: float = 0.2,
    value_coefficient: float = 0.1,
    entropy_coefficient: float = 0.0,
) -> PPOResults:
    """Compute the loss of one PPO minibatch; the twin of `gptwin.core.rlhf.ppo_loss.ppo_loss`.

    Parameters
    ----------
    log_prob : torch.Tensor [batch, time]
        log π of each sampled token, in nats; gets a gradient. float32, any strides (copied if not
        contiguous). All tensors have this shape, which may be any.
    old_log_prob : torch.Tensor [batch, time]
        The same under the policy that sampled it; no gradient.
    advantages : torch.Tensor [batch, time]
        No gradient.
    values : torch.Tensor [batch, time]
        What the value network predicts now; gets a gradient.
    old_values, returns : torch.Tensor [batch, time]
        What it predicted at the rollout, and what it should predict; no gradient.
    entropy : torch.Tensor [batch, time]
        Of π at each position, in nats; gets a gradient.
    mask : torch.Tensor of bool [batch, time]
        True for a response token that counts.
    clip : float
        ε of the ratio; above 0.
    value_clip : float
        ε_V: how far a value may move from the old one; above 0.
    value_coefficient, entropy_coefficient : float
        c_V and c_H; 0 or above.

    Returns
    -------
    PPOResults
        Scalars on the tensors' device; reading one waits for it. `loss` alone carries a gradient.

    Raises
    ------
    ValueError
        If a shape, dtype, device or coefficient is wrong, or, where that is checked
        (kernels/common/finite.py), an unmasked number is not finite.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    coefficients = (clip, value_clip, value_coefficient, entropy_coefficient)
    tokens = (log_prob, old_log_prob, advantages, values, old_values, returns, entropy)
    check_ppo_loss(*tokens, mask, *coefficients)
    floats = dict(zip(FLOAT_ARGUMENTS, tokens, strict=True))
    expect_floats(**floats)
    expect_same_dtype(**floats)
    on_triton = runs_on_triton("ppo_loss", **floats, mask=mask)
    expect_all_finite(mask, **floats)
    if on_triton:
        if log_prob.dtype != torch.float32:
            refuse(
                "log_prob",
                "dtype float32",
                f"dtype {log_prob.dtype}",
                "half-precision logits: ratios of their log-probabilities are noise",
            )
        loss, statistics = _PPOLoss.apply(*tokens, mask, tuple(map(float, coefficients)))
        return PPOResults(loss, *statistics.unbind())
    return ppo_loss_eager(
        *tokens,
        mask,
        clip=clip,
        value_clip=value_clip,
        value_coefficient=value_coefficient,
        entropy_coefficient=entropy_coefficient,
    )


@at_least_float32
def ppo_loss_eager(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    entropy: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip: float = 0.2,
    value_clip: float = 0.2,
    value_coefficient: float = 0.1,
    entropy_coefficient: float = 0.0,
) -> PPOResults:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick."""
    constants = (x.detach() for x in (old_log_prob, advantages, old_values, returns))
    # where, not a product: masked NaN must not leak, in either direction.
    new, value, disorder, old, advantage, old_value, target = (
        torch.where(mask, x, 0.0) for x in (log_prob, values, entropy, *constants)
    )
    count = mask.sum().to(new.dtype)
    n = count.clamp(min=1)

    def mean(x):
        return torch.where(mask, x, 0.0).sum() / n

    log_ratio = new - old
    # Beyond the limit it is constant. A NaN is beyond none, and clamp's own gradient of it is 0.
    limited = log_ratio.detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = torch.where(log_ratio.abs() > MAX_LOG_RATIO, limited, log_ratio).exp()
    unclipped = -advantage * ratio
    clipped = (-advantage * ratio.clamp(1 - clip, 1 + clip)).detach()
    policy_binds = clipped > unclipped  # not torch.maximum, which halves the gradient at a tie
    policy_loss = mean(torch.where(policy_binds, clipped, unclipped))

    change = value - old_value
    moved = old_value + change.clamp(-value_clip, value_clip)
    error = value - target
    clipped_error = (torch.where(change.abs() <= value_clip, value, moved) - target).detach()
    value_binds = clipped_error.abs() > error.abs()
    squared_error = torch.where(value_binds, clipped_error**2, error**2)
    value_loss = mean(squared_error + 0 * clipped_error) / 2  # NaN is above nothing

    entropy_mean = mean(disorder)
    loss = policy_loss + value_coefficient * value_loss - entropy_coefficient * entropy_mean
    with torch.no_grad():
        ratio_min, ratio_max = _extremes(ratio, mask)
        lowest, highest = _extremes(target, mask)
        varies = lowest != highest
        away = target - mean(target)
        error_away = error - mean(error)
        variance = torch.where(varies, mean(away**2), 1.0)
        return PPOResults(
            loss,
            policy_loss.detach(),
            value_loss.detach(),
            entropy_mean.detach(),
            mean(log_ratio**2) / 2,
            mean(policy_binds.to(n.dtype)),
            mean(value_binds.to(n.dtype)),
            mean(ratio),
            ratio_min,
            ratio_max,
            torch.where(varies, 1 - mean(error_away**2) / variance, 0.0),
            count,
        )


def _extremes(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest and the largest unmasked element; 0 and 0 if there is none."""
    infinity = x.new_full((1,), torch.inf)
    smallest = torch.cat([torch.where(mask, x, torch.inf).reshape(-1), infinity]).min()
    largest = torch.cat([torch.where(mask, x, -torch.inf).reshape(-1), -infinity]).max()
    some = mask.any()
    return torch.where(some, smallest, 0.0), torch.where(some, largest, 0.0)
