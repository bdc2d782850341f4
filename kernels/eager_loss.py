"""The language model's loss in plain PyTorch, for the CPU: one matrix of logits, and few passes.

It means what `cross_entropy` (the kernel, and its eager equivalent) returns first, without the
entropies and log-probabilities that training does not ask for. In passes over [token, vocab], at
the size of GPT-2's vocabulary each tens of milliseconds on a CPU, `functional.cross_entropy` writes
the logits, reads them twice and writes their log-softmax; backward it fills a gradient with zeros,
reads both twice, and writes another. Here a strip of rows at a time stays in the cache, and the
gradient takes the logits' place while it is there:

    forward    logits = hidden W;   loss = mean(log Σ exp(logits) − logits[target])
               d_logits = softmax(logits), less 1 at the target, written over the logits
    backward   both products take d_logits as it is, for what scales it is put on the far smaller
               `hidden` and `d_hidden`

Each exponential is computed once. float16 and bfloat16 are float32 within a strip alone. Logits
that are a single strip stay in the cache anyhow: they are left to PyTorch, whose operators are
fewer.
"""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..core.checks import all_below
from ..core.token_scores import check_targets

# Numbers in a strip: 4 MB in float32.
STRIP = 2**20


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, counted):
        logits = hidden @ weight  # [token, vocab]
        at_target = _exact(logits.gather(1, targets[:, None])[:, 0])
        lse = torch.cat([_softmax_in_place(strip) for strip in _strips(logits)])
        d_logits = logits.scatter_add_(1, targets[:, None], torch.full_like(logits[:, :1], -1))
        ctx.save_for_backward(hidden, weight, counted, d_logits)
        return (lse - at_target).where(counted, 0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, d_loss):
        hidden, weight, counted, d_logits = ctx.saved_tensors
        scale = (d_loss * counted)[:, None].to(hidden.dtype)  # [token, 1]: 0 where ignored
        d_hidden = (d_logits @ weight.T).mul_(scale) if ctx.needs_input_grad[0] else None
        d_weight = None
        if ctx.needs_input_grad[1]:
            # Transposed, as a tied head's weight is: the gradient lies in memory like wte.
            d_weight = (d_logits.T @ (hidden * scale)).T
        return d_hidden, d_weight, None, None


def _softmax_in_place(logits: torch.Tensor) -> torch.Tensor:
    """Replace logits [row, vocab] by probabilities; return log Σ exp of each row."""
    exact = _exact(logits)
    peak = exact.amax(1, keepdim=True)
    total = exact.sub_(peak).exp_().sum(1, keepdim=True)
    exact.div_(total)
    if exact is not logits:
        logits.copy_(exact)
    return (peak + total.log())[:, 0]


def _strips(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return logits.split(max(1, STRIP // max(1, logits.shape[1])))


def _exact(x: torch.Tensor) -> torch.Tensor:
    """Widen half precision to float32; leave float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def mean_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, ignore_index: int = -100
) -> torch.Tensor:
    """Compute the mean cross-entropy of the targets that count.

    Parameters
    ----------
    hidden, weight, targets, ignore_index
        As in `cross_entropy`.

    Returns
    -------
    torch.Tensor []
        float32, or float64 of float64; 0 if nothing counts.

    Raises
    ------
    ValueError
        If a target is neither in the vocabulary nor `ignore_index`.
    """
    vocab = weight.shape[1]
    compiling = torch.compiler.is_compiling()  # Inductor fuses these passes itself
    in_cache = len(targets) * vocab <= STRIP
    if in_cache and not compiling and _all_count(targets, vocab, ignore_index):
        return functional.cross_entropy(_exact(hidden @ weight), targets.long())
    counted = targets != ignore_index
    n_counted = counted.sum().clamp(min=1)
    if not compiling:
        check_targets(targets, counted, vocab)
    if compiling or in_cache:
        logits = _exact(hidden @ weight)
        total = functional.cross_entropy(
            logits, targets.long(), ignore_index=ignore_index, reduction="sum"
        )
        return total / n_counted
    wanted = torch.where(counted, targets, 0).long()
    return _SummedCrossEntropy.apply(hidden, weight, wanted, counted) / n_counted


def _all_count(targets: torch.Tensor, vocab: int, ignore_index: int) -> bool:
    """Say whether there are targets, and all of them in the vocabulary and none to be ignored."""
    ignored_is_a_word = 0 <= ignore_index < vocab
    return len(targets) > 0 and not ignored_is_a_word and all_below(targets, vocab)
