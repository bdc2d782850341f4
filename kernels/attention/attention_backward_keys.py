"""The kernel that sums d_key and d_value; attention_backward.py tells its place.

A program owns a tile of keys and walks along the queries that see it, head after head of the group
that shares these keys: the sum over the group is made in its registers, in one order. Everything
is transposed, [keys, queries], so that the weights and the scores' gradient leave the first two
products as the left side of the last two.
"""

from ..common._triton import compiles_for_amd, tl, triton
from ..common.rows import tile_at
from .attention_tiles import (
    NOT_SPECIALIZED,
    SMALLEST_BLOCK,
    SMALLEST_D,
    TUNING_KEY,
    is_kept,
    key_interval,
    load_key_start,
    load_lse,
    load_rows,
    load_statistic,
    parts,
    place,
    query_stretch,
    row_products,
    rows_per_tile,
)

# In bytes: see rows_per_tile. In 2-byte floats 128 keys × 64 queries at d_head 64, 64 × 32 at 128:
# the two sums take half of the registers of 8 warps there, and with 128 keys sm_80 spills, as both
# sm_80 and sm_90 do with 4 warps. maxnreg, all that there are, keeps ptxas from spilling a few
# registers for the sake of one more program on a multiprocessor. Lists by the bytes of a number:
# in float32 ptxas moves loads ahead for as long as there are registers, and at d_head 128 on sm_100
# a few more: with 255 it spills there, with 128 to 192 elsewhere, with 240 nowhere.
KEY_VALUE_CONFIGS = {
    itemsize: [
        triton.Config(
            {"KEY_TILE_BYTES": 16384, "QUERY_TILE_BYTES": 8192},
            num_warps=8, num_stages=2, maxnreg=maxnreg,
        ),
    ]
    for itemsize, maxnreg in ((2, 255), (4, 240))
}  # fmt: skip
if compiles_for_amd():
    KEY_VALUE_CONFIGS = {
        itemsize: [
            triton.Config(
                {"KEY_TILE_BYTES": 16384, "QUERY_TILE_BYTES": 4096}, num_warps=4, num_stages=1
            ),
        ]
        for itemsize in (2, 4)
    }


@triton.constexpr_function
def summed_rows_per_tile(tile_bytes, d_head, itemsize):
    """Like rows_per_tile; but of float32 down to 16 rows, for there are two sums in registers."""
    return rows_per_tile(
        tile_bytes, d_head, itemsize, SMALLEST_D if itemsize == 4 else SMALLEST_BLOCK
    )


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def attention_backward_key_value_kernel(
    query_ptr,  # [batch, head, query, d_head], any strides, like all but the next two
    lse_ptr,  # float32 [batch, head, query] contiguous
    delta_ptr,
    key_ptr,  # [batch, kv_head, key, d_head]
    value_ptr,
    d_output_ptr,
    d_key_ptr,  # written
    d_value_ptr,  # written
    key_start_ptr,  # int32 [batch], or query_ptr if there is none; likewise the next two
    document_start_ptr,  # int32 [query]
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
    d_key_batch_stride,
    d_key_head_stride,
    d_key_row_stride,
    d_key_feature_stride,
    d_value_batch_stride,
    d_value_head_stride,
    d_value_row_stride,
    d_value_feature_stride,
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
    """d_key and d_value of one tile of keys, from all query heads of its group."""
    ITEMSIZE: tl.constexpr = query_ptr.dtype.element_ty.primitive_bitwidth // 8
    # Dropout's random numbers need registers, and NVIDIA's products on other chips than sm_90 read
    # their operands from there: half as many queries stream past at a time.
    FROM_REGISTERS: tl.constexpr = tl.target_info.is_cuda() and (
        not tl.target_info.cuda_capability_geq(9) or tl.target_info.cuda_capability_geq(10)
    )
    BLOCK_QUERIES: tl.constexpr = summed_rows_per_tile(
        QUERY_TILE_BYTES // 2 if DROPOUT or FROM_REGISTERS else QUERY_TILE_BYTES, D_HEAD, ITEMSIZE
    )
    BLOCK_KEYS: tl.constexpr = summed_rows_per_tile(KEY_TILE_BYTES, D_HEAD, ITEMSIZE)
    # With loads in flight sm_100 spills at d_head 128, whichever the tiles; None: as configured.
    STAGES: tl.constexpr = 1 if tl.target_info.cuda_capability_geq(10) and BLOCK_D >= 128 else None
    # With a causal mask the first keys are seen by the most queries: the first tile is the longest.
    tile, _, batch, kv_head = place(tl.cdiv(n_key, BLOCK_KEYS), n_head // GROUP, LAST_FIRST=False)
    first_key = tile * BLOCK_KEYS
    keys = first_key + tl.arange(0, BLOCK_KEYS)
    features = tl.arange(0, BLOCK_D)

    # Which of these keys anyone sees: from the first query's low to the last one's high.
    key_start = load_key_start(key_start_ptr, batch, HAS_KEY_START)
    first_seen, _ = key_interval(
        batch * 0, key_start, n_query, n_key, window, document_start_ptr, document_end_ptr,
        CAUSAL, HAS_WINDOW, HAS_DOCUMENTS,
    )  # fmt: skip
    _, end_seen = key_interval(
        batch * 0 + n_query - 1, key_start, n_query, n_key, window, document_start_ptr,
        document_end_ptr, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS,
    )  # fmt: skip
    first_seen = tl.maximum(first_seen, first_key)
    end_seen = tl.minimum(end_seen, first_key + BLOCK_KEYS)
    is_seen = (keys >= first_seen) & (keys < end_seen)
    start, full_start, full_end, end = query_stretch(
        first_seen, end_seen, n_query, n_key, window, document_start_ptr, document_end_ptr,
        CAUSAL, HAS_WINDOW, HAS_DOCUMENTS,
    )  # fmt: skip
    starts, ends = parts(start, full_start, full_end, end, BLOCK_QUERIES)

    wide_batch, wide_head = batch.to(tl.int64), kv_head.to(tl.int64)
    key_of_head = key_ptr + wide_batch * key_batch_stride + wide_head * key_head_stride
    key = load_rows(
        key_of_head, keys, features, is_seen, key_row_stride, key_feature_stride,
        True, D_HEAD, BLOCK_D,
    )  # fmt: skip
    value_of_head = value_ptr + wide_batch * value_batch_stride + wide_head * value_head_stride
    value = load_rows(
        value_of_head, keys, features, is_seen, value_row_stride, value_feature_stride,
        True, D_HEAD, BLOCK_D,
    )  # fmt: skip
    in_block = tl.arange(0, BLOCK_QUERIES)
    d_key = tl.zeros([BLOCK_KEYS, BLOCK_D], tl.float32)
    d_value = tl.zeros([BLOCK_KEYS, BLOCK_D], tl.float32)
    for member in range(0, GROUP):
        head = kv_head * GROUP + member
        batch_head = batch * n_head + head
        wide_head = head.to(tl.int64)
        query_of_head = query_ptr + wide_batch * query_batch_stride + wide_head * query_head_stride
        d_output_of_head = (
            d_output_ptr + wide_batch * d_output_batch_stride + wide_head * d_output_head_stride
        )
        of_head = (wide_batch * n_head + wide_head) * n_query
        for part in tl.static_range(0 if CAUSAL or HAS_DOCUMENTS else 1, 3):
            for first_query in tl.range(starts[part], ends[part], BLOCK_QUERIES, num_stages=STAGES):
                queries = first_query + in_block
                inside = in_block < ends[part] - first_query
                first = tl.cast(first_query, tl.int64)
                query_tile_ptr = query_of_head + first * query_row_stride
                query = load_rows(
                    query_tile_ptr, in_block, features, inside,
                    query_row_stride, query_feature_stride, part != 1, D_HEAD, BLOCK_D,
                )  # fmt: skip
                lse = load_lse(lse_ptr + of_head, queries, inside, part != 1)
                scores = row_products(  # [keys, queries]
                    key, query, key_of_head, keys, is_seen, key_row_stride, key_feature_stride,
                    query_tile_ptr, in_block, inside, query_row_stride, query_feature_stride,
                    part != 1, D_HEAD, BLOCK_D,
                )  # fmt: skip
                p = tl.exp2(scores * scale_log2_e - lse[None, :])
                if part != 1:
                    low, high = key_interval(
                        queries, key_start, n_query, n_key, window, document_start_ptr,
                        document_end_ptr, CAUSAL, HAS_WINDOW, HAS_DOCUMENTS,
                    )  # fmt: skip
                    seen = keys[:, None] < high[None, :]
                    if HAS_WINDOW or HAS_DOCUMENTS:  # elsewhere low is the same for all
                        seen = seen & (keys[:, None] >= low[None, :])
                    p = tl.where(seen, p, 0.0)
                d_output_tile_ptr = d_output_of_head + first * d_output_row_stride
                d_output = load_rows(
                    d_output_tile_ptr, in_block, features, inside,
                    d_output_row_stride, d_output_feature_stride, part != 1, D_HEAD, BLOCK_D,
                )  # fmt: skip
                weights = p
                d_p = row_products(
                    value, d_output, value_of_head, keys, is_seen,
                    value_row_stride, value_feature_stride, d_output_tile_ptr, in_block, inside,
                    d_output_row_stride, d_output_feature_stride, part != 1, D_HEAD, BLOCK_D,
                )  # fmt: skip
                if DROPOUT:
                    kept = is_kept(
                        seed, dropout_threshold, batch_head, queries[None, :], keys[:, None]
                    )  # fmt: skip
                    weights = tl.where(kept, weights, 0.0)
                    d_p = tl.where(kept, d_p * keep_scale, 0.0)
                weights = weights.to(d_output.dtype)
                d_value = tl.dot(weights, d_output, d_value, input_precision="ieee")
                delta = load_statistic(delta_ptr + of_head, queries, inside, 0.0, part != 1)
                d_scores = (p * (d_p - delta[None, :])).to(query.dtype)
                d_key = tl.dot(d_scores, query, d_key, input_precision="ieee")

    # Where nobody sees a key, its zeros were scored like any other in the loop without a mask.
    d_key = tl.where(is_seen[:, None], d_key * scale, 0.0)
    d_value = tl.where(is_seen[:, None], d_value * keep_scale, 0.0)
    wide_head = kv_head.to(tl.int64)
    inside = (keys < n_key)[:, None] & (features < D_HEAD)[None, :]
    d_key_at = tile_at(
        d_key_ptr + wide_batch * d_key_batch_stride + wide_head * d_key_head_stride,
        keys.to(tl.int64), features, d_key_row_stride, d_key_feature_stride,
    )  # fmt: skip
    d_value_at = tile_at(
        d_value_ptr + wide_batch * d_value_batch_stride + wide_head * d_value_head_stride,
        keys.to(tl.int64), features, d_value_row_stride, d_value_feature_stride,
    )  # fmt: skip
    tl.store(d_key_at, d_key, mask=inside)
    tl.store(d_value_at, d_value, mask=inside)


# By the bytes of a number.
KEY_VALUE_KERNELS = {
    itemsize: triton.autotune(configs, key=[*TUNING_KEY, "GROUP"])(
        attention_backward_key_value_kernel
    )
    for itemsize, configs in KEY_VALUE_CONFIGS.items()
}
