"""Attention in Triton: flash attention, which never writes a score to memory.

Mathematics (core/attention/attention.py), for query i over the keys j of its interval [low(i),
high(i)):

    output[i] = Σ_j p[i, j] · value[j],   p[i, :] = softmax(scale · query[i] · key[j])

The scores of one head are n_query × n_key, far more than query, key and value together, and worth
nothing afterwards. So a program (Dao 2023, arXiv 2307.08691) takes one tile of queries, walks along
the keys, and keeps three things in its registers: the running maximum and sum of `softmax_online`,
and an accumulator of weighted values. `attention_tiled` in core/ is this loop in NumPy.

Tiling. The query tile is loaded once and stays; key and value tiles stream through shared memory,
`num_stages` of them in flight:

                         key ──────────────────────►
                       ┌───────┬───────┬───────┬──┄
                       │ tile  │ tile  │ tile  │         ▲ d_head
                       └───────┴───────┴───────┴──┄      ▼
           ┌───────┐   ┌───────┐
     query │ stays │ × │scores │  → maximum, exp2, sum
           └───────┘   └───────┘        │
         BLOCK_QUERIES BLOCK_KEYS       ▼  × value tile
                       ┌───────┐   ┌─────────────┐
                       │weights│ → │ accumulator │ [BLOCK_QUERIES, d_head], rescaled when the
                       └───────┘   └─────────────┘ maximum rises, divided by the sum at the end

Masks cost nothing where they hide everything or nothing. Keys that no query of the tile sees are
never read; those that all of them see go through a loop without a mask; only the blocks between,
at the edge of an interval, compare positions (attention_tiles.py). Each kind has a loop of its own.

Memory. Query is read and output written once; keys and values are read once by each query tile of
their head, from the L2 cache but for the first. Kept for backward: the inputs, the output, and lse,
one float32 for each query. The weights are computed again there (attention_backward.py).

exp(scale·s − m) is computed as exp2(c·s − c·max) with c = scale·log₂e, one fused multiply-add and
one instruction of the special function unit. Scores, sums and accumulator are float32; the weights
are rounded to the inputs' dtype for the second product, as its tensor cores need. float32 is true
float32. c·s must stay within float32.

Deterministic: each element is written by one program, and no sum crosses programs.
"""

import math
from typing import Any

import torch

from ...core.attention.attention import default_scale, dropout_factor
from ...core.attention.key_intervals import check_attention
from ...core.checks import expect_floats
from ..common._triton import for_architecture, tl, triton
from ..common.derivative import first_derivative_only
from ..common.launch import expect_same_dtype, launch, runs_on_triton
from ..common.registered import registered
from ..common.strided import strided
from ..common.widened import product_in_float32
from ..hopper.instead import attended
from .attention_backward import attention_backward
from .attention_tiles import (
    LOG2_E,
    NOT_SPECIALIZED,
    TUNING_KEY,
    Masks,
    features_per_tile,
    from_row,
    head_of,
    is_kept,
    key_interval,
    key_stretch,
    load_key_start,
    load_tile,
    mask_arguments,
    parts,
    place,
    row_products,
    rows_per_tile,
    store_tile,
    tile_grid,
    tiles,
)

LN_2 = tl.constexpr(math.log(2))

# In 2-byte floats the first of each list is 128 queries × 64 keys at d_head 64 and × 32 at 128, but
# half the queries at 128 on AMD. Two programs on a multiprocessor let one multiply while the other
# exponentiates: sm_90 has registers for them up to 128 a thread, sm_80 with 4 warps. At d_head 128
# sm_90's second entry multiplies 64 keys at a time, and waits less for shared memory.
FORWARD_CONFIGS = for_architecture(
    [tiles(32768, 8192, 8, 3), tiles(16384, 4096, 4, 3)],
    sm_90=[tiles(32768, 8192, 8, 3, maxnreg=128), tiles(32768, 16384, 8, 3)],
    sm_100=[tiles(32768, 8192, 8, 3), tiles(32768, 16384, 8, 3)],
    amd=[tiles(16384, 8192, 8, 3), tiles(16384, 8192, 8, 2)],
)
# No tensor core multiplies them: 32 × 32 at any d_head. sm_100 would spill with 4 warps; on sm_80
# ptxas, left alone, spills 8 bytes at d_head 64 to fit a fifth program on a multiprocessor.
FLOAT32_FORWARD_CONFIGS = [
    tiles(32768, 8192, for_architecture(4, sm_100=8), 3, maxnreg=for_architecture(None, sm_80=255))
]


@triton.autotune(FORWARD_CONFIGS, key=TUNING_KEY)
@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def attention_forward_kernel(
    query,  # [batch, head, query, d_head], like the next three
    key,  # [batch, kv_head, key, d_head]
    value,
    output,  # [batch, head, query, d_head], written
    lse_ptr,  # float32 [batch, head, query] contiguous, written
    masks,  # Masks
    dropout,  # Dropout or None
    seed,
    n_head,
    n_query,
    n_key,
    tuned_for,  # kinds of masks and the length, rounded up to a power of two: tuned once for each
    scale_log2_e,
    GROUP: tl.constexpr,  # query heads for each key head
    D_HEAD: tl.constexpr,
    QUERY_TILE_BYTES: tl.constexpr,
    KEY_TILE_BYTES: tl.constexpr,
):
    """One tile of queries of one head."""
    ITEMSIZE: tl.constexpr = query.ptr.dtype.element_ty.primitive_bitwidth // 8
    BLOCK_QUERIES: tl.constexpr = rows_per_tile(QUERY_TILE_BYTES, D_HEAD, ITEMSIZE)
    # Dropout's random numbers need registers: half as many keys stream past at a time.
    BLOCK_KEYS: tl.constexpr = rows_per_tile(
        KEY_TILE_BYTES if dropout is None else KEY_TILE_BYTES // 2, D_HEAD, ITEMSIZE
    )
    # Without these masks all queries of a sequence start at the same key.
    LOW_VARIES: tl.constexpr = masks.window is not None or masks.document_start is not None
    n_tiles = tl.cdiv(n_query, BLOCK_QUERIES)
    tile, batch_head, batch, head = place(n_tiles, n_head, LAST_FIRST=masks.causal)
    kv_head = head // GROUP
    query_rows, output_rows = head_of(query, batch, head), head_of(output, batch, head)
    key_rows, value_rows = head_of(key, batch, kv_head), head_of(value, batch, kv_head)
    first_query = tile * BLOCK_QUERIES
    queries = first_query + tl.arange(0, BLOCK_QUERIES)
    in_block = tl.arange(0, BLOCK_KEYS)
    row_inside = queries < n_query

    key_start = load_key_start(batch, n_key, masks)
    low, high = key_interval(queries, key_start, n_query, n_key, masks)
    start, full_start, full_end, end = key_stretch(
        first_query, BLOCK_QUERIES, key_start, n_query, n_key, masks
    )
    first_seen = start
    if masks.window is not None:
        # From the same keys on for every tile, counted from the text's first: so a query's keys are
        # summed in the same blocks whichever tile it is in, and whatever stands before the text.
        start = key_start + (start - key_start) // BLOCK_KEYS * BLOCK_KEYS
    starts, ends = parts(start, full_start, full_end, end, BLOCK_KEYS)

    query_tile = load_tile(query_rows, queries, row_inside, True, D_HEAD)
    accumulator = tl.zeros([BLOCK_QUERIES, features_per_tile(D_HEAD)], tl.float32)
    running_max = tl.full([BLOCK_QUERIES], -float("inf"), tl.float32)
    running_sum = tl.zeros([BLOCK_QUERIES], tl.float32)
    # Part 1 needs no mask. Part 0, before it, is empty where all queries start at the same key.
    for part in tl.static_range(0 if LOW_VARIES else 1, 3):
        for first_key in range(starts[part], ends[part], BLOCK_KEYS):
            keys = first_key + in_block
            inside = in_block < ends[part] - first_key
            if part == 0 and masks.window is not None:
                inside = inside & (keys >= first_seen)
            key_tile = load_tile(from_row(key_rows, first_key), in_block, inside, part != 1, D_HEAD)
            scores = row_products(query_tile, key_tile, part != 1, D_HEAD)  # [query, key]
            if part != 1:
                seen = keys[None, :] < high[:, None]
                if LOW_VARIES:
                    seen = seen & (keys[None, :] >= low[:, None])
                scores = tl.where(seen, scores, -float("inf"))

            new_max = tl.maximum(running_max, tl.max(scores, axis=1))
            # A row that has seen nothing so far: subtract 0, since -inf - (-inf) is NaN.
            pivot = tl.where(new_max == -float("inf"), 0.0, new_max) * scale_log2_e
            weights = tl.exp2(scores * scale_log2_e - pivot[:, None])
            # What was summed so far was relative to the old maximum.
            rescale = tl.exp2(running_max * scale_log2_e - pivot)
            running_sum = running_sum * rescale + tl.sum(weights, axis=1)
            running_max = new_max
            if dropout is not None:
                kept = is_kept(dropout, seed, batch_head, queries[:, None], keys[None, :])
                weights = tl.where(kept, weights, 0.0)

            value_tile = load_tile(
                from_row(value_rows, first_key), in_block, inside, part != 1, D_HEAD
            )
            accumulator = accumulator * rescale[:, None]
            weights = weights.to(value_tile.block.dtype)
            accumulator = tl.dot(weights, value_tile.block, accumulator, input_precision="ieee")

    total = tl.where(running_sum == 0.0, 1.0, running_sum)
    keep_scale = 1.0 if dropout is None else dropout.keep_scale
    rows = accumulator * (keep_scale / total)[:, None]
    store_tile(output_rows, queries, rows, row_inside, D_HEAD)
    # Of a query that sees no key this is -inf + log 0, which is -inf.
    lse = (running_max * scale_log2_e + tl.log2(running_sum)) * LN_2
    tl.store(lse_ptr + batch_head.to(tl.int64) * n_query + queries, lse, mask=row_inside)


FLOAT32_KERNEL = triton.autotune(FLOAT32_FORWARD_CONFIGS, TUNING_KEY)(attention_forward_kernel.fn)


@registered(without=("out",))
def attention_forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    masks: Masks,
    *,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the forward kernel for checked arguments with any strides.

    Parameters
    ----------
    query, key, value, scale, dropout, seed
        As in `attention`.
    masks : Masks
        From `Masks.of`.
    out : torch.Tensor [batch, head, query, d_head], optional
        Where the output goes, with any strides: a view of an activation with its heads merged,
        say. A new contiguous tensor if not given.

    Returns
    -------
    output : torch.Tensor [batch, head, query, d_head]
        `out` if it was given.
    lse : torch.Tensor of float32 [batch, head, query]
        Contiguous.
    """
    n_batch, n_head, n_query, _ = query.shape
    output = torch.empty_like(query, memory_format=torch.contiguous_format) if out is None else out
    lse = torch.empty(n_batch, n_head, n_query, dtype=torch.float32, device=query.device)
    if attended(*(query, key, value, output, lse), masks=masks, scale=scale, dropout=dropout):
        return output, lse
    launch(
        FLOAT32_KERNEL if query.element_size() == 4 else attention_forward_kernel,
        tile_grid(query, "QUERY_TILE_BYTES"),
        *(strided(query), strided(key), strided(value), strided(output), lse),
        *mask_arguments(query, key, masks, dropout, seed),
        scale * LOG2_E,
        GROUP=n_head // key.shape[1],
        D_HEAD=query.shape[-1],
    )
    return output, lse


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, masks, options):
        output, lse = attention_forward(query, key, value, masks, **options)
        ctx.save_for_backward(query, key, value, output, lse, *masks[2:])
        ctx.masks, ctx.options = masks.holding(None, None, None), options
        ctx.set_materialize_grads(False)  # where nobody uses lse, its gradient is None
        return output, lse

    @staticmethod
    @first_derivative_only("attention")
    def backward(ctx, d_output, d_lse):
        wants_query, wants_key, wants_value = ctx.needs_input_grad[:3]
        *tensors, key_start, document_start, document_end = ctx.saved_tensors
        d_query, d_key, d_value = attention_backward(
            *tensors,
            d_output,
            d_lse,
            ctx.masks.holding(key_start, document_start, document_end),
            wants_query=wants_query,
            wants_key_value=wants_key or wants_value,
            **ctx.options,
        )
        return d_query, d_key if wants_key else None, d_value if wants_value else None, None, None


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    key_start: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend; the twin of `gptwin.core.attention.attention.attention`.

    Parameters
    ----------
    query : torch.Tensor [batch, head, query, d_head]
        float32, float16 or bfloat16, any strides. d_head up to 256, best a power of two.
    key, value : torch.Tensor [batch, kv_head, key, d_head]
        kv_head divides head: grouped- or multi-query attention, without copies.
    scale : float, optional
        Multiplies the scores; above 0. 1/√d_head if not given.
    causal : bool
        Let query i see key j only if j ≤ i + (n_key − n_query).
    window : int, optional
        With `causal`: let a query see only the last `window` of those keys.
    key_start : torch.Tensor of int [batch], optional
        Keys before it are left padding, which nobody sees.
    cu_seqlens : torch.Tensor of int [n_documents + 1], optional
        Documents packed on the time axis: document d is at positions cu_seqlens[d] to
        cu_seqlens[d + 1] − 1 and sees itself alone. From 0, never decreasing, to at most n_query;
        this is not checked, for that would wait for the GPU. Positions from the last entry on see
        nothing.
    dropout : float
        Share of the weights that are zeroed, from 0 to below 1.
    seed : int
        Which ones; 64 bits. The same weights as the NumPy twin, bit for bit.

    Returns
    -------
    output : torch.Tensor [batch, head, query, d_head]
        Contiguous, of `query`'s dtype; 0 where a query sees nothing.
    lse : torch.Tensor of float32 [batch, head, query]
        Log-sum-exp of the scaled scores; −inf where a query sees nothing. Differentiable, too.

    Raises
    ------
    ValueError
        If a shape, dtype, device or number is wrong.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_attention(query, key, value, scale, causal, window, key_start, cu_seqlens, dropout, seed)
    expect_floats(query=query, key=key, value=value)
    expect_same_dtype(query=query, key=key, value=value)
    tensors = {"query": query, "key": key, "value": value}
    seen: dict[str, Any] = {
        "causal": causal,
        "window": window,
        "key_start": key_start,
        "cu_seqlens": cu_seqlens,
    }
    if runs_on_triton("attention", **tensors, key_start=key_start, cu_seqlens=cu_seqlens):
        masks = Masks.of(query.shape[2], **seen)
        scale = default_scale(scale, query.shape[-1])
        options = {"scale": scale, "dropout": float(dropout), "seed": int(seed)}
        return _Attention.apply(query, key, value, masks, options)
    return attention_eager(query, key, value, scale=scale, dropout=dropout, seed=seed, **seen)


def attention_eager(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
    key_start: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick.

    Returns
    -------
    output, lse : torch.Tensor
        As in `attention`; lse is float64 for float64.
    """
    n_batch, n_head, n_query, d_head = query.shape
    n_kv_head, n_key = key.shape[1:3]
    masks = Masks.of(
        n_query, causal=causal, window=window, key_start=key_start, cu_seqlens=cu_seqlens
    )
    seen = _seen(masks, n_query, n_key, query.device)  # [batch or 1, query, key]
    # What nobody sees becomes 0, even if it is NaN: 0 · NaN in a product would be NaN.
    sees, is_seen = seen.any(dim=2)[:, None, None, :, None], seen.any(dim=1)[:, None, None, :, None]
    # [batch, head, ...] -> [batch, kv_head, group, ...]
    query = query.unflatten(1, (n_kv_head, n_head // n_kv_head)).masked_fill(~sees, 0)
    key, value = (x[:, :, None].masked_fill(~is_seen, 0) for x in (key, value))

    scores = product_in_float32(query, key.transpose(-1, -2)) * default_scale(scale, d_head)
    exact = torch.promote_types(torch.float32, query.dtype)
    scores = scores.to(exact).masked_fill(~seen[:, None, None], -math.inf)
    row_max = scores.new_full((*scores.shape[:-1], 1), -math.inf)
    if n_key > 0:  # PyTorch refuses the maximum of an empty axis
        row_max = scores.detach().amax(dim=-1, keepdim=True)
    exponents = torch.exp(scores - row_max.masked_fill(row_max == -math.inf, 0))
    total = exponents.sum(dim=-1, keepdim=True)
    nothing = total == 0
    total = total.masked_fill(nothing, 1)
    probabilities = (exponents / total).to(query.dtype)
    lse = (row_max + torch.log(total)).masked_fill(nothing, -math.inf)
    if dropout > 0:
        heads, queries, keys = (torch.arange(n).numpy() for n in (n_batch * n_head, n_query, n_key))
        factor = torch.from_numpy(dropout_factor(seed, dropout, heads, queries, keys))
        probabilities = probabilities * factor.to(probabilities).view(probabilities.shape)
    output = probabilities @ value
    return output.flatten(1, 2), lse[..., 0].flatten(1, 2)


def _seen(masks: Masks, n_query: int, n_key: int, device: Any) -> torch.Tensor:
    """Write the masks out: bool [batch or 1, query, key]."""
    queries = torch.arange(n_query, device=device)[:, None]
    keys = torch.arange(n_key, device=device)
    own = queries + (n_key - n_query)
    seen = torch.ones(1, n_query, n_key, dtype=torch.bool, device=device)
    if masks.causal:
        seen = seen & (keys <= own)
    if masks.window is not None:
        seen = seen & (keys > own - masks.window)
    if masks.key_start is not None:
        seen = seen & (keys >= masks.key_start[:, None, None])
    if masks.document_start is not None and masks.document_end is not None:
        seen = seen & (keys >= masks.document_start[:, None])
        seen = seen & (keys < masks.document_end[:, None])
    return seen
