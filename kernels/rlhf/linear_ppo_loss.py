"""The PPO loss from hidden states and the output matrix, in Triton: no [token, vocab] logits.

Mathematics (core/rlhf/linear_ppo_loss.py): x = hidden W / T gives each token's log-probability and
entropy, and these the PPO loss. The pieces lie in two files, and this one joins them:

    hidden, W ──► language/token_scores.py ──► log π, H ──► rlhf/ppo_loss.py ──► loss
              ◄── d_x in chunks of vocab  ◄── d_log_prob, d_entropy ◄────────────

Memory. Beside the results, forward keeps five floats a token; backward's largest buffer holds
`token_scores.MAX_LOGITS` numbers, however large the vocabulary.

Targets are range-checked on the CPU. On a GPU that would wait for the device: there a target out
of range makes the loss NaN.

Deterministic, as its pieces are.
"""

from typing import Any

import torch

from ...core.checks import expect_floats, refuse
from ...core.language.token_scores import check_targets
from ...core.rlhf.linear_ppo_loss import check_linear_ppo_loss
from ...core.rlhf.ppo_loss import PPOResults, check_ppo_loss
from ..common.derivative import first_derivative_only
from ..common.finite import expect_all_finite
from ..common.indices import signed
from ..common.launch import expect_same_dtype, runs_on_triton
from ..common.widened import product_in_float32
from ..language.token_scores import score, score_backward
from ..language.token_scores_cpu import eager_scores
from .ppo_loss import ppo_loss_backward, ppo_loss_eager, ppo_loss_forward

TOKEN_ARGUMENTS = ("values", "old_log_prob", "advantages", "old_values", "returns")


class _LinearPPOLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, values, targets, constants, mask, temperature, coefficients):
        old_log_prob, advantages, old_values, returns = constants
        targets, mask = targets.contiguous(), mask.contiguous()
        log_prob, entropy, lse = score(hidden, weight, targets, mask, temperature)
        tokens = (log_prob, old_log_prob, advantages, values, old_values, returns, entropy)
        loss, statistics, d_log_prob, d_values = ppo_loss_forward(tokens, mask, coefficients)
        ctx.mark_non_differentiable(statistics)
        ctx.save_for_backward(
            hidden, weight, targets, mask, entropy, lse, d_log_prob, d_values, statistics
        )
        ctx.temperature, ctx.entropy_coefficient = temperature, coefficients[-1]
        return loss, statistics

    @staticmethod
    @first_derivative_only("linear_ppo_loss")
    def backward(ctx, d_loss, _):
        hidden, weight, targets, mask, entropy, lse, *raw, statistics = ctx.saved_tensors
        d_log_prob, d_values, d_entropy = ppo_loss_backward(
            *raw, mask, statistics[-1], d_loss, ctx.entropy_coefficient
        )
        d_hidden = d_weight = None
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        if wants_hidden or wants_weight:
            d_hidden, d_weight = score_backward(
                *(hidden, weight, targets, mask, ctx.temperature),
                *(entropy, lse, d_log_prob, d_entropy if ctx.entropy_coefficient else None),
                wants_hidden=wants_hidden,
                wants_weight=wants_weight,
            )
        return d_hidden, d_weight, d_values, None, None, None, None, None


def linear_ppo_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    mask: torch.Tensor,
    *,
    temperature: float = 1.0,
    clip: float = 0.2,
    value_clip: float = 0.2,
    value_coefficient: float = 0.1,
    entropy_coefficient: float = 0.0,
) -> PPOResults:
    """Compute the PPO loss from hidden states; the twin of core/rlhf/linear_ppo_loss.py.

    Parameters
    ----------
    hidden : torch.Tensor [token, d_model]
        Final hidden states, each at the position that scores its target; float32, float16 or
        bfloat16, any strides; gets a gradient.
    weight : torch.Tensor [d_model, vocab]
        The output matrix, of the same dtype, any strides; gets a gradient.
    targets : torch.Tensor of int [token]
        The sampled tokens. Out of range and unmasked: a ValueError on the CPU, NaN on a GPU.
    old_log_prob, advantages, old_values, returns : torch.Tensor [token]
        As in `ppo_loss`: float32, no gradient.
    values : torch.Tensor [token]
        float32; gets a gradient.
    mask : torch.Tensor of bool [token]
        True for a response token that counts.
    temperature : float
        T of the rollout: divides the logits; above 0.
    clip, value_clip, value_coefficient, entropy_coefficient : float
        As in `ppo_loss`.

    Returns
    -------
    PPOResults
        Scalars; `loss` alone carries a gradient.

    Raises
    ------
    ValueError
        If a shape, dtype, device, coefficient or the temperature is wrong, or, where that is
        checked (kernels/common/finite.py), an unmasked number is not finite.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    coefficients = (clip, value_clip, value_coefficient, entropy_coefficient)
    constants = (old_log_prob, advantages, old_values, returns)
    check_linear_ppo_loss(hidden, weight, targets, mask, temperature)
    targets = signed(targets)
    check_ppo_loss(targets, *constants[:2], values, *constants[2:], targets, mask, *coefficients)
    if targets.device.type == "cpu":  # elsewhere, looking at them would wait for the device
        check_targets(targets, mask, weight.shape[1])
    expect_same_dtype(hidden=hidden, weight=weight)
    floats = dict(zip(TOKEN_ARGUMENTS, (values, *constants), strict=True))
    expect_floats(**floats)
    expect_same_dtype(**floats)
    on_triton = runs_on_triton(
        "linear_ppo_loss", hidden=hidden, weight=weight, targets=targets, **floats, mask=mask
    )
    expect_all_finite(mask, hidden=hidden, **floats)
    expect_all_finite(None, weight=weight)
    if on_triton:
        if values.dtype != torch.float32:
            refuse("values", "dtype float32, like log-probabilities", f"dtype {values.dtype}")
        loss, statistics = _LinearPPOLoss.apply(
            *(hidden, weight, values, targets, constants, mask),
            *(float(temperature), tuple(map(float, coefficients))),
        )
        return PPOResults(loss, *statistics.unbind())
    options: dict[str, Any] = {
        "clip": clip,
        "value_clip": value_clip,
        "value_coefficient": value_coefficient,
        "entropy_coefficient": entropy_coefficient,
    }
    # Without a coefficient the entropy is a statistic, which language/token_scores_cpu.py makes
    # cheap.
    if hidden.device.type == "cpu" and not (entropy_coefficient or torch.compiler.is_compiling()):
        log_prob, entropy = eager_scores(
            hidden if temperature == 1 else hidden / temperature,
            *(weight, targets, mask),
            with_entropy=True,
        )
        return ppo_loss_eager(
            *(log_prob, old_log_prob, advantages, values, old_values, returns, entropy, mask),
            **options,
        )
    return linear_ppo_loss_eager(
        *(hidden, weight, targets, old_log_prob, advantages, values, old_values, returns, mask),
        temperature=temperature,
        **options,
    )


def linear_ppo_loss_eager(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    mask: torch.Tensor,
    *,
    temperature: float = 1.0,
    clip: float = 0.2,
    value_clip: float = 0.2,
    value_coefficient: float = 0.1,
    entropy_coefficient: float = 0.0,
) -> PPOResults:
    """Compute the same in plain PyTorch, logits and all, for the CPU and as a yardstick."""
    vocab = weight.shape[1]
    logits = product_in_float32(torch.where(mask[:, None], hidden, 0.0), weight)  # [token, vocab]
    log_p = torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)
    wanted = torch.where(mask, targets, 0).long()
    log_prob = log_p.gather(-1, wanted.clamp(0, vocab - 1)[:, None])[:, 0]
    log_prob = torch.where((wanted >= 0) & (wanted < vocab), log_prob, torch.nan)
    # Without a coefficient the entropy is a statistic: backward need not pass over its logits.
    asked_of = log_p if entropy_coefficient else log_p.detach()
    entropy = -(asked_of.exp() * asked_of).sum(dim=-1)
    return ppo_loss_eager(
        *(log_prob, old_log_prob, advantages, values, old_values, returns, entropy, mask),
        clip=clip,
        value_clip=value_clip,
        value_coefficient=value_coefficient,
        entropy_coefficient=entropy_coefficient,
    )
