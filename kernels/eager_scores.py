"""Log-probabilities of tokens in plain PyTorch, for the CPU: one matrix of logits, and few passes.

What kernels/token_scores.py is to a GPU: the mean cross-entropy (eager_loss.py), the PPO loss
(linear_ppo_loss.py) and the judging of what was said (`token_log_probs`) all come here. Written
out, they pass over [token, vocab] for the log-softmax and for the entropies, to fill a gradient
with zeros, to scatter into it, to carry it back through the log-softmax and to scale it, each time
between cache and memory. Here a strip of rows at a time stays in the cache, and the gradient takes
the logits' place while it is there:

    forward    logits = hidden W;   log π = log_softmax(logits)[target];   H = −Σ p log p
               p, less 1 at the target, is written over the logits: −∂ log π / ∂ logits
    backward   both products take that matrix as it is, for d_log_prob, which scales its rows, is
               put on the far smaller `hidden` and `d_hidden`

Without a gradient, nothing is written over the logits. An entropy is a statistic here: whoever
needs its gradient uses the plain equivalents, which keep log p. float16 and bfloat16 are float32
within a strip alone.
"""

import torch
from torch.autograd.function import once_differentiable

# Numbers in a strip: half a megabyte in float32, for a strip and its log-softmax to stay in a
# core's cache, and hundreds of rows of a small vocabulary.
STRIP = 2**17


def eager_scores(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    counted: torch.Tensor,
    *,
    with_entropy: bool = False,
) -> tuple[torch.Tensor, ...]:
    """Compute the targets' log-probabilities, and the entropies if they are asked for.

    Parameters
    ----------
    hidden : torch.Tensor [token, d_model]
        On the CPU; gets a gradient.
    weight : torch.Tensor [d_model, vocab]
        Gets a gradient, laid out as a tied head's weight is.
    targets : torch.Tensor of int64 or int32 [token]
        0 to vocab − 1 where counted, which is not checked here.
    counted : torch.Tensor of bool [token]
        False where hidden state and target may be anything.
    with_entropy : bool
        Whether the entropies are wanted.

    Returns
    -------
    log_prob : torch.Tensor [token]
        float32, or float64 of float64; carries a gradient, but only once. 0 where not counted.
    entropy : torch.Tensor [token]
        Only if asked for: of each predicted distribution, in nats; without a gradient. 0 where not
        counted.
    """
    some = None if counted.all() else counted
    arguments = (hidden, weight, _zero_elsewhere(some, targets.long()), some, with_entropy)
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _Scores.apply(*arguments)
    return _score(*arguments)[0]


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, counted, with_entropy):
        results, hidden, d_logits = _score(
            hidden, weight, targets, counted, with_entropy, with_gradient=True
        )
        ctx.save_for_backward(hidden, weight, counted, d_logits)
        ctx.mark_non_differentiable(*results[1:])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx, d_log_prob, *_):
        hidden, weight, counted, d_logits = ctx.saved_tensors
        scale = -_zero_elsewhere(counted, d_log_prob)[:, None].to(hidden.dtype)  # [token, 1]
        d_hidden = (d_logits @ weight.T).mul_(scale) if ctx.needs_input_grad[0] else None
        d_weight = None
        if ctx.needs_input_grad[1]:
            # Transposed, as a tied head's weight is: the gradient lies in memory like wte.
            d_weight = (d_logits.T @ (hidden * scale)).T
        return d_hidden, d_weight, None, None, None


def _score(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    counted: torch.Tensor | None,
    with_entropy: bool,
    with_gradient: bool = False,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Return the scores, the hidden states that they are of, and the logits or their gradient."""
    hidden = _zero_elsewhere(counted, hidden)
    logits = hidden @ weight  # [token, vocab]
    wanted = targets[:, None]
    found = []
    rows = max(1, STRIP // weight.shape[1])
    in_cache = torch.empty_like(exact(logits[:rows]))  # fresh memory for each would cost as a pass
    for strip, column in zip(logits.split(rows), wanted.split(rows), strict=True):
        log_p = torch.log_softmax(exact(strip), 1, out=in_cache[: len(strip)])
        scores = [log_p.gather(1, column)[:, 0]]
        if with_gradient or with_entropy:
            p = torch.exp(log_p, out=strip if strip.dtype == log_p.dtype else None)
            if with_gradient and p is not strip:
                strip.copy_(p)
            if with_entropy:
                scores.append(log_p.mul_(p).sum(1).neg_())
        found.append(scores)
    if with_gradient:
        logits.scatter_add_(1, wanted, torch.full_like(logits[:, :1], -1))
    results = tuple(
        _zero_elsewhere(counted, torch.cat(parts)) for parts in zip(*found, strict=True)
    )
    return results, hidden, logits


def _zero_elsewhere(counted: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """Put 0 in the rows that do not count; None: all of them do."""
    if counted is None:
        return x
    return torch.where(counted.view(-1, *[1] * (x.ndim - 1)), x, 0)


def exact(x: torch.Tensor) -> torch.Tensor:
    """Widen half precision to float32; leave float32 and float64 as they are.

    Parameters
    ----------
    x : torch.Tensor

    Returns
    -------
    torch.Tensor
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
