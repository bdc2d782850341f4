"""GAE in Triton: a linear recurrence over time as an associative scan, forward and backward.

Mathematics (core/rlhf/gae.py). The returns obey R_t = r_t + C_{t+1} with

    C_t = a_t·C_{t+1} + b_t,   a = γλ, b = γ(1−λ)·V_t + γλ·r_t     (outside the mask: a = 1, b = 0)

and A = R − V. The maps c → a·c + b compose associatively, so a block of time is scanned in log₂ of
its length. Backward is the transposed recurrence, from the start: B_t = d_A + d_R + γλ·B_{t−1} is
the gradient of R_t, then d_r = B_t and d_V = −d_A + γ(1−λ)·B_{t−1}.

Tiling: one program per row; a row longer than MAX_BLOCK walks its blocks from the end (backward:
from the start), carrying C (B).

    ┌───────┬───────┬───────┬──┐      lane t needs C_{t+1}, the scan shifted by one: it loads its
    │    C ◄┼──── C ◄──── C ◄─ 0 │    neighbour's token for the scan and its own for the result.
    └───────┴───────┴───────┴──┘      No lane asks another for anything but the scan.

Memory: the shifted loads hit the cache, so each input is read once from memory and each output
written once. Backward needs the mask alone: the operation is linear. Outside the mask nothing is
read. Deterministic: nothing crosses a row.
"""

import torch

from ...core.rlhf.gae import check_gae
from ..common._triton import tl, triton
from ..common.derivative import first_derivative_only
from ..common.finite import expect_all_finite
from ..common.indices import expect_countable
from ..common.launch import launch, runs_on_triton
from ..common.widened import at_least_float32
from .kl import expect_float32

# Rows longer than this take several blocks.
MAX_BLOCK = 1024
# A scan exchanges numbers between warps, so there are few.
GAE_CONFIGS = [triton.Config({}, num_warps=2), triton.Config({}, num_warps=4)]


@triton.jit
def _compose(decay_1, gain_1, decay_2, gain_2):
    """Return the map c → decay_2·(decay_1·c + gain_1) + gain_2."""
    return decay_1 * decay_2, gain_1 * decay_2 + gain_2


@triton.autotune(GAE_CONFIGS, key=["BLOCK_TIME"])
@triton.jit
def gae_forward_kernel(
    rewards_ptr,  # this and all others contiguous
    values_ptr,
    mask_ptr,  # int8
    advantages_ptr,
    returns_ptr,
    n_time,
    decay,  # γλ
    value_gain,  # γ(1 − λ)
    BLOCK_TIME: tl.constexpr,
):
    """Advantages and returns of one row."""
    row = tl.program_id(0).to(tl.int64) * n_time
    carry = 0.0  # C at the first token of the block to the right
    lane = tl.arange(0, BLOCK_TIME)
    n_blocks = tl.cdiv(n_time, BLOCK_TIME)
    for block in range(0, n_blocks):
        time = (n_blocks - 1 - block) * BLOCK_TIME + lane
        ahead = row + time + 1
        live = tl.load(mask_ptr + ahead, mask=time + 1 < n_time, other=0) != 0
        reward = tl.load(rewards_ptr + ahead, mask=live, other=0.0)
        value = tl.load(values_ptr + ahead, mask=live, other=0.0)
        decays = tl.where(live, decay, 1.0)
        gains = value * value_gain + reward * decay
        product, worth = tl.associative_scan((decays, gains), 0, _compose, reverse=True)
        worth += product * carry  # C_{t+1}
        carry = tl.sum(tl.where(lane == 0, worth, 0.0), axis=0)

        at = row + time
        inside = time < n_time
        live = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
        returns = tl.load(rewards_ptr + at, mask=live, other=0.0) + worth
        advantages = returns - tl.load(values_ptr + at, mask=live, other=0.0)
        tl.store(returns_ptr + at, tl.where(live, returns, 0.0), mask=inside)
        tl.store(advantages_ptr + at, tl.where(live, advantages, 0.0), mask=inside)


@triton.autotune(GAE_CONFIGS, key=["BLOCK_TIME"])
@triton.jit
def gae_backward_kernel(
    mask_ptr,  # int8
    d_advantages_ptr,
    d_returns_ptr,
    d_rewards_ptr,
    d_values_ptr,
    n_time,
    decay,
    value_gain,
    BLOCK_TIME: tl.constexpr,
):
    """Carry the gradients of one row back."""
    row = tl.program_id(0).to(tl.int64) * n_time
    carry = 0.0  # B at the last token of the block to the left
    lane = tl.arange(0, BLOCK_TIME)
    for start in range(0, n_time, BLOCK_TIME):
        time = start + lane
        behind = row + time - 1
        known = (time > 0) & (time <= n_time)
        live = known & (tl.load(mask_ptr + behind, mask=known, other=0) != 0)
        gains = tl.load(d_advantages_ptr + behind, mask=live, other=0.0)
        gains += tl.load(d_returns_ptr + behind, mask=live, other=0.0)
        decays = tl.where(live, decay, 1.0)
        product, before = tl.associative_scan((decays, gains), 0, _compose)
        before += product * carry  # B_{t−1}
        carry = tl.sum(tl.where(lane == BLOCK_TIME - 1, before, 0.0), axis=0)

        at = row + time
        inside = time < n_time
        live = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
        d_advantages = tl.load(d_advantages_ptr + at, mask=live, other=0.0)
        d_returns = tl.load(d_returns_ptr + at, mask=live, other=0.0)
        d_rewards = d_advantages + d_returns + before * decay
        d_values = before * value_gain - d_advantages
        tl.store(d_rewards_ptr + at, tl.where(live, d_rewards, 0.0), mask=inside)
        tl.store(d_values_ptr + at, tl.where(live, d_values, 0.0), mask=inside)


def gae_forward(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the forward kernel for checked, contiguous arguments.

    Parameters
    ----------
    rewards, values, mask, gamma, lam
        As in `gae`.

    Returns
    -------
    advantages, returns : torch.Tensor [batch, time]
    """
    advantages, returns = torch.empty_like(rewards), torch.empty_like(rewards)
    n_batch, n_time = rewards.shape
    expect_countable("gae", tokens=n_time)
    launch(
        gae_forward_kernel,
        (n_batch if n_time else 0,),
        *(rewards, values, mask.view(torch.int8), advantages, returns),
        *(n_time, gamma * lam, gamma * (1 - lam)),
        BLOCK_TIME=_block(n_time),
    )
    return advantages, returns


def gae_backward(
    mask: torch.Tensor,
    d_advantages: torch.Tensor,
    d_returns: torch.Tensor,
    gamma: float,
    lam: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the backward kernel.

    Parameters
    ----------
    mask, gamma, lam
        As in `gae`; the mask contiguous.
    d_advantages, d_returns : torch.Tensor [batch, time]
        Gradients of both results, contiguous.

    Returns
    -------
    d_rewards, d_values : torch.Tensor [batch, time]
    """
    d_rewards, d_values = torch.empty_like(d_advantages), torch.empty_like(d_advantages)
    n_batch, n_time = mask.shape
    launch(
        gae_backward_kernel,
        (n_batch if n_time else 0,),
        *(mask.view(torch.int8), d_advantages, d_returns, d_rewards, d_values),
        *(n_time, gamma * lam, gamma * (1 - lam)),
        BLOCK_TIME=_block(n_time),
    )
    return d_rewards, d_values


def _block(n_time: int) -> int:
    return min(max(triton.next_power_of_2(n_time), 128), MAX_BLOCK)


class _Gae(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rewards, values, mask, gamma, lam):
        mask = mask.contiguous()
        ctx.save_for_backward(mask)
        ctx.discounts = (gamma, lam)
        return gae_forward(rewards.contiguous(), values.contiguous(), mask, gamma, lam)

    @staticmethod
    @first_derivative_only("gae")
    def backward(ctx, d_advantages, d_returns):
        (mask,) = ctx.saved_tensors
        gradients = (d_advantages.contiguous(), d_returns.contiguous())
        return *gae_backward(mask, *gradients, *ctx.discounts), None, None, None


def gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute advantages and returns; the twin of `gptwin.core.rlhf.gae.gae`.

    Parameters
    ----------
    rewards, values : torch.Tensor [batch, time]
        float32, any strides (a strided tensor is copied).
    mask : torch.Tensor of bool [batch, time]
        True at the response tokens, in any pattern: "next" is the next True of the row.
    gamma, lam : float
        Discount γ and λ, both in [0, 1].

    Returns
    -------
    advantages, returns : torch.Tensor [batch, time]
        0 outside the mask, where both gradients are 0 too.

    Raises
    ------
    ValueError
        If a shape, dtype, device, `gamma` or `lam` is wrong, or, where that is checked
        (kernels/common/finite.py), a reward or value inside the mask is not finite.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_gae(rewards, values, mask, gamma, lam)
    on_triton = runs_on_triton("gae", rewards=rewards, values=values, mask=mask)
    expect_all_finite(mask, rewards=rewards, values=values)
    if on_triton:
        expect_float32(rewards=rewards, values=values)
        return _Gae.apply(rewards, values, mask, float(gamma), float(lam))
    return gae_eager(rewards, values, mask, gamma=gamma, lam=lam)


@at_least_float32
def gae_eager(
    rewards: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick: the definition's loop."""
    rewards, values = rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)
    next_value = next_advantage = rewards.new_zeros(len(rewards))
    backwards = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        backwards.append(advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        next_advantage = torch.where(mask[:, t], advantage, next_advantage)
    if not backwards:
        return rewards.clone(), values.clone()
    advantages = torch.stack(backwards[::-1], dim=1).masked_fill(~mask, 0)
    return advantages, (advantages + values).masked_fill(~mask, 0)
