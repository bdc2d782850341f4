"""DIRECTOR's guided log-probabilities from hidden states, in Triton: neither head's logits whole.

Mathematics (core/language/director_scores.py): g = hidden W, c = hidden W_c,
z = g + γ·log σ(c), log π = z[target] − logsumexp(z), H of the same distribution. Backward, d being
the gradient of log π: d_g = (1[target] − p)·d and d_c = γ·σ(−c)·d_g, then three products.

Forward is kernels/language/token_scores.py with two heads. One program owns BLOCK_M tokens and SPAN
columns of the vocabulary; one walk along d_model feeds both products, so that a tile of hidden
states is read once for two tiles of weights:

                d_model ─►                       vocab ─►
            ┌─────┬─────┐     W   tile ──► g ─┐
    BLOCK_M │  a  │  a  │  ×                  ├─► z = g + γ·log σ(c) ──► m, S, E, z[target]
            └─────┴─────┘     W_c tile ──► c ─┘

Both tiles live in registers alone; what is left of a span are four numbers a token, which
spans.py keeps and joins, as it does for one head. In units of log 2, with e = 2^(−|c|),
log₂ σ(c) = min(c, 0) − log₂(1 + e), and σ(−c) = e/(1 + e) or 1/(1 + e): one power serves both.

Backward goes over chunks of the vocabulary. Both tiles are computed again and become d_g and d_c,
written to two buffers [token, chunk]; together they hold at most `token_scores.MAX_LOGITS` numbers,
or 2 × PITCH columns, for any vocabulary. The chunk's columns of d_W and d_W_c are complete at once;
d_hidden goes from product to product in float32 and is rounded with the last.

Cost, N tokens, C = d_model, V = vocab, 2·N·C·V FLOPs a product: forward 2 products, backward 6, of
which 2 are there because nothing was kept. In plain PyTorch five matrices [token, vocab] are alive
at once (g, c, log σ(c), z, log p), at 8,192 tokens and GPT-2's vocabulary 8.2 GB in float32; here
beside the results 134 MB in bfloat16, and 20 bytes a token and span.

Precision: as token_scores.py. Both directions compute z in one function with one step along
d_model, so p is to the bit what forward summed.

A target out of range is never used as an address: its log-probability is NaN.

Deterministic: each number is summed by one program in one order. No atomics.
"""

import math

import torch

from ...core.language.director_scores import DirectorScores, check_director_scores
from ...core.language.token_scores import check_targets
from ..common._triton import tl, triton
from ..common.derivative import first_derivative_only
from ..common.finite import expect_all_finite
from ..common.indices import expect_countable, signed
from ..common.launch import expect_same_dtype, launch, runs_on_triton
from ..common.registered import registered
from ..common.strided import strided
from ..common.widened import product_in_float32
from ..layers.linear import grouped_tile
from ..layers.product import product
from . import token_scores
from .spans import LOWEST, SPAN, add_tile, merge_spans, store_span
from .token_scores import write_product


def _tile(m_bytes: int, num_warps: int, num_stages: int) -> triton.Config:
    tile = {"M_BYTES": m_bytes, "N_BYTES": 128, "K_BYTES": 64, "GROUP_M": 8}
    return triton.Config(tile, num_warps=num_warps, num_stages=num_stages)


# Two heads' tiles take the registers that token_scores.py has for one of twice the width, and more
# spill: 128 × 128 numbers of 2 bytes at all, 128 × 64 if two programs are to fit a multiprocessor.
# One list for both directions.
DIRECTOR_CONFIGS = [_tile(256, 8, 3), _tile(128, 4, 4)]

_LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _heads_tile(
    row_at,  # [BLOCK_M] pointers to the beginnings of the tokens' hidden states
    column_at,  # [BLOCK_N] pointers to the beginnings of W's columns
    class_column_at,  # likewise of W_c's
    row_inside,
    column_inside,
    d_model,
    hidden_stride,  # from one number of a hidden state to the next; likewise of the columns
    weight_stride,
    class_stride,
    gamma,
    BLOCK_K: tl.constexpr,
):
    """One tile of z and of c in float32, in units of log 2."""
    inner = tl.arange(0, BLOCK_K).to(tl.int64)
    step = tl.full([], BLOCK_K, tl.int64)
    g = tl.zeros([row_at.shape[0], column_at.shape[0]], tl.float32)
    c = tl.zeros([row_at.shape[0], column_at.shape[0]], tl.float32)
    hidden_at = row_at[:, None] + inner[None, :] * hidden_stride
    weight_at = column_at[None, :] + inner[:, None] * weight_stride
    class_at = class_column_at[None, :] + inner[:, None] * class_stride
    for start in range(0, d_model, BLOCK_K):
        inner_inside = inner < d_model - start
        both_inside = inner_inside[:, None] & column_inside[None, :]
        a = tl.load(hidden_at, mask=row_inside[:, None] & inner_inside[None, :], other=0.0)
        b = tl.load(weight_at, mask=both_inside, other=0.0)
        g = tl.dot(a, b, g, input_precision="ieee")
        b = tl.load(class_at, mask=both_inside, other=0.0)
        c = tl.dot(a, b, c, input_precision="ieee")
        hidden_at += step * hidden_stride
        weight_at += step * weight_stride
        class_at += step * class_stride
    g *= _LOG2_E
    c *= _LOG2_E
    log_sigmoid = tl.minimum(c, 0.0) - tl.log2(tl.exp2(-tl.abs(c)) + 1.0)
    return g + log_sigmoid * gamma, c


@triton.autotune(DIRECTOR_CONFIGS, key=["vocab", "d_model"])
@triton.jit
def director_scores_kernel(
    hidden,  # Strided [token, d_model]
    weight,  # Strided [d_model, vocab]
    class_weight,  # Strided [d_model, vocab]
    targets_ptr,  # [token] contiguous, like all that follow
    mask_ptr,  # int8
    partial_ptr,  # float32 [span, 4, token]: m, S, E, z[target]
    n_tokens,
    vocab,
    d_model,
    gamma,
    SPAN: tl.constexpr,
    M_BYTES: tl.constexpr,
    N_BYTES: tl.constexpr,
    K_BYTES: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """Score a block of tokens against one span of the vocabulary."""
    ITEM: tl.constexpr = hidden.ptr.dtype.element_ty.primitive_bitwidth // 8
    BLOCK_M: tl.constexpr = M_BYTES // ITEM
    BLOCK_N: tl.constexpr = N_BYTES // ITEM
    block, span = grouped_tile(tl.program_id(0), n_tokens, vocab, BLOCK_M, SPAN, GROUP_M)
    rows = block.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_inside = rows < n_tokens
    counts = tl.load(mask_ptr + rows, mask=row_inside, other=0) != 0
    target = tl.load(targets_ptr + rows, mask=counts, other=0).to(tl.int64)
    first = span.to(tl.int64) * SPAN
    maximum = tl.full([BLOCK_M], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    weighted = tl.zeros([BLOCK_M], tl.float32)
    wanted = tl.zeros([BLOCK_M], tl.float32)
    left = tl.minimum(vocab - first, SPAN).to(tl.int32)
    # A place within the span fits 32 bits; columns of 64 bits would take registers from the tiles.
    target_at = (target - first).to(tl.int32)
    for start in range(0, left, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        column_inside = columns < left
        z, _ = _heads_tile(
            hidden.ptr + rows * hidden.strides[0],
            weight.ptr + (first + columns) * weight.strides[1],
            class_weight.ptr + (first + columns) * class_weight.strides[1],
            counts, column_inside, d_model,
            hidden.strides[1], weight.strides[0], class_weight.strides[0],
            gamma, K_BYTES // ITEM,
        )  # fmt: skip
        maximum, total, weighted, wanted = add_tile(
            maximum, total, weighted, wanted, z, columns, column_inside, target_at
        )
    store_span(partial_ptr, span, rows, row_inside, n_tokens, maximum, total, weighted, wanted)


@triton.autotune(DIRECTOR_CONFIGS, key=["vocab", "d_model"])
@triton.jit
def director_scores_d_logits_kernel(
    hidden,  # Strided [token, d_model]
    weight,  # Strided [d_model, column], one chunk of columns
    class_weight,  # Strided [d_model, column], likewise
    targets_ptr,  # [token] contiguous, like the next three
    mask_ptr,  # int8
    lse_ptr,
    d_log_prob_ptr,
    d_g_ptr,  # [token, column], written, like the next
    d_c_ptr,
    d_logits_row_stride,  # of both
    n_tokens,
    vocab,  # columns of the chunk
    d_model,
    first_column,
    gamma,
    M_BYTES: tl.constexpr,
    N_BYTES: tl.constexpr,
    K_BYTES: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of both heads' logits, and their gradients."""
    ITEM: tl.constexpr = hidden.ptr.dtype.element_ty.primitive_bitwidth // 8
    BLOCK_M: tl.constexpr = M_BYTES // ITEM
    BLOCK_N: tl.constexpr = N_BYTES // ITEM
    tile_row, tile_column = grouped_tile(
        tl.program_id(0), n_tokens, vocab, BLOCK_M, BLOCK_N, GROUP_M
    )
    rows = tile_row.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_column.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_inside, column_inside = rows < n_tokens, columns < vocab
    counts = tl.load(mask_ptr + rows, mask=row_inside, other=0) != 0
    z, c = _heads_tile(
        hidden.ptr + rows * hidden.strides[0],
        weight.ptr + columns * weight.strides[1],
        class_weight.ptr + columns * class_weight.strides[1],
        counts, column_inside, d_model,
        hidden.strides[1], weight.strides[0], class_weight.strides[0],
        gamma, K_BYTES // ITEM,
    )  # fmt: skip
    target = tl.load(targets_ptr + rows, mask=counts, other=0).to(tl.int64)
    # A place within the tile fits 32 bits, as above.
    target_at = (target - first_column - tile_column.to(tl.int64) * BLOCK_N).to(tl.int32)
    is_target = tl.arange(0, BLOCK_N)[None, :] == target_at[:, None]
    lse = tl.load(lse_ptr + rows, mask=counts, other=0.0)
    d_log_prob = tl.load(d_log_prob_ptr + rows, mask=counts, other=0.0)
    d_g = (tl.where(is_target, 1.0, 0.0) - tl.exp2(z - lse[:, None])) * d_log_prob[:, None]
    e = tl.exp2(-tl.abs(c))
    d_c = tl.where(c >= 0, e, 1.0) / (e + 1.0) * gamma * d_g  # σ(−c)·γ·d_g
    at = rows[:, None] * d_logits_row_stride + columns[None, :]
    written = row_inside[:, None] & column_inside[None, :]
    tl.store(d_g_ptr + at, tl.where(counts[:, None], d_g, 0.0), mask=written)
    tl.store(d_c_ptr + at, tl.where(counts[:, None], d_c, 0.0), mask=written)


@registered
def director_score(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    class_weight: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    gamma: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the pass over the vocabulary.

    Parameters
    ----------
    hidden, weight, class_weight, targets, mask, gamma
        As in `director_scores`; targets and mask contiguous.

    Returns
    -------
    log_prob, entropy, lse : torch.Tensor [token]
        float32; 0 where masked. The log-sum-exp is in units of log 2, for
        `director_score_backward`.
    """
    (n_tokens, d_model), vocab = hidden.shape, weight.shape[1]
    expect_countable("director_scores", tokens=n_tokens, vocab=vocab, d_model=d_model)
    n_spans = triton.cdiv(vocab, SPAN)
    partials = torch.empty(n_spans, 4, n_tokens, dtype=torch.float32, device=hidden.device)
    mask = mask.view(torch.int8)
    launch(
        director_scores_kernel,
        lambda meta: (triton.cdiv(n_tokens, meta["M_BYTES"] // hidden.element_size()) * n_spans,),
        *(strided(hidden), strided(weight), strided(class_weight), targets, mask, partials),
        *(n_tokens, vocab, d_model, gamma),
        SPAN=SPAN,
    )
    return merge_spans(partials, targets, mask, vocab)


@registered
def director_score_backward(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    class_weight: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    gamma: float,
    lse: torch.Tensor,
    d_log_prob: torch.Tensor,
    *,
    wants_hidden: bool = True,
    wants_weight: bool = True,
    wants_class_weight: bool = True,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Launch the passes over chunks of the vocabulary.

    Parameters
    ----------
    hidden, weight, class_weight, targets, mask, gamma
        As in `director_score`.
    lse : torch.Tensor [token]
        From `director_score`.
    d_log_prob : torch.Tensor [token]
        Gradient of the log-probabilities, contiguous; not looked at where masked.
    wants_hidden, wants_weight, wants_class_weight : bool
        Which gradients are needed: the others' products are left out.

    Returns
    -------
    d_hidden : torch.Tensor [token, d_model] or None
    d_weight, d_class_weight : torch.Tensor [d_model, vocab] or None
        Of the strides that the matrices have, if these are dense.
    """
    n_tokens, vocab = hidden.shape[0], weight.shape[1]
    if n_tokens == 0:
        return torch.empty_like(hidden), torch.zeros_like(weight), torch.zeros_like(class_weight)
    d_hidden: torch.Tensor | None = None
    d_weight = torch.empty_like(weight) if wants_weight else None
    d_class_weight = torch.empty_like(class_weight) if wants_class_weight else None
    # A masked row of a gradient is 0, but 0 · NaN is not.
    counted = torch.where(mask[:, None], hidden, 0.0)
    width = token_scores.columns_per_chunk(2 * n_tokens, vocab)
    buffers = torch.empty(2, n_tokens, width, dtype=hidden.dtype, device=hidden.device)
    for start in range(0, vocab, width):
        some = slice(start, min(start + width, vocab))
        g_head, c_head = weight[:, some], class_weight[:, some]
        d_g, d_c = buffers[:, :, : g_head.shape[1]]
        _launch_d_logits(
            *(hidden, g_head, c_head, targets, mask, lse, d_log_prob, d_g, d_c, start, gamma)
        )
        if wants_hidden:
            dtype = hidden.dtype if some.stop == vocab else torch.float32
            d_hidden = product(d_g, g_head.T, torch.float32, add=d_hidden)
            d_hidden = product(d_c, c_head.T, dtype, add=d_hidden)
        if d_weight is not None:
            write_product(d_weight[:, some], counted.T, d_g)
        if d_class_weight is not None:
            write_product(d_class_weight[:, some], counted.T, d_c)
    if d_hidden is not None:
        d_hidden.masked_fill_(~mask[:, None], 0)  # Nor is 0 · NaN where NaN is in a matrix.
    return d_hidden, d_weight, d_class_weight


def _launch_d_logits(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    class_weight: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    lse: torch.Tensor,
    d_log_prob: torch.Tensor,
    d_g: torch.Tensor,
    d_c: torch.Tensor,
    first_column: int,
    gamma: float,
) -> None:
    """Fill d_g and d_c for one chunk of the vocabulary."""
    (n_tokens, d_model), n_columns = hidden.shape, weight.shape[1]
    launch(
        director_scores_d_logits_kernel,
        lambda meta: (
            triton.cdiv(n_tokens, meta["M_BYTES"] // hidden.element_size())
            * triton.cdiv(n_columns, meta["N_BYTES"] // hidden.element_size()),
        ),
        *(strided(hidden), strided(weight), strided(class_weight), targets),
        *(mask.view(torch.int8), lse, d_log_prob, d_g, d_c, d_g.stride(0)),
        *(n_tokens, n_columns, d_model, first_column, gamma),
    )


class _DirectorScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, class_weight, targets, mask, gamma):
        targets, mask = targets.contiguous(), mask.contiguous()
        log_prob, entropy, lse = director_score(hidden, weight, class_weight, targets, mask, gamma)
        ctx.mark_non_differentiable(entropy)
        ctx.save_for_backward(hidden, weight, class_weight, targets, mask, lse)
        ctx.gamma = gamma
        return log_prob, entropy

    @staticmethod
    @first_derivative_only("director_scores")
    def backward(ctx, d_log_prob, _):
        hidden, weight, class_weight, targets, mask, lse = ctx.saved_tensors
        wants_hidden, wants_weight, wants_class_weight = ctx.needs_input_grad[:3]
        gradients = director_score_backward(
            *(hidden, weight, class_weight, targets, mask, ctx.gamma),
            *(lse, d_log_prob.contiguous()),
            wants_hidden=wants_hidden,
            wants_weight=wants_weight,
            wants_class_weight=wants_class_weight,
        )
        return *gradients, None, None, None


def director_scores(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    class_weight: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    *,
    gamma: float = 1.0,
) -> DirectorScores:
    """Score tokens under a guided generator; the twin of core/language/director_scores.py.

    Parameters
    ----------
    hidden : torch.Tensor [token, d_model]
        Final hidden states, each at the position that scores its target; float32, float16 or
        bfloat16, any strides; gets a gradient.
    weight : torch.Tensor [d_model, vocab]
        The generator's head, of the same dtype, any strides; gets a gradient.
    class_weight : torch.Tensor [d_model, vocab]
        The classifier's head, likewise.
    targets : torch.Tensor of int [token]
        The tokens to score. Out of range and unmasked: a ValueError on the CPU, NaN on a GPU.
    mask : torch.Tensor of bool [token]
        True for a token that counts.
    gamma : float
        γ, the guide's weight; not below 0. 0 leaves the generator alone.

    Returns
    -------
    DirectorScores
        log_prob and entropy, float32 [token], 0 where masked; `log_prob` alone carries a gradient.

    Raises
    ------
    ValueError
        If a shape, dtype, device or γ is wrong, or, where that is checked
        (kernels/common/finite.py), an unmasked number is not finite.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_director_scores(hidden, weight, class_weight, targets, mask, gamma)
    targets = signed(targets)
    if targets.device.type == "cpu":  # elsewhere, looking at them would wait for the device
        check_targets(targets, mask, weight.shape[1])
    expect_same_dtype(hidden=hidden, weight=weight, class_weight=class_weight)
    heads = {"weight": weight, "class_weight": class_weight}
    on_triton = runs_on_triton(
        "director_scores", hidden=hidden, **heads, targets=targets, mask=mask
    )
    expect_all_finite(mask, hidden=hidden)
    expect_all_finite(None, **heads)
    if on_triton:
        return DirectorScores(
            *_DirectorScores.apply(hidden, weight, class_weight, targets, mask, float(gamma))
        )
    return director_scores_eager(hidden, weight, class_weight, targets, mask, gamma=gamma)


def director_scores_eager(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    class_weight: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    *,
    gamma: float = 1.0,
) -> DirectorScores:
    """Compute the same in plain PyTorch, logits and all, for the CPU and as a yardstick.

    Returns
    -------
    DirectorScores
        As in `director_scores`; of float64 arguments float64.
    """
    vocab = weight.shape[1]
    rows = torch.where(mask[:, None], hidden, 0.0)
    g, c = (
        # A masked row is 0 once more: 0 times a matrix that is not finite is NaN.
        torch.where(mask[:, None], product_in_float32(rows, head), 0.0)
        for head in (weight, class_weight)
    )
    log_p = torch.log_softmax(g + gamma * torch.nn.functional.logsigmoid(c), dim=-1)
    wanted = torch.where(mask, targets, 0).long()
    log_prob = log_p.gather(-1, wanted.clamp(0, vocab - 1)[:, None])[:, 0]
    log_prob = torch.where((wanted >= 0) & (wanted < vocab), log_prob, torch.nan)
    known = log_p.detach()
    entropy = torch.where(mask, -(known.exp() * known).sum(dim=-1), 0.0)
    return DirectorScores(torch.where(mask, log_prob, 0.0), entropy)
