"""The gradients of attention in Triton: three kernels, none of which adds to another's memory.

Mathematics (core/attention/attention.py: `attention_backward`), with p = exp(scale·s − lse)
computed again from what forward kept, and z dropout's factor:

    delta   = d_output · output − d_lse                    attention_backward_delta_kernel
    d_value = (p·z)ᵀ d_output
    d_s     = p · (z · (d_output valueᵀ) − delta)          scale·d_s: gradient of the scores
    d_key   = scale · d_sᵀ query                           attention_backward_key_value_kernel
    d_query = scale · d_s key                              attention_backward_query_kernel

Tiling. d_key and d_value are sums over queries, d_query is one over keys. A program owns the tile
that it sums, keeps it in its registers, and streams the other side past it:

    d_key, d_value:  a tile of keys stays,            d_query:  a tile of queries stays,
    queries stream past, of each head of its group    keys stream past

             queries ───────►                                    keys ───────►
            ┌─────┬─────┬─────┬──┄                              ┌─────┬─────┬─────┬──┄
            │query│     │     │                                 │ key │     │     │
            │d_out│     │     │                                 │value│     │     │
            └─────┴─────┴─────┴──┄                              └─────┴─────┴─────┴──┄
    ┌─────┐ ┌─────┐                                     ┌─────┐ ┌─────┐
    │key  │×│ pᵀ  │→ d_value                            │query│×│  p  │
    │value│×│ d_sᵀ│→ d_key                              │d_out│×│ d_s │→ d_query
    └─────┘ └─────┘                                     └─────┘ └─────┘

The left one computes its tiles transposed, keys along the rows: pᵀ and d_sᵀ come out of the first
two products as the tensor cores want the left side of the last two. Both skip the tiles that masks
empty, and look at no mask where all is seen, as forward does.

The price of having no atomics is that scores and d_p are computed in both kernels, 7 products for
the 5 that there are. In return every sum has one order: gradients repeat bit for bit, need no
buffer set to zero, and no float32 copy of d_query.

Dropout's mask is drawn again. Keys that nobody sees, and queries that see nothing, are read as 0.
"""

import torch

from ..common._triton import for_architecture, tl, triton
from ..common.launch import launch
from ..common.registered import registered
from ..common.strided import strided
from ..hopper.instead import differentiated
from .attention_backward_keys import KEY_VALUE_KERNELS, summed_rows_per_tile
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
    load_lse,
    load_statistic,
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

# In 2-byte floats 128 queries × 64 keys at d_head 64, and × 32 at 128; on sm_90 twice as many keys,
# for wider products. With two stages a turn would begin with waiting for its own copies. For
# maxnreg see attention_backward_keys.py.
QUERY_CONFIGS = for_architecture(
    [tiles(32768, 8192, 8, 3, maxnreg=255)],
    sm_90=[tiles(32768, 16384, 8, 3, maxnreg=255)],
    amd=[tiles(16384, 8192, 4, 1)],
)
DELTA_TILE_BYTES = 16384


@triton.jit(do_not_specialize=["n_head", "n_query"])
def attention_backward_delta_kernel(
    output,  # [batch, head, query, d_head]
    d_output,
    d_lse,  # [batch, head, query] or None
    delta_ptr,  # float32 [batch, head, query] contiguous, written
    n_head,
    n_query,
    D_HEAD: tl.constexpr,
    QUERY_TILE_BYTES: tl.constexpr,
):
    """Compute delta − d_lse of a tile of queries."""
    ITEMSIZE: tl.constexpr = output.ptr.dtype.element_ty.primitive_bitwidth // 8
    BLOCK_QUERIES: tl.constexpr = rows_per_tile(QUERY_TILE_BYTES, D_HEAD, ITEMSIZE)
    tile, batch_head, batch, head = place(tl.cdiv(n_query, BLOCK_QUERIES), n_head, LAST_FIRST=False)
    queries = tile * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    inside = queries < n_query
    output_tile = load_tile(head_of(output, batch, head), queries, inside, True, D_HEAD)
    d_output_tile = load_tile(head_of(d_output, batch, head), queries, inside, True, D_HEAD)
    product = output_tile.block.to(tl.float32) * d_output_tile.block.to(tl.float32)
    delta = tl.sum(product, axis=1)
    if d_lse is not None:
        of_head = head_of(d_lse, batch, head)
        d_lse_at = of_head.ptr + queries.to(tl.int64) * of_head.strides[0]
        delta -= tl.load(d_lse_at, mask=inside, other=0.0).to(tl.float32)
    tl.store(delta_ptr + batch_head.to(tl.int64) * n_query + queries, delta, mask=inside)


@triton.autotune(QUERY_CONFIGS, key=TUNING_KEY)
@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def attention_backward_query_kernel(
    query,  # as in the kernel of the keys
    lse_ptr,
    delta_ptr,
    key,
    value,
    d_output,
    d_query,  # [batch, head, query, d_head], written
    masks,
    dropout,
    seed,
    n_head,
    n_query,
    n_key,
    tuned_for,
    scale,
    scale_log2_e,
    GROUP: tl.constexpr,
    D_HEAD: tl.constexpr,
    QUERY_TILE_BYTES: tl.constexpr,
    KEY_TILE_BYTES: tl.constexpr,
):
    """d_query of one tile of queries of one head."""
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
    first_query = tile * BLOCK_QUERIES
    queries = first_query + tl.arange(0, BLOCK_QUERIES)
    in_block = tl.arange(0, BLOCK_KEYS)
    row_inside = queries < n_query

    key_start = load_key_start(batch, n_key, masks)
    low, high = key_interval(queries, key_start, n_query, n_key, masks)
    start, full_start, full_end, end = key_stretch(
        first_query, BLOCK_QUERIES, key_start, n_query, n_key, masks
    )
    starts, ends = parts(start, full_start, full_end, end, BLOCK_KEYS)

    key_rows, value_rows = head_of(key, batch, kv_head), head_of(value, batch, kv_head)
    sees = row_inside & (low < high)
    query_tile = load_tile(head_of(query, batch, head), queries, sees, True, D_HEAD)
    d_output_tile = load_tile(head_of(d_output, batch, head), queries, sees, True, D_HEAD)
    of_head = batch_head.to(tl.int64) * n_query
    lse = load_lse(lse_ptr + of_head, queries, sees, True)
    delta = load_statistic(delta_ptr + of_head, queries, sees, 0.0, True)

    sums = tl.zeros([BLOCK_QUERIES, features_per_tile(D_HEAD)], tl.float32)
    # Part 1 needs no mask, as in attention_forward_kernel.
    for part in tl.static_range(0 if LOW_VARIES else 1, 3):
        for first_key in range(starts[part], ends[part], BLOCK_KEYS):
            keys = first_key + in_block
            inside = in_block < ends[part] - first_key
            key_tile = load_tile(from_row(key_rows, first_key), in_block, inside, part != 1, D_HEAD)
            scores = row_products(query_tile, key_tile, part != 1, D_HEAD)  # [query, key]
            p = tl.exp2(scores * scale_log2_e - lse[:, None])
            if part != 1:
                seen = keys[None, :] < high[:, None]
                if LOW_VARIES:
                    seen = seen & (keys[None, :] >= low[:, None])
                p = tl.where(seen, p, 0.0)
            value_tile = load_tile(
                from_row(value_rows, first_key), in_block, inside, part != 1, D_HEAD
            )
            d_p = row_products(d_output_tile, value_tile, part != 1, D_HEAD)  # [query, key]
            if dropout is not None:
                kept = is_kept(dropout, seed, batch_head, queries[:, None], keys[None, :])
                d_p = tl.where(kept, d_p * dropout.keep_scale, 0.0)
            d_scores = (p * (d_p - delta[:, None])).to(key_tile.block.dtype)
            sums = tl.dot(d_scores, key_tile.block, sums, input_precision="ieee")
    store_tile(head_of(d_query, batch, head), queries, sums * scale, row_inside, D_HEAD)


@registered(without=("d_query", "d_key", "d_value"))
def attention_backward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    lse: torch.Tensor,
    d_output: torch.Tensor | None,
    d_lse: torch.Tensor | None,
    masks: Masks,
    *,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    d_query: torch.Tensor | None = None,
    d_key: torch.Tensor | None = None,
    d_value: torch.Tensor | None = None,
    wants_query: bool = True,
    wants_key_value: bool = True,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Launch the backward kernels for tensors with any strides.

    Parameters
    ----------
    query, key, value, masks, scale, dropout, seed
        As for `attention_forward`.
    output, lse
        From `attention_forward`.
    d_output : torch.Tensor [batch, head, query, d_head] or None
        Gradient of the output; None for 0.
    d_lse : torch.Tensor [batch, head, query] or None
        Gradient of lse; None for 0.
    d_query, d_key, d_value : torch.Tensor, optional
        Where the gradients go, with any strides: views of one packed gradient, say. New contiguous
        tensors if not given. They are written, not added to.
    wants_query, wants_key_value : bool
        Which gradients are needed; the others are None.

    Returns
    -------
    d_query, d_key, d_value : torch.Tensor or None
    """
    if d_output is None:
        d_output = query.new_zeros(()).expand(query.shape)
    n_head, n_query, d_head = query.shape[1:]
    heads = {"GROUP": n_head // key.shape[1], "D_HEAD": d_head}
    delta = torch.empty_like(lse)
    launch(
        attention_backward_delta_kernel,
        tile_grid(query, "QUERY_TILE_BYTES"),
        *(strided(output), strided(d_output), strided(d_lse), delta, n_head, n_query),
        D_HEAD=d_head,
        QUERY_TILE_BYTES=DELTA_TILE_BYTES,
    )
    d_query = _buffer(d_query, query) if wants_query else None
    d_key = _buffer(d_key, key) if wants_key_value else None
    d_value = _buffer(d_value, value) if wants_key_value else None
    gradients = (d_query, d_key, d_value)
    saved = (query, key, value, d_output, lse, delta)
    if differentiated(*saved, gradients, masks=masks, scale=scale, dropout=dropout):
        return gradients
    tensors = (strided(query), lse, delta, strided(key), strided(value), strided(d_output))
    rest = (*mask_arguments(query, key, masks, dropout, seed), scale, scale * LOG2_E)
    if d_key is not None and d_value is not None:
        if n_query == 0:  # the kernel asks the first and the last query for their keys
            d_key.zero_()
            d_value.zero_()
        else:
            launch(
                KEY_VALUE_KERNELS[query.element_size()],
                tile_grid(key, "KEY_TILE_BYTES", summed_rows_per_tile),
                *(*tensors, strided(d_key), strided(d_value), *rest),
                **heads,
            )
    if d_query is not None:
        launch(
            attention_backward_query_kernel,
            tile_grid(query, "QUERY_TILE_BYTES"),
            *(*tensors, strided(d_query), *rest),
            **heads,
        )
    return d_query, d_key, d_value


def _buffer(given: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    contiguous = torch.contiguous_format
    return torch.empty_like(like, memory_format=contiguous) if given is None else given
