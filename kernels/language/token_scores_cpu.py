"""Log-probabilities of tokens in plain PyTorch, for the CPU: one matrix of logits, and few passes.

What kernels/language/token_scores.py is to a GPU: the mean cross-entropy (cpu/loss.py), the PPO
loss (linear_ppo_loss.py) and the judging of what was said (`token_log_probs`) all come here.
Written out, they pass over [token, vocab] for the log-softmax and for the entropies, to fill a
gradient with zeros, to scatter into it, to carry it back through the log-softmax and to scale it,
each time between cache and memory. Here a strip of rows at a time stays in the cache, and the
gradient takes the logits' place while it is there:

    forward    logits = hidden W;   log π = logits[target] − log Σ exp(logits);   H = −Σ p log p
               p, less 1 at the target, is written over the logits: −∂ log π / ∂ logits
    backward   both products take that matrix as it is, for d_log_prob, which scales its rows, is
               put on the far smaller `hidden` and `d_hidden`

Each exponential is computed once. Rows that do not count are left out of all of it. An entropy is a
statistic here: whoever needs its gradient uses the plain equivalents, which keep log p. float16 and
bfloat16 are float32 within a strip alone.
"""

import torch

from ..common.derivative import first_derivative_only

# Numbers in a strip, for each of the threads that share it: 1 MB in float32, which stays in a
# core's cache.
STRIP = 2**18


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
    if torch.is_autocast_enabled("cpu"):  # backward runs without it, on what is kept here
        dtype = torch.get_autocast_dtype("cpu")
        hidden, weight = (x if x.dtype == torch.float64 else x.to(dtype) for x in (hidden, weight))
    if hidden.dtype == torch.float16:  # A logit beyond 65504 is a number like others.
        hidden, weight = hidden.float(), weight.float()
    index = None if counted.all() else counted.nonzero()[:, 0]
    if index is not None:
        targets = targets[index]
    arguments = (hidden, weight, targets.long()[:, None], index, with_entropy)
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _Scores.apply(*arguments)
    return _score(*arguments, with_gradient=False)[0]


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, wanted, index, with_entropy):
        results, rows, d_logits = _score(
            hidden, weight, wanted, index, with_entropy, with_gradient=True
        )
        ctx.save_for_backward(rows, weight, index, d_logits)
        ctx.mark_non_differentiable(*results[1:])
        return results

    @staticmethod
    @first_derivative_only("cross_entropy")
    def backward(ctx, d_log_prob, *_):
        rows, weight, index, d_logits = ctx.saved_tensors
        n_tokens = len(d_log_prob)
        if index is not None:
            d_log_prob = d_log_prob[index]
        scale = -d_log_prob[:, None].to(rows.dtype)  # [counted, 1]
        d_hidden = d_weight = None
        if ctx.needs_input_grad[0]:
            d_hidden = _put_back((d_logits @ weight.T).mul_(scale), index, n_tokens)
        if ctx.needs_input_grad[1]:
            # Transposed, as a tied head's weight is: the gradient lies in memory like wte.
            d_weight = (d_logits.T @ (rows * scale)).T
        return d_hidden, d_weight, None, None, None


def _score(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    wanted: torch.Tensor,
    index: torch.Tensor | None,
    with_entropy: bool,
    with_gradient: bool,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Return the scores, the rows of hidden that count, and their logits or their gradient."""
    counted = hidden if index is None else hidden[index]  # [token, d_model] -> [counted, d_model]
    logits = counted @ weight  # [counted, vocab]
    n_rows = max(1, STRIP * torch.get_num_threads() // weight.shape[1])
    spare = torch.empty_like(exact(logits[:n_rows])) if with_entropy else None
    found = [
        _score_strip(strip, column, spare, with_gradient)
        for strip, column in zip(logits.split(n_rows), wanted.split(n_rows), strict=True)
    ]
    if with_gradient:
        logits.scatter_add_(1, wanted, torch.full_like(logits[:, :1], -1))
    results = tuple(
        _put_back(torch.cat(parts)[:, 0], index, len(hidden)) for parts in zip(*found, strict=True)
    )
    return results, counted, logits


def _score_strip(
    logits: torch.Tensor, wanted: torch.Tensor, spare: torch.Tensor | None, with_gradient: bool
) -> list[torch.Tensor]:
    """Score some rows, the entropy if there is `spare` memory; leave p in place of the logits."""
    x = exact(logits)
    peak = x.amax(1, keepdim=True)
    away = x.sub_(peak) if spare is None else torch.sub(x, peak, out=spare[: len(x)])
    at_target = away.gather(1, wanted)
    e = torch.exp(away, out=x)
    total = e.sum(1, keepdim=True)
    log_total = total.log()
    scores = [at_target - log_total]  # neither is on the wrong side of 0, nor is the entropy
    if spare is not None:
        scores.append(log_total - away.mul_(e).sum(1, keepdim=True).div_(total))
    if with_gradient:
        e.div_(total)
        if x is not logits:
            logits.copy_(x)
    return scores


def _put_back(counted: torch.Tensor, index: torch.Tensor | None, n_tokens: int) -> torch.Tensor:
    """Put the rows that count back in their places, and 0 elsewhere; None: all of them do."""
    if index is None:
        return counted
    return counted.new_zeros(n_tokens, *counted.shape[1:]).index_copy_(0, index, counted)


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
