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

from ..common._triton import compiles_for_amd, tl, triton
from ..common.launch import launch
from ..common.registered import registered
from ..common.rows import tile_at
from .attention_backward_keys import KEY_VALUE_KERNELS, summed_rows_per_tile
from .attention_tiles import (
    LOG2_E,
    NOT_SPECIALIZED,
    TUNING_KEY,
    Masks,
    dropout_arguments,
    is_kept,
    key_interval,
    key_stretch,
    load_key_start,
    load_lse,
    load_rows,
    load_statistic,
    parts,
    place,
    row_products,
    rows_per_tile,
    tile_grid,
)

# In bytes: see rows_per_tile; for maxnreg, attention_backward_keys.py.
QUERY_CONFIGS = [
    triton.Config(
        {"QUERY_TILE_BYTES": 32768, "KEY_TILE_BYTES": 8192},
        num_warps=8, num_stages=2, maxnreg=255,
    ),
]  # fmt: skip
if compiles_for_amd():
    QUERY_CONFIGS = [
        triton.Config(
            {"QUERY_TILE_BYTES": 16384, "KEY_TILE_BYTES": 8192}, num_warps=4, num_stages=1
        ),
    ]
DELTA_TILE_BYTES = 16384


@triton.jit(do_not_specialize=["n_head", "n_query"])
def attention_backward_delta_kernel(
    output_ptr,  # [batch, head, query, d_head], any strides
    d_output_ptr,
    d_lse_ptr,  # [batch, head, query], any strides, or output_ptr if there is none
    delta_ptr,  # float32 [batch, head, query] contiguous, written
    n_head,
    n_query,
    output_batch_stride,
    output_head_stride,
    output_row_stride,
    output_feature_stride,
    d_output_batch_stride,
    d_output_head_stride,
    d_output_row_stride,
    d_output_feature_stride,
    d_lse_batch_stride,
    d_lse_head_stride,
    d_lse_row_stride,
    HAS_D_LSE: tl.constexpr,
    D_HEAD: tl.constexpr,
    BLOCK_D: tl.constexpr,
    QUERY_TILE_BYTES: tl.constexpr,
):
    """Compute delta − d_lse of a tile of queries."""
    ITEMSIZE: tl.constexpr = output_ptr.dtype.element_ty.primitive_bitwidth // 8
    BLOCK_QUERIES: tl.constexpr = rows_per_tile(QUERY_TILE_BYTES, D_HEAD, ITEMSIZE)
    tile, batch_head, batch, head = place(tl.cdiv(n_query, BLOCK_QUERIES), n_head, LAST_FIRST=False)
    batch, head = batch.to(tl.int64), head.to(tl.int64)
    queries = tile * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    features = tl.arange(0, BLOCK_D)
    inside = queries < n_query
    output = load_rows(
        output_ptr + batch * output_batch_stride + head * output_head_stride,
        queries, features, inside, output_row_stride, output_feature_stride, True, D_HEAD, BLOCK_D,
    )  # fmt: skip
    d_output = load_rows(
        d_output_ptr + batch * d_output_batch_stride + head * d_output_head_stride,
        queries, features, inside, d_output_row_stride, d_output_feature_stride,
        True, D_HEAD, BLOCK_D,
    )  # fmt: skip
    delta = tl.sum(output.to(tl.float32) * d_output.to(tl.float32), axis=1)
    if HAS_D_LSE:
        d_lse_at = (
            d_lse_ptr
            + batch * d_lse_batch_stride
            + head * d_lse_head_stride
            + queries.to(tl.int64) * d_lse_row_stride
        )
        delta -= tl.load(d_lse_at, mask=inside, other=0.0).to(tl.float32)
    tl.store(delta_ptr + batch_head.to(tl.int64) * n_query + queries, delta, mask=inside)


@triton.autotune(QUERY_CONFIGS, key=TUNING_KEY)
@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def attention_backward_query_kernel(
    query_ptr,  # as in the kernel above
    lse_ptr,
    delta_ptr,
    key_ptr,
    value_ptr,
    d_output_ptr,
    d_query_ptr,  # written
    key_start_ptr,
    document_start_ptr,
    document_end_ptr,
    n_head,
    n_query,
    n_key,
    length_bucket,
    window,
    seed,
    dropout_threshold,
    keep_scale,
    scale,
    scale_log2_e,
    query_batch_stride,
    query_head_stride,
    query_row_stride,
    query_feature_stride,
    key_batch_stride,
    key_head_stride,
    key_row_stride,
    key_feature_stride,
    value_batch_stride,
    value_head_stride,
    value_row_stride,
    value_feature_stride,
    d_output_batch_stride,
    d_output_head_stride,
    d_output_row_stride,
    d_output_feature_stride,
    d_query_batch_stride,
    d_query_head_stride,
    d_query_row_stride,
    d_query_feature_stride,
    CAUSAL: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_KEY_START: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    DROPOUT: tl.constexpr,
    GROUP: tl.constexpr,
    D_HEAD: tl.constexpr,
    BLOCK_D: tl.constexpr,
    QUERY_TILE_BYTES: tl.constexpr,
    KEY_TILE_BYTES: tl.constexpr,
):
    """d_query of one tile of queries of one head."""
    ITEMSIZE: tl.constexpr = query_ptr.dtype.element_ty.primitive_bitwidth // 8
    BLOCK_QUERIES: tl.constexpr = rows_per_tile(QUERY_TILE_BYTES, D_HEAD, ITEMSIZE)
    # Dropout's random numbers need registers: half as many keys stream past at a time.
    BLOCK_KEYS: tl.constexpr = rows_per_tile(
        KEY_TILE_BYTES // 2 if DROPOUT else KEY_TILE_BYTES, D_HEAD, ITEMSIZE
    )
    LOW_VARIES: tl.constexpr = HAS_WINDOW or HAS_DOCUMENTS
    tile, batch_head, batch, head = place(
        tl.cdiv(n_query, BLOCK_QUERIES), n_head, LAST_FIRST=CAUSAL
    )
    first_query = tile * BLOCK_QUERIES
    queries = first_query + tl.arange(0, BLOCK_QUERIES)
    features = tl.arange(0, BLOCK_D)
    row_inside = queries < n_query

    key_start = load_key_start(key_start_ptr, batch, HAS_KEY_START)
    low, high = key_interval(
        queries, key_start, n_query, n_key, window, document_start_ptr, document_end_ptr,
        CAUSAL, HAS_WINDOW, HAS_DOCUMENTS,
    )  # fmt: skip
    start, full_start, full_end, end = key_stretch(
        first_query, BLOCK_QUERIES, key_start, n_query, n_key, window,
        document_start_ptr, document_end_ptr, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS,
    )  # fmt: skip
    starts, ends = parts(start, full_start, full_end, end, BLOCK_KEYS)

    batch, head = batch.to(tl.int64), head.to(tl.int64)
    kv_head = head // GROUP
    query_ptr += batch * query_batch_stride + head * query_head_stride
    d_output_ptr += batch * d_output_batch_stride + head * d_output_head_stride
    key_ptr += batch * key_batch_stride + kv_head * key_head_stride
    value_ptr += batch * value_batch_stride + kv_head * value_head_stride
    sees = row_inside & (low < high)
    query = load_rows(
        query_ptr, queries, features, sees, query_row_stride, query_feature_stride,
        True, D_HEAD, BLOCK_D,
    )  # fmt: skip
    d_output = load_rows(
        d_output_ptr, queries, features, sees, d_output_row_stride, d_output_feature_stride,
        True, D_HEAD, BLOCK_D,
    )  # fmt: skip
    of_head = batch_head.to(tl.int64) * n_query
    lse = load_lse(lse_ptr + of_head, queries, sees, True)
    delta = load_statistic(delta_ptr + of_head, queries, sees, 0.0, True)

    d_query = tl.zeros([BLOCK_QUERIES, BLOCK_D], tl.float32)
    in_block = tl.arange(0, BLOCK_KEYS)
    for part in tl.static_range(0 if LOW_VARIES else 1, 3):
        for first_key in range(starts[part], ends[part], BLOCK_KEYS):
            keys = first_key + in_block
            inside = in_block < ends[part] - first_key
            first = tl.cast(first_key, tl.int64)
            key_tile_ptr = key_ptr + first * key_row_stride
            key = load_rows(
                key_tile_ptr, in_block, features, inside,
                key_row_stride, key_feature_stride, part != 1, D_HEAD, BLOCK_D,
            )  # fmt: skip
            scores = row_products(  # [queries, keys]
                query, key, query_ptr, queries, sees, query_row_stride, query_feature_stride,
                key_tile_ptr, in_block, inside, key_row_stride, key_feature_stride,
                part != 1, D_HEAD, BLOCK_D,
            )  # fmt: skip
            p = tl.exp2(scores * scale_log2_e - lse[:, None])
            if part != 1:
                seen = keys[None, :] < high[:, None]
                if LOW_VARIES:  # elsewhere the keys start at low
                    seen = seen & (keys[None, :] >= low[:, None])
                p = tl.where(seen, p, 0.0)
            value_tile_ptr = value_ptr + first * value_row_stride
            value = load_rows(
                value_tile_ptr, in_block, features, inside,
                value_row_stride, value_feature_stride, part != 1, D_HEAD, BLOCK_D,
            )  # fmt: skip
            d_p = row_products(  # [queries, keys]
                d_output, value, d_output_ptr, queries, sees,
                d_output_row_stride, d_output_feature_stride,
                value_tile_ptr, in_block, inside, value_row_stride, value_feature_stride,
                part != 1, D_HEAD, BLOCK_D,
            )  # fmt: skip
            if DROPOUT:
                kept = is_kept(
                    seed, dropout_threshold, batch_head, queries[:, None], keys[None, :]
                )  # fmt: skip
                d_p = tl.where(kept, d_p * keep_scale, 0.0)
            d_scores = (p * (d_p - delta[:, None])).to(key.dtype)
            d_query = tl.dot(d_scores, key, d_query, input_precision="ieee")
    d_query_at = tile_at(
        d_query_ptr + batch * d_query_batch_stride + head * d_query_head_stride,
        queries.to(tl.int64), features, d_query_row_stride, d_query_feature_stride,
    )  # fmt: skip
    inside = row_inside[:, None] & (features < D_HEAD)[None, :]
    tl.store(d_query_at, d_query * scale, mask=inside)


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
    n_batch, n_head, n_query, _ = query.shape
    n_kv_head, n_key = key.shape[1:3]
    if d_output is None:
        d_output = query.new_zeros(()).expand(query.shape)
    constants = masks.constants(query, key, dropout)
    heads = {"D_HEAD": constants["D_HEAD"], "BLOCK_D": constants["BLOCK_D"]}
    delta = torch.empty_like(lse)
    launch(
        attention_backward_delta_kernel,
        tile_grid(n_query, n_batch * n_head, query, heads["D_HEAD"], "QUERY_TILE_BYTES"),
        *(output, d_output, output if d_lse is None else d_lse, delta, n_head, n_query),
        *output.stride(),
        *d_output.stride(),
        *((0, 0, 0) if d_lse is None else d_lse.stride()),
        HAS_D_LSE=d_lse is not None,
        QUERY_TILE_BYTES=DELTA_TILE_BYTES,
        **heads,
    )
    tensors = (query, lse, delta, key, value, d_output)
    numbers = (
        *masks.arguments(query, key),
        *dropout_arguments(dropout, seed),
        *(scale, scale * LOG2_E),
        *query.stride(),
        *key.stride(),
        *value.stride(),
        *d_output.stride(),
    )
    if wants_key_value:
        d_key = _buffer(d_key, key)
        d_value = _buffer(d_value, value)
        if n_query == 0:  # there is no first and no last query to ask for its keys
            d_key.zero_()
            d_value.zero_()
        else:
            launch(
                KEY_VALUE_KERNELS[query.element_size()],
                tile_grid(
                    n_key,
                    n_batch * n_kv_head,
                    key,
                    heads["D_HEAD"],
                    "KEY_TILE_BYTES",
                    summed_rows_per_tile,
                ),
                *(*tensors, d_key, d_value, *numbers, *d_key.stride(), *d_value.stride()),
                **constants,
            )
    if wants_query:
        d_query = _buffer(d_query, query)
        launch(
            attention_backward_query_kernel,
            tile_grid(n_query, n_batch * n_head, query, heads["D_HEAD"], "QUERY_TILE_BYTES"),
            *(*tensors, d_query, *numbers, *d_query.stride()),
            **constants,
        )
    return d_query, d_key, d_value


def _buffer(given: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    contiguous = torch.contiguous_format
    return torch.empty_like(like, memory_format=contiguous) if given is None else given
