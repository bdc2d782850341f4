"""Log-probability and entropy of tokens from hidden states: the logits never reach memory whole.

Mathematics (core/linear_ppo_loss.py): x = hidden W / T; log π = x[target] − logsumexp(x) and
H = −Σ p·log p. Backward, g and h being their gradients: d_x = (1[target] − p)·g −
p·(log p + H)·h, then d_hidden = d_x Wᵀ / T and d_W = hiddenᵀ d_x / T.

Forward. One program owns BLOCK_M tokens and walks over the vocabulary; each tile of logits is a
matrix product that lives in registers alone, and adds to four numbers per token:

                    vocab ─►
              ┌──────┬──────┬──────┬───┐      running maximum m
    BLOCK_M   │ tile │ tile │ tile │   │ ──►  S = Σ e^(x − m),  E = Σ e^(x − m)·(x − m)
              └──────┴──────┴──────┴───┘      x[target]

    log π = min(x[target] − m − log S, 0),    H = max(log S − E/S, 0),    lse = m + log S

Backward. Tokens go in chunks of at most MAX_LOGITS / vocab: the logits of a chunk are computed
again, tile by tile, and turned into d_x in the epilogue; [chunk, vocab] is the largest buffer
there ever is, at most MAX_LOGITS numbers (128 MiB in bfloat16) however many tokens there are. Two
products (kernels/linear.py) follow: d_hidden of the chunk is complete at once; d_W goes from chunk
to chunk in float32, from one buffer into the other and back (never in place: an autotuner's trials
would add up), and is rounded once, with the last.

Memory. Forward reads hidden once per vocabulary tile and W once per block of tokens, from the L2
cache for most, and writes three numbers a token; at 8,192 tokens of GPT-2 that spares 1.6 GB of
float32 logits written and read. What it costs is the product once more in backward: 8 instead of
6 multiply-adds per logit and d_model.

Precision. Logits are float32 whatever the inputs; d_x is rounded to the inputs' dtype for the
products, as PyTorch does: in float16, scale the loss. float32 multiplies true float32 ("ieee").

A target out of range is never used as an address: its log-probability is NaN.

Deterministic: each number is summed by one program in one order. No atomics.
"""

from functools import partial
from typing import Any

import torch

from ._triton import tl, triton
from .launch import launch
from .linear import grouped_tile, matmul_kernel

# Numbers in backward's largest buffer.
MAX_LOGITS = 2**26

# Larger tiles spill in float32 where strides are odd, as GPT-2's vocabulary makes them.
SCORE_CONFIGS = [
    triton.Config({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K_BYTES": 64}, num_warps=8, num_stages=3),
    triton.Config({"BLOCK_M": 64, "BLOCK_N": 32, "BLOCK_K_BYTES": 64}, num_warps=4, num_stages=3),
]
PRODUCT_CONFIGS = [
    triton.Config(
        {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K_BYTES": 64, "GROUP_M": 8},
        num_warps=8,
        num_stages=3,
    ),
    triton.Config(
        {"BLOCK_M": 64, "BLOCK_N": 32, "BLOCK_K_BYTES": 128, "GROUP_M": 8},
        num_warps=4,
        num_stages=3,
    ),
]
# The kernel of `linear` with the one configuration that does not spill for odd strides either.
product_kernel = triton.autotune(
    PRODUCT_CONFIGS[1:], key=["row_bucket", "n_columns", "n_inner", "INPUT_PRECISION"]
)(matmul_kernel.fn)

# Below any logit, and yet a number: what is multiplied with the first rescaling stays 0.
_LOWEST = tl.constexpr(-1e30)
_INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _logits_tile(
    hidden_ptr,
    weight_ptr,
    rows,  # [BLOCK_M] int64
    columns,  # [BLOCK_N] int64
    row_inside,
    column_inside,
    d_model,
    hidden_row_stride,
    hidden_column_stride,
    weight_row_stride,
    weight_column_stride,
    inverse_temperature,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile of hidden W / T in float32, 0 outside."""
    inner = tl.arange(0, BLOCK_K).to(tl.int64)
    step = tl.full([], BLOCK_K, tl.int64)
    accumulator = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    hidden_at = (
        hidden_ptr + rows[:, None] * hidden_row_stride + inner[None, :] * hidden_column_stride
    )
    weight_at = (
        weight_ptr + inner[:, None] * weight_row_stride + columns[None, :] * weight_column_stride
    )
    for start in range(0, d_model, BLOCK_K):
        inner_inside = inner < d_model - start
        a = tl.load(hidden_at, mask=row_inside[:, None] & inner_inside[None, :], other=0.0)
        b = tl.load(weight_at, mask=inner_inside[:, None] & column_inside[None, :], other=0.0)
        accumulator = tl.dot(a, b, accumulator, input_precision="ieee")
        hidden_at += step * hidden_column_stride
        weight_at += step * weight_row_stride
    return accumulator * inverse_temperature


@triton.autotune(SCORE_CONFIGS, key=["vocab", "d_model"])
@triton.jit
def token_scores_kernel(
    hidden_ptr,  # [token, d_model]
    weight_ptr,  # [d_model, vocab]
    targets_ptr,  # [token] contiguous, like all that follow
    mask_ptr,  # int8
    log_prob_ptr,
    entropy_ptr,
    lse_ptr,
    n_tokens,
    vocab,
    d_model,
    hidden_row_stride,
    hidden_column_stride,
    weight_row_stride,
    weight_column_stride,
    inverse_temperature,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K_BYTES: tl.constexpr,
):
    """A block of tokens: log-probability of the target, entropy, and log-sum-exp; 0 if masked."""
    BLOCK_K: tl.constexpr = BLOCK_K_BYTES // (hidden_ptr.dtype.element_ty.primitive_bitwidth // 8)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_inside = rows < n_tokens
    counts = tl.load(mask_ptr + rows, mask=row_inside, other=0) != 0
    target = tl.load(targets_ptr + rows, mask=counts, other=0).to(tl.int64)
    running_max = tl.full([BLOCK_M], _LOWEST, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    weighted = tl.zeros([BLOCK_M], tl.float32)
    wanted = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, vocab, BLOCK_N):
        columns = (start + tl.arange(0, BLOCK_N)).to(tl.int64)
        column_inside = columns < vocab
        x = _logits_tile(
            hidden_ptr,
            weight_ptr,
            rows,
            columns,
            counts,
            column_inside,
            d_model,
            hidden_row_stride,
            hidden_column_stride,
            weight_row_stride,
            weight_column_stride,
            inverse_temperature,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
        )
        tile_max = tl.max(tl.where(column_inside[None, :], x, -_INFINITY), axis=1)
        new_max = tl.maximum(running_max, tile_max)
        fell = running_max - new_max
        away = tl.where(column_inside[None, :], x - new_max[:, None], 0.0)
        e = tl.where(column_inside[None, :], tl.exp(away), 0.0)
        weighted = (weighted + fell * total) * tl.exp(fell) + tl.sum(e * away, axis=1)
        total = total * tl.exp(fell) + tl.sum(e, axis=1)
        is_target = columns[None, :] == target[:, None]
        wanted += tl.sum(tl.where(is_target, x, 0.0), axis=1)
        running_max = new_max

    log_total = tl.log(total)
    # ≤ 0 and ≥ 0 in exact arithmetic: the clamps undo what log's last bit may do.
    log_prob = tl.minimum(wanted - running_max - log_total, 0.0)
    log_prob = tl.where((target >= 0) & (target < vocab), log_prob, float("nan"))
    entropy = tl.maximum(log_total - weighted / total, 0.0)
    tl.store(log_prob_ptr + rows, tl.where(counts, log_prob, 0.0), mask=row_inside)
    tl.store(entropy_ptr + rows, tl.where(counts, entropy, 0.0), mask=row_inside)
    tl.store(lse_ptr + rows, tl.where(counts, running_max + log_total, 0.0), mask=row_inside)


@triton.autotune(PRODUCT_CONFIGS, key=["vocab", "d_model"])
@triton.jit
def token_scores_d_logits_kernel(
    hidden_ptr,  # [token, d_model], one chunk of tokens, like all that follow
    weight_ptr,  # [d_model, vocab]
    targets_ptr,  # [token] contiguous, like the next five
    mask_ptr,  # int8
    entropy_ptr,
    lse_ptr,
    d_log_prob_ptr,
    d_entropy_ptr,
    d_logits_ptr,  # [token, vocab] contiguous: of the products before T
    n_tokens,
    vocab,
    d_model,
    hidden_row_stride,
    hidden_column_stride,
    weight_row_stride,
    weight_column_stride,
    inverse_temperature,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K_BYTES: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of the logits, and their gradient."""
    BLOCK_K: tl.constexpr = BLOCK_K_BYTES // (hidden_ptr.dtype.element_ty.primitive_bitwidth // 8)
    tile_row, tile_column = grouped_tile(
        tl.program_id(0), n_tokens, vocab, BLOCK_M, BLOCK_N, GROUP_M
    )
    rows = tile_row.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_column.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_inside, column_inside = rows < n_tokens, columns < vocab
    counts = tl.load(mask_ptr + rows, mask=row_inside, other=0) != 0
    x = _logits_tile(
        hidden_ptr,
        weight_ptr,
        rows,
        columns,
        counts,
        column_inside,
        d_model,
        hidden_row_stride,
        hidden_column_stride,
        weight_row_stride,
        weight_column_stride,
        inverse_temperature,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
    )
    target = tl.load(targets_ptr + rows, mask=counts, other=0).to(tl.int64)
    lse = tl.load(lse_ptr + rows, mask=counts, other=0.0)
    entropy = tl.load(entropy_ptr + rows, mask=counts, other=0.0)
    d_log_prob = tl.load(d_log_prob_ptr + rows, mask=counts, other=0.0)
    d_entropy = tl.load(d_entropy_ptr + rows, mask=counts, other=0.0)
    log_p = x - lse[:, None]
    p = tl.exp(log_p)
    is_target = (columns[None, :] == target[:, None]).to(tl.float32)
    d_x = (is_target - p) * d_log_prob[:, None]
    d_x -= p * (log_p + entropy[:, None]) * d_entropy[:, None]
    d_x = tl.where(counts[:, None], d_x * inverse_temperature, 0.0)
    at = d_logits_ptr + rows[:, None] * vocab + columns[None, :]
    tl.store(at, d_x, mask=row_inside[:, None] & column_inside[None, :])


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
        As in kernels/linear_ppo_loss.py; targets and mask contiguous.

    Returns
    -------
    log_prob, entropy, lse : torch.Tensor [token]
        float32; 0 where masked.
    """
    n_tokens = hidden.shape[0]
    scores = torch.empty(3, n_tokens, dtype=torch.float32, device=hidden.device)
    log_prob, entropy, lse = scores.unbind()
    launch(
        token_scores_kernel,
        lambda meta: (triton.cdiv(n_tokens, meta["BLOCK_M"]),),
        *(hidden, weight, targets, mask.view(torch.int8), log_prob, entropy, lse),
        *(n_tokens, weight.shape[1], weight.shape[0], *hidden.stride(), *weight.stride()),
        1 / temperature,
    )
    return log_prob, entropy, lse


def score_backward(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    temperature: float,
    entropy: torch.Tensor,
    lse: torch.Tensor,
    d_log_prob: torch.Tensor,
    d_entropy: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the passes over chunks of tokens.

    Parameters
    ----------
    hidden, weight, targets, mask, temperature
        As in `score`.
    entropy, lse : torch.Tensor [token]
        From `score`.
    d_log_prob, d_entropy : torch.Tensor [token]
        Their gradients, contiguous; 0 where masked.

    Returns
    -------
    d_hidden : torch.Tensor [token, d_model]
    d_weight : torch.Tensor [d_model, vocab]
    """
    (n_tokens, d_model), vocab = hidden.shape, weight.shape[1]
    d_hidden = torch.empty(n_tokens, d_model, dtype=hidden.dtype, device=hidden.device)
    d_weight = None
    per_chunk = tokens_per_chunk(vocab)
    for start in range(0, n_tokens, per_chunk):
        some = slice(start, min(start + per_chunk, n_tokens))
        last = some.stop == n_tokens
        here = hidden[some]
        n_here = here.shape[0]
        d_logits = torch.empty(n_here, vocab, dtype=hidden.dtype, device=hidden.device)
        launch(
            token_scores_d_logits_kernel,
            partial(_tiles, n_here, vocab),
            *(here, weight, targets[some], mask[some].view(torch.int8), entropy[some], lse[some]),
            *(d_log_prob[some], d_entropy[some], d_logits),
            *(n_here, vocab, d_model, *here.stride(), *weight.stride()),
            1 / temperature,
        )
        product_into(d_hidden[some], d_logits, weight.T)
        # A masked row of d_logits is 0, but 0 · NaN is not.
        counted = torch.where(mask[some, None], here, 0.0)
        before, d_weight = (
            d_weight,
            torch.empty(
                d_model,
                vocab,
                dtype=weight.dtype if last else torch.float32,
                device=weight.device,
            ),
        )
        product_into(d_weight, counted.T, d_logits, before)
    return d_hidden, torch.zeros_like(weight) if d_weight is None else d_weight


def _tiles(n_rows: int, n_columns: int, meta: dict[str, Any]) -> tuple[int]:
    """Count the tiles of a matrix."""
    return (triton.cdiv(n_rows, meta["BLOCK_M"]) * triton.cdiv(n_columns, meta["BLOCK_N"]),)


def tokens_per_chunk(vocab: int) -> int:
    """Return how many tokens backward takes at a time.

    Parameters
    ----------
    vocab : int

    Returns
    -------
    int
        MAX_LOGITS / vocab, in whole tiles if there is one; at least 1.
    """
    most = max(1, MAX_LOGITS // vocab)
    return most // 128 * 128 or most


def product_into(
    result: torch.Tensor, a: torch.Tensor, b: torch.Tensor, add: torch.Tensor | None = None
) -> None:
    """Launch result = a b + add, rounded once: the kernel of `linear`, whose result may be wider.

    Parameters
    ----------
    result : torch.Tensor [row, column]
        Contiguous, of any dtype; written.
    a : torch.Tensor [row, inner]
    b : torch.Tensor [inner, column]
    add : torch.Tensor [row, column], optional
        Not `result` itself.
    """
    (n_rows, n_inner), n_columns = a.shape, b.shape[1]
    launch(
        product_kernel,
        partial(_tiles, n_rows, n_columns),
        *(a, b, result, a, a if add is None else add, a),
        *(n_rows, n_columns, n_inner, triton.next_power_of_2(n_rows)),
        *(*a.stride(), *b.stride(), 0),
        *((0, 0) if add is None else add.stride()),
        HAS_BIAS=False,
        GELU=False,
        KEEP_PRE_ACTIVATION=False,
        HAS_RESIDUAL=add is not None,
        INPUT_PRECISION="ieee",
    )
