"""Log-probability and entropy of tokens from hidden states: the logits never reach memory whole.

Mathematics (core/language/token_scores.py): x = hidden W / T; log π = x[target] − logsumexp(x) and
H = −Σ p·log p. Backward, g and h being their gradients: d_x = (1[target] − p)·g −
p·(log p + H)·h, then d_hidden = d_x Wᵀ / T and d_W = hiddenᵀ d_x / T.

Forward. One program owns BLOCK_M tokens and SPAN columns of the vocabulary, and walks over these
in tiles. A tile of logits is a matrix product that lives in registers alone, and adds to four
numbers a token; a second kernel merges those of all spans (spans.py):

                          vocab ─►
              ┌──────┬──────┐   ┌──────┬──────┐      running maximum m
    BLOCK_M   │ tile │ tile │   │ tile │ tile │ ──►  S = Σ e^(x − m),  E = Σ e^(x − m)·(x − m)
              └──────┴──────┘   └──────┴──────┘      x[target]
                    SPAN

    log π = min(x[target] − m − log S, 0),    H = max(log S − E/S, 0),    lse = m + log S

Spans are there to fill the GPU: 8,192 tokens are 64 blocks, an H100 has 132 multiprocessors.
Logits are kept in units of log 2, so that e^x is one instruction, 2^(x·log₂e).

Backward. The vocabulary goes in chunks of at most MAX_LOGITS / n_tokens columns: the logits of a
chunk are computed again, tile by tile, and turned into d_x in the epilogue. [token, chunk] is the
largest buffer there ever is, at most MAX_LOGITS numbers (128 MiB in bfloat16) for any vocabulary.
Two products (kernels/layers/linear.py) follow. These columns of d_W are complete at once: written
to where they belong, rounded once. d_hidden goes from chunk to chunk in float32, from one buffer
into the other and back (never in place: an autotuner's trials would add up), and is rounded with
the last. Chunks of tokens, as others have them, would carry d_W instead, which is many times as
large: at 8,192 tokens, d_model 4,096 and vocabulary 151,936, 5 GB read and written for each of 19
chunks against 0.27 GB. What needs no gradient is not computed.

d_W lies in memory as W does: a tied head's W is `wte.T`, its columns are rows of the table, and
each chunk's d_W is a block of whole rows. A W of shape [d_model, vocab] that is contiguous takes
one copy more per chunk. If its vocabulary is odd, too, as GPT-2's 50,257, forward copies W, and
backward each chunk of it, so that columns follow each other (kernels/layers/product.py:
`readable`). With a tied head, or a padded vocabulary, nothing is copied.

Cost, N tokens, C = d_model, V = vocab, 2·N·C·V FLOPs a product: forward 1 product, backward 3;
logits kept in memory would save one of the four. What that costs is paid for by what it spares:
at 8,192 x 768 x 50,257 a product is 0.63 TFLOP, some 0.9 ms of an H100, and eager PyTorch moves
0.41·10⁹ logits of 16 bytes (2 in bfloat16, 4 in float32, as much for log p and for its gradient)
at least once there and back, 4 ms. Memory at 8,192 x 4,096 x 151,936 in bfloat16: d_W 1.24 GB and
d_hidden 0.07 are results; beside them 0.13 GB of d_x, 0.27 of d_hidden in float32 and 0.02 of
partial scores: 0.42 GB where eager takes 20.

Precision. Logits are float32 whatever the inputs; d_x is rounded to the inputs' dtype for the
products, as PyTorch does: in float16, scale the loss. float32 multiplies true float32 ("ieee").

A target out of range is never used as an address: its log-probability is NaN.

Deterministic: each number is summed by one program in one order. No atomics.
"""

import math

import torch

from ..common._triton import for_architecture, tl, triton
from ..common.indices import expect_countable
from ..common.launch import door, launch
from ..common.registered import registered
from ..common.strided import strided
from ..layers.linear import grouped_tile
from ..layers.product import product, readable
from .spans import LN_2, LOWEST, SPAN, add_tile, merge_spans, store_span

# Numbers in backward's largest buffer.
MAX_LOGITS = 2**26
# Under `batch_invariant`, backward's chunks are as wide as for so many tokens, however many.
INVARIANT_TOKENS = 2**13
# Columns of a chunk are a multiple of this, so that the rows of d_x begin at even addresses.
PITCH = 256


def _tile(
    n_bytes: int, k_bytes: int, num_warps: int, num_stages: int, maxnreg: int | None = None
) -> triton.Config:
    tile = {"M_BYTES": 256, "N_BYTES": n_bytes, "K_BYTES": k_bytes, "GROUP_M": 8}
    return triton.Config(tile, num_warps=num_warps, num_stages=num_stages, maxnreg=maxnreg)


# Tiles are given in bytes, like BLOCK_K in kernels/layers/linear.py: 128 × 128 numbers of 2 bytes,
# on tensor cores, are 64 × 64 of 4, on which larger tiles would spill. 128 × 256 spills in the
# epilogues, with 8 warps and with 16.
#
# One list for both directions, with one step along d_model: backward's logits are then forward's
# to the bit. A token whose p is 1 to all digits gets a gradient of 0, as its loss says, and not
# the difference of two roundings. On sm_90 the step is twice as long, for half as many waits.
SCORE_CONFIGS = for_architecture(
    [_tile(256, 64, 8, 4), _tile(128, 64, 4, 4)],
    sm_90=[_tile(256, 128, 8, 3), _tile(128, 128, 4, 4)],
)
# In float32 a longer step spills on sm_90.
FLOAT32_SCORE_CONFIGS = [_tile(256, 64, 8, 4), _tile(128, 64, 4, 4)]
# Backward in float32 sets maxnreg, too: left alone, ptxas spills two registers on sm_90 to fit a
# third program on a multiprocessor. With 128 registers two fit; with 96 sm_80 spills.
FLOAT32_D_LOGITS_CONFIGS = for_architecture(
    [_tile(256, 64, 8, 4, maxnreg=128), _tile(128, 64, 4, 4)],
    amd=FLOAT32_SCORE_CONFIGS,  # there is no such limit
)
SCORE_KEY = ["vocab", "d_model"]


@triton.jit
def _logits_tile(
    row_at,  # [BLOCK_M] pointers to the beginnings of the tokens' hidden states
    column_at,  # [BLOCK_N] pointers to the beginnings of W's columns
    row_inside,
    column_inside,
    d_model,
    hidden_stride,  # from one number of a hidden state to the next; likewise of a column
    weight_stride,
    scale,
    BLOCK_K: tl.constexpr,
):
    """One tile of hidden W · scale in float32, 0 outside."""
    inner = tl.arange(0, BLOCK_K).to(tl.int64)
    step = tl.full([], BLOCK_K, tl.int64)
    accumulator = tl.zeros([row_at.shape[0], column_at.shape[0]], tl.float32)
    hidden_at = row_at[:, None] + inner[None, :] * hidden_stride
    weight_at = column_at[None, :] + inner[:, None] * weight_stride
    for start in range(0, d_model, BLOCK_K):
        inner_inside = inner < d_model - start
        a = tl.load(hidden_at, mask=row_inside[:, None] & inner_inside[None, :], other=0.0)
        b = tl.load(weight_at, mask=inner_inside[:, None] & column_inside[None, :], other=0.0)
        accumulator = tl.dot(a, b, accumulator, input_precision="ieee")
        hidden_at += step * hidden_stride
        weight_at += step * weight_stride
    return accumulator * scale


@triton.autotune(SCORE_CONFIGS, key=SCORE_KEY)
@triton.jit
def token_scores_kernel(
    hidden,  # Strided [token, d_model]
    weight,  # Strided [d_model, vocab]
    targets_ptr,  # [token] contiguous, like all that follow
    mask_ptr,  # int8
    partial_ptr,  # float32 [span, 4, token]: m, S, E, x[target]
    n_tokens,
    vocab,
    d_model,
    scale,  # log₂e / T
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
    row_at = hidden.ptr + rows * hidden.strides[0]
    first = span.to(tl.int64) * SPAN
    maximum = tl.full([BLOCK_M], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    weighted = tl.zeros([BLOCK_M], tl.float32)
    wanted = tl.zeros([BLOCK_M], tl.float32)
    left = tl.minimum(vocab - first, SPAN).to(tl.int32)
    # A place within the span fits 32 bits; columns of 64 bits would take registers from the tile.
    target_at = (target - first).to(tl.int32)
    for start in range(0, left, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        column_inside = columns < left
        x = _logits_tile(
            row_at, weight.ptr + (first + columns) * weight.strides[1], counts, column_inside,
            d_model, hidden.strides[1], weight.strides[0], scale, K_BYTES // ITEM,
        )  # fmt: skip
        maximum, total, weighted, wanted = add_tile(
            maximum, total, weighted, wanted, x, columns, column_inside, target_at
        )
    store_span(partial_ptr, span, rows, row_inside, n_tokens, maximum, total, weighted, wanted)


FLOAT32_SCORES = triton.autotune(FLOAT32_SCORE_CONFIGS, SCORE_KEY)(token_scores_kernel.fn)


@triton.jit
def token_scores_d_logits_kernel(
    hidden,  # Strided [token, d_model]
    weight,  # Strided [d_model, column], one chunk of columns
    targets_ptr,  # [token] contiguous, like the next five
    mask_ptr,  # int8
    entropy_ptr,
    lse_ptr,
    d_log_prob_ptr,
    d_entropy_ptr,  # or None
    d_logits_ptr,  # [token, column], written: of the products before T
    d_logits_row_stride,
    n_tokens,
    vocab,  # columns of the chunk
    d_model,
    first_column,
    scale,  # log₂e / T
    inverse_temperature,
    M_BYTES: tl.constexpr,
    N_BYTES: tl.constexpr,
    K_BYTES: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of the logits, and their gradient."""
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
    x = _logits_tile(
        hidden.ptr + rows * hidden.strides[0], weight.ptr + columns * weight.strides[1],
        counts, column_inside, d_model, hidden.strides[1], weight.strides[0],
        scale, K_BYTES // ITEM,
    )  # fmt: skip
    target = tl.load(targets_ptr + rows, mask=counts, other=0).to(tl.int64)
    # A place within the tile fits 32 bits, as above.
    target_at = (target - first_column - tile_column.to(tl.int64) * BLOCK_N).to(tl.int32)
    is_target = tl.arange(0, BLOCK_N)[None, :] == target_at[:, None]
    lse = tl.load(lse_ptr + rows, mask=counts, other=0.0)
    d_log_prob = tl.load(d_log_prob_ptr + rows, mask=counts, other=0.0) * inverse_temperature
    log2_p = x - lse[:, None]
    p = tl.exp2(log2_p)
    d_x = (tl.where(is_target, 1.0, 0.0) - p) * d_log_prob[:, None]
    if d_entropy_ptr is not None:
        entropy = tl.load(entropy_ptr + rows, mask=counts, other=0.0)
        d_entropy = tl.load(d_entropy_ptr + rows, mask=counts, other=0.0) * inverse_temperature
        d_x -= p * (log2_p * LN_2 + entropy[:, None]) * d_entropy[:, None]
    d_x = tl.where(counts[:, None], d_x, 0.0)
    at = d_logits_ptr + rows[:, None] * d_logits_row_stride + columns[None, :]
    tl.store(at, d_x, mask=row_inside[:, None] & column_inside[None, :])


# One kernel for each number of bytes. Their lists are of one length, since the instruments count
# one kernel's configurations.
D_LOGITS_KERNELS = {
    itemsize: triton.autotune(configs, SCORE_KEY)(token_scores_d_logits_kernel)
    for itemsize, configs in ((2, SCORE_CONFIGS), (4, FLOAT32_D_LOGITS_CONFIGS))
}


@registered
def score(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the pass over the vocabulary.

    Parameters
    ----------
    hidden, weight, targets, mask, temperature
        As in kernels/rlhf/linear_ppo_loss.py; targets and mask contiguous.

    Returns
    -------
    log_prob, entropy, lse : torch.Tensor [token]
        float32; 0 where masked. The log-sum-exp is in units of log 2, for `score_backward`.
    """
    (n_tokens, d_model), vocab = hidden.shape, weight.shape[1]
    expect_countable("token_scores", tokens=n_tokens, vocab=vocab, d_model=d_model)
    weight = readable(weight)
    n_spans = triton.cdiv(vocab, SPAN)
    partials = torch.empty(n_spans, 4, n_tokens, dtype=torch.float32, device=hidden.device)
    mask = mask.view(torch.int8)
    launch(
        FLOAT32_SCORES if hidden.element_size() == 4 else token_scores_kernel,
        lambda meta: (triton.cdiv(n_tokens, meta["M_BYTES"] // hidden.element_size()) * n_spans,),
        *(strided(hidden), strided(weight), targets, mask, partials, n_tokens, vocab, d_model),
        math.log2(math.e) / temperature,
        SPAN=SPAN,
    )
    return merge_spans(partials, targets, mask, vocab)


@registered
def score_backward(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    temperature: float,
    entropy: torch.Tensor,
    lse: torch.Tensor,
    d_log_prob: torch.Tensor,
    d_entropy: torch.Tensor | None,
    *,
    wants_hidden: bool = True,
    wants_weight: bool = True,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Launch the passes over chunks of the vocabulary.

    Parameters
    ----------
    entropy, lse : torch.Tensor [token]
        From `score`.
    d_log_prob : torch.Tensor [token]
        Gradient of the log-probabilities, contiguous; not looked at where masked.
    d_entropy : torch.Tensor [token] or None
        Likewise; None spares its part of the arithmetic.
    wants_hidden, wants_weight : bool
        Which gradients are needed: the other's product is left out.

    Returns
    -------
    d_hidden : torch.Tensor [token, d_model] or None
    d_weight : torch.Tensor [d_model, vocab] or None
        Of the strides that `weight` has, if these are dense.
    """
    n_tokens, vocab = hidden.shape[0], weight.shape[1]
    if n_tokens == 0:
        return torch.empty_like(hidden), torch.zeros_like(weight)
    d_hidden: torch.Tensor | None = None
    d_weight = torch.empty_like(weight) if wants_weight else None
    # A masked row of d_logits is 0, but 0 · NaN is not.
    counted = torch.where(mask[:, None], hidden, 0.0) if wants_weight else hidden
    width = columns_per_chunk(n_tokens, vocab)
    buffer = torch.empty(n_tokens, width, dtype=hidden.dtype, device=hidden.device)
    for start in range(0, vocab, width):
        some = slice(start, min(start + width, vocab))
        here = readable(weight[:, some])
        d_logits = buffer[:, : here.shape[1]]
        _launch_d_logits(
            *(hidden, here, targets, mask, entropy, lse, d_log_prob, d_entropy, d_logits),
            *(start, temperature),
        )
        if wants_hidden:
            dtype = hidden.dtype if some.stop == vocab else torch.float32
            d_hidden = product(d_logits, here.T, dtype, add=d_hidden)
        if d_weight is not None:
            write_product(d_weight[:, some], counted.T, d_logits)
    if d_hidden is not None:
        d_hidden.masked_fill_(~mask[:, None], 0)  # Nor is 0 · NaN where NaN is in the weight.
    return d_hidden, d_weight


def write_product(result: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Write a b to where it belongs, the rows or the columns of the result at a time.

    Parameters
    ----------
    result : torch.Tensor [row, column]
        Written.
    a : torch.Tensor [row, inner]
    b : torch.Tensor [inner, column]
    """
    if result.is_contiguous():
        product(a, b, result.dtype, into=result)
    elif result.T.is_contiguous():
        product(b.T, a.T, result.dtype, into=result.T)
    else:
        result.copy_(product(a, b, result.dtype))


def _launch_d_logits(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    entropy: torch.Tensor,
    lse: torch.Tensor,
    d_log_prob: torch.Tensor,
    d_entropy: torch.Tensor | None,
    d_logits: torch.Tensor,
    first_column: int,
    temperature: float,
) -> None:
    """Fill d_logits for one chunk of the vocabulary."""
    (n_tokens, d_model), n_columns = hidden.shape, weight.shape[1]
    launch(
        D_LOGITS_KERNELS[hidden.element_size()],
        lambda meta: (
            triton.cdiv(n_tokens, meta["M_BYTES"] // hidden.element_size())
            * triton.cdiv(n_columns, meta["N_BYTES"] // hidden.element_size()),
        ),
        *(strided(hidden), strided(weight), targets, mask.view(torch.int8), entropy, lse),
        *(d_log_prob, d_entropy, d_logits, d_logits.stride(0)),
        *(n_tokens, n_columns, d_model, first_column),
        *(math.log2(math.e) / temperature, 1 / temperature),
    )


def columns_per_chunk(n_tokens: int, vocab: int) -> int:
    """Return how many columns of the vocabulary backward takes at a time.

    Parameters
    ----------
    n_tokens, vocab : int

    Returns
    -------
    int
        MAX_LOGITS / n_tokens as a multiple of PITCH, at least PITCH and no more than are needed.
    """
    if door().batch_invariant:
        n_tokens = INVARIANT_TOKENS
    most = max(1, MAX_LOGITS // n_tokens // PITCH)
    return min(most, triton.cdiv(vocab, PITCH)) * PITCH
