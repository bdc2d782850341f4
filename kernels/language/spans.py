"""What is kept of a span of the vocabulary: four numbers a token, whoever computes the logits.

Logits x come in tiles, in units of log 2, so that e^x is one instruction, 2^(x·log₂e). A tile lives
in registers alone and adds to what its span keeps (core/language/token_scores.py: `Partial`):

    m = max x,    S = Σ 2^(x − m),    E = Σ 2^(x − m)·(x − m),    x[target]

A program of `token_scores_kernel` or `director_scores_kernel` walks over one span and stores the
four; `token_scores_merge_kernel` joins those of all spans, tile and span alike by `merge`:

    log π = min(x[target] − m − log S, 0),    H = max(log S − E/S, 0),    lse = m + log S

A target out of range is in no tile: its log-probability is NaN.
"""

import math

import torch

from ..common._triton import tl, triton
from ..common.launch import launch

# Columns that one program scores: a multiple of every BLOCK_N.
SPAN = 1024

# This is below any logit and yet finite: sums of 0 stay 0 when they are first rescaled.
LOWEST = tl.constexpr(-1e30)
LN_2 = tl.constexpr(math.log(2))
_PROPAGATE = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def merge(maximum, total, weighted, tile_maximum, tile_total, tile_weighted):
    """Join two parts of the vocabulary: each sum is brought to the larger maximum."""
    new = tl.maximum(maximum, tile_maximum)
    fell, tile_fell = maximum - new, tile_maximum - new
    factor, tile_factor = tl.exp2(fell), tl.exp2(tile_fell)
    weighted = (weighted + fell * total) * factor
    weighted += (tile_weighted + tile_fell * tile_total) * tile_factor
    return new, total * factor + tile_total * tile_factor, weighted


@triton.jit
def add_tile(maximum, total, weighted, wanted, x, columns, column_inside, target_at):
    """Add a tile of logits x, [token, column], to the four numbers of its span.

    `columns` and `target_at`, where each token's target is, count from the span's beginning.
    """
    wanted += tl.sum(tl.where(columns[None, :] == target_at[:, None], x, 0.0), axis=1)
    x = tl.where(column_inside[None, :], x, LOWEST)
    tile_maximum = tl.max(x, axis=1)
    away = x - tile_maximum[:, None]
    e = tl.exp2(away)  # 0 outside
    maximum, total, weighted = merge(
        maximum, total, weighted, tile_maximum, tl.sum(e, axis=1), tl.sum(e * away, axis=1)
    )
    return maximum, total, weighted, wanted


@triton.jit
def store_span(
    partial_ptr,  # float32 [span, 4, token], written
    span,
    rows,
    row_inside,
    n_tokens,
    maximum,
    total,
    weighted,
    wanted,
):
    """Write the four numbers of a block of tokens."""
    at = partial_ptr + span.to(tl.int64) * 4 * n_tokens + rows
    stride = tl.cast(n_tokens, tl.int64)
    tl.store(at, maximum, mask=row_inside)
    tl.store(at + stride, total, mask=row_inside)
    tl.store(at + 2 * stride, weighted, mask=row_inside)
    tl.store(at + 3 * stride, wanted, mask=row_inside)


@triton.jit
def token_scores_merge_kernel(
    partial_ptr,  # float32 [span, 4, token]
    targets_ptr,  # [token] contiguous, like all that follow
    mask_ptr,  # int8
    log_prob_ptr,
    entropy_ptr,
    lse_ptr,
    n_tokens,
    vocab,
    n_spans,
    BLOCK: tl.constexpr,
):
    """A block of tokens: log π, H, and the log-sum-exp in units of log 2; 0 if masked."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = rows < n_tokens
    counts = tl.load(mask_ptr + rows, mask=inside, other=0) != 0
    target = tl.load(targets_ptr + rows, mask=counts, other=0).to(tl.int64)
    stride = tl.cast(n_tokens, tl.int64)
    at = partial_ptr + rows
    maximum = tl.full([BLOCK], LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    weighted = tl.zeros([BLOCK], tl.float32)
    wanted = tl.zeros([BLOCK], tl.float32)
    for _ in range(0, n_spans):
        maximum, total, weighted = merge(
            maximum,
            total,
            weighted,
            tl.load(at, mask=counts, other=0.0),
            tl.load(at + stride, mask=counts, other=1.0),
            tl.load(at + 2 * stride, mask=counts, other=0.0),
        )
        wanted += tl.load(at + 3 * stride, mask=counts, other=0.0)
        at += 4 * stride

    log_total = tl.log2(total)
    # In exact arithmetic one is ≤ 0, the other ≥ 0: the clamps undo a logarithm's rounding. They
    # would also make 0 of NaN, and a diverged model's loss with it.
    log_prob = tl.minimum(wanted - maximum - log_total, 0.0, _PROPAGATE) * LN_2
    log_prob = tl.where((target >= 0) & (target < vocab), log_prob, float("nan"))
    entropy = tl.maximum(log_total - weighted / total, 0.0, _PROPAGATE) * LN_2
    lse = maximum + log_total
    tl.store(log_prob_ptr + rows, tl.where(counts, log_prob, 0.0), mask=inside)
    tl.store(entropy_ptr + rows, tl.where(counts, entropy, 0.0), mask=inside)
    tl.store(lse_ptr + rows, tl.where(counts, lse, 0.0), mask=inside)


def merge_spans(
    partials: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, vocab: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the kernel that joins what was found in each span.

    Parameters
    ----------
    partials : torch.Tensor [span, 4, token]
        m, S, E and the target's logit, in units of log 2.
    targets : torch.Tensor of int [token]
    mask : torch.Tensor of int8 [token]
    vocab : int

    Returns
    -------
    log_prob, entropy, lse : torch.Tensor [token]
        float32; 0 where masked. The log-sum-exp is in units of log 2.
    """
    n_spans, _, n_tokens = partials.shape
    # Each in memory of its own: to write into one must not change what is kept for backward.
    log_prob, entropy, lse = (
        torch.empty(n_tokens, dtype=torch.float32, device=partials.device) for _ in range(3)
    )
    block = 128
    launch(
        token_scores_merge_kernel,
        (triton.cdiv(n_tokens, block),),
        *(partials, targets, mask, log_prob, entropy, lse, n_tokens, vocab, n_spans),
        BLOCK=block,
    )
    return log_prob, entropy, lse
