"""The language model's loss in plain PyTorch, for the CPU.

It means what `cross_entropy` (the kernel, and its eager equivalent) returns first, without the
entropies and log-probabilities that training does not ask for. At the size of GPT-2's vocabulary
each pass over [token, vocab] takes tens of milliseconds on a CPU; language/token_scores_cpu.py
makes few. Where there are not many logits, they stay in the cache anyhow, and are left to PyTorch,
whose operators are fewer.
"""

import torch
from torch.nn import functional

from ...core.checks import all_below
from ...core.language.token_scores import check_targets
from ..common.widened import product_in_float32
from ..language.token_scores_cpu import eager_scores

# So many logits stay in the cache: 4 MB in float32.
IN_CACHE = 2**20


def mean_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, ignore_index: int = -100
) -> torch.Tensor:
    """Compute the mean cross-entropy of the targets that count.

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
    in_cache = len(targets) * vocab <= IN_CACHE
    if in_cache and not compiling and _all_count(targets, vocab, ignore_index):
        return functional.cross_entropy(product_in_float32(hidden, weight), targets.long())
    counted = targets != ignore_index
    n_counted = counted.sum().clamp(min=1)
    if not compiling:
        check_targets(targets, counted, vocab)
    if compiling or in_cache:
        logits = product_in_float32(hidden, weight)
        total = functional.cross_entropy(
            logits, targets.long(), ignore_index=ignore_index, reduction="sum"
        )
        return total / n_counted
    (log_prob,) = eager_scores(hidden, weight, targets, counted)
    return (0 - log_prob.sum()) / n_counted


def _all_count(targets: torch.Tensor, vocab: int, ignore_index: int) -> bool:
    """Say whether there are targets, and all of them in the vocabulary and none to be ignored."""
    ignored_is_a_word = 0 <= ignore_index < vocab
    return len(targets) > 0 and not ignored_is_a_word and all_below(targets, vocab)
