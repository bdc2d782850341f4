"""Cross-entropy from hidden states and the output matrix, in Triton: no [token, vocab] logits.

Mathematics (core/language/cross_entropy.py): −log softmax(hidden W)[target], reduced over the
counted tokens. All of it that touches the vocabulary is in kernels/language/token_scores.py, which
see for tiling, memory and cost; what is left are vectors of one number a token:

    hidden, W ──► token_scores ──► log π, H ──► loss = Σ −log π / n_counted
              ◄── d_x in chunks of vocab  ◄── d_log_prob, d_entropy, whoever asks for them

Nothing is kept from forward to backward but three floats a token.

The gradient could be computed in forward instead, as Liger has it: while a chunk's logits are
there, p − 1[target] is too, and one of four products is saved. It is not, because of what the
gradient of W would need meanwhile: the chunks must then hold whole rows, so d_W is a sum over
them, in float32 as large as twice W in bfloat16, carried through memory for each chunk (5 GB at
4,096 x 151,936). It would be rounded before the loss's gradient is known: in float16, whose loss
must be scaled before that, small entries vanish. And it would hold for the loss alone, where here
log-probabilities and entropies have gradients as well.

Targets are range-checked on the CPU. On a GPU that would wait for the device: there a target out
of range makes its log-probability NaN, and the loss.

Deterministic, as token_scores is.
"""

import math

import torch

from ...core.checks import refuse
from ...core.language.cross_entropy import check_cross_entropy
from ...core.language.token_scores import check_targets
from ..common.derivative import first_derivative_only
from ..common.finite import expect_all_finite
from ..common.indices import signed
from ..common.launch import expect_same_dtype, runs_on_triton
from ..common.widened import product_in_float32
from .token_scores import score, score_backward
from .token_scores_cpu import eager_scores

Results = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, counted, temperature):
        log_prob, entropy, lse = score(hidden, weight, targets, counted, temperature)
        ctx.temperature = temperature
        ctx.save_for_backward(hidden, weight, targets, counted, entropy, lse)
        ctx.set_materialize_grads(False)  # no gradient of the entropy: no arithmetic for it
        return log_prob, entropy

    @staticmethod
    @first_derivative_only("cross_entropy")
    def backward(ctx, d_log_prob, d_entropy):
        hidden, weight, targets, counted, entropy, lse = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        d_log_prob = torch.zeros_like(lse) if d_log_prob is None else d_log_prob.contiguous()
        d_hidden, d_weight = score_backward(
            *(hidden, weight, targets, counted, ctx.temperature, entropy, lse, d_log_prob),
            None if d_entropy is None else d_entropy.contiguous(),
            wants_hidden=wants_hidden,
            wants_weight=wants_weight,
        )
        return d_hidden, d_weight, None, None, None


def cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Results:
    """Compute the cross-entropy of the next tokens; the twin of core/language/cross_entropy.py.

    Parameters
    ----------
    hidden : torch.Tensor [token, d_model]
        Final hidden states, each at the position that predicts its target; float32, float16 or
        bfloat16, any strides; gets a gradient.
    weight : torch.Tensor [d_model, vocab]
        The output matrix, of the same dtype; gets a gradient of the same strides. Any strides; of
        a tied head `wte.T`, which is also the fastest.
    targets : torch.Tensor of int [token]
        The tokens that followed, or `ignore_index`. Out of range: a ValueError on the CPU, NaN on
        a GPU.
    ignore_index : int
        Label of a token that does not count: it is not looked at.
    reduction : str
        "mean" over the counted tokens, their "sum", or "none".

    Returns
    -------
    loss : torch.Tensor [], or [token] without a reduction
        float32 (as the others), in nats a token. Every token ignored: 0.
    log_prob : torch.Tensor [token]
        Of each target, at most 0; 0 where ignored.
    entropy : torch.Tensor [token]
        Of each predicted distribution, in nats; 0 where ignored. All three carry gradients.

    Raises
    ------
    ValueError
        If a shape, dtype, device or option is wrong, or, where that is checked
        (kernels/common/finite.py), a number that counts is not finite.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    targets, counted, on_triton = _checked(hidden, weight, targets, ignore_index, reduction)
    if on_triton:
        log_prob, entropy = _TokenScores.apply(hidden, weight, targets.contiguous(), counted, 1.0)
        return _reduce(log_prob, counted, reduction), log_prob, entropy
    return cross_entropy_eager(
        hidden, weight, targets, ignore_index=ignore_index, reduction=reduction
    )


def token_log_probs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Compute the `log_prob` of `cross_entropy` alone: on a CPU, with fewer passes over logits.

    Parameters
    ----------
    hidden, weight, targets, ignore_index
        As in `cross_entropy`.
    temperature : float
        Divides the logits; above 0.

    Returns
    -------
    torch.Tensor [token]
        As in `cross_entropy`; carries a gradient.
    """
    targets, counted, on_triton = _checked(hidden, weight, targets, ignore_index, "none")
    if not 0 < temperature < math.inf:
        refuse("temperature", "a finite number above 0", str(temperature))
    if on_triton:
        scored = hidden, weight, targets.contiguous(), counted
        return _TokenScores.apply(*scored, float(temperature))[0]
    hidden = hidden if temperature == 1 else hidden / temperature
    if hidden.device.type == "cpu" and not torch.compiler.is_compiling():
        return eager_scores(hidden, weight, targets, counted)[0]
    return cross_entropy_eager(hidden, weight, targets, ignore_index=ignore_index)[1]


def _checked(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int,
    reduction: str,
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Refuse bad arguments; return targets, which of them count, and whether kernels are used."""
    check_cross_entropy(hidden, weight, targets, ignore_index, reduction)
    targets = signed(targets)
    expect_same_dtype(hidden=hidden, weight=weight)
    on_triton = runs_on_triton("cross_entropy", hidden=hidden, weight=weight, targets=targets)
    counted = targets != ignore_index
    # To look at targets on a GPU is to wait for it; under torch.compile it would break the graph.
    if targets.device.type == "cpu" and not torch.compiler.is_compiling():
        check_targets(targets, counted, weight.shape[1])
    expect_all_finite(counted, hidden=hidden)
    expect_all_finite(None, weight=weight)
    return targets, counted, on_triton


def cross_entropy_eager(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Results:
    """Compute the same in plain PyTorch, logits and all, for the CPU and as a yardstick.

    Returns
    -------
    loss, log_prob, entropy : torch.Tensor
        As in `cross_entropy`; of float64 arguments float64.
    """
    vocab = weight.shape[1]
    counted = targets != ignore_index
    rows = torch.where(counted[:, None], hidden, 0.0)
    logits = product_in_float32(rows, weight)  # [token, vocab]
    log_p = torch.log_softmax(logits, dim=-1)
    wanted = torch.where(counted, targets, 0).long()
    log_prob = log_p.gather(-1, wanted.clamp(0, vocab - 1)[:, None])[:, 0]
    log_prob = torch.where((wanted >= 0) & (wanted < vocab), log_prob, torch.nan)
    log_prob = torch.where(counted, log_prob, 0.0)
    entropy = torch.where(counted, -(log_p.exp() * log_p).sum(dim=-1), 0.0)
    # Its own reduction: a yardstick that shared the kernel's would share its mistakes.
    if reduction == "none":
        return 0 - log_prob, log_prob, entropy
    share = counted.to(log_prob.dtype)
    share = share / share.sum().clamp(min=1) if reduction == "mean" else share
    return (0 - log_prob * share).sum(), log_prob, entropy


def _reduce(log_prob: torch.Tensor, counted: torch.Tensor, reduction: str) -> torch.Tensor:
    """Make the loss of the log-probabilities, which are 0 where ignored."""
    losses = 0 - log_prob  # −(0) would be −0
    if reduction == "none":
        return losses
    total = losses.sum()
    return total / counted.sum().clamp(min=1) if reduction == "mean" else total
