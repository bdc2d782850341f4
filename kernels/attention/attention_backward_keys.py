"""The kernel that sums d_key and d_value; attention_backward.py tells its place.

A program owns a tile of keys and walks along the queries that see it, head after head of the group
that shares these keys: the sum over the group is made in its registers, in one order. Everything
is transposed, [keys, queries], so that the weights and the scores' gradient leave the first two
products as the left side of the last two.
"""

from ..common._triton import for_architecture, tl, triton
from .attention_tiles import (
    NOT_SPECIALIZED,
    SMALLEST_BLOCK,
    SMALLEST_D,
    TUNING_KEY,
    features_per_tile,
    from_row,
    head_of,
    is_kept,
    key_interval,
    load_key_start,
    load_lse,
    load_statistic,
    load_tile,
    parts,
    place,
    query_stretch,
    row_products,
    rows_per_tile,
    store_tile,
    tiles,
)

# A list for each number of bytes. In 2-byte floats it is 128 keys × 64 queries at d_head 64, and
# 64 × 32 at 128: there the two sums take half of the registers of 8 warps, and with 128 keys sm_80
# spills. On sm_90 128 keys fit, and are needed: 8 warps would share out 64 keys in products of 16
# columns, which wait for shared memory. With two stages a turn would begin with waiting for its own
# copies. maxnreg allows all registers that there are: left alone, ptxas spills a few to fit one
# more program on a multiprocessor.
#
# In float32 ptxas moves loads ahead until the registers are used up, and at d_head 128 on sm_100
# beyond that. It spills there with 255 registers, on sm_90 with 240, elsewhere with 128 to 192, and
# nowhere with 232.
KEY_VALUE_CONFIGS = {
    2: for_architecture(
        [tiles(8192, 16384, 8, 3, maxnreg=255)],
        sm_90=[tiles(8192, 32768, 8, 3, maxnreg=255)],
        amd=[tiles(4096, 16384, 4, 1)],
    ),
    4: for_architecture(
        [tiles(8192, 16384, 8, 2, maxnreg=232)],
        amd=[tiles(4096, 16384, 4, 1)],
    ),
}


@triton.constexpr_function
def summed_rows_per_tile(tile_bytes, d_head, itemsize):
    """Like rows_per_tile; but of float32 down to 16 rows, for there are two sums in registers."""
    return rows_per_tile(
        tile_bytes, d_head, itemsize, SMALLEST_D if itemsize == 4 else SMALLEST_BLOCK
    )


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def attention_backward_key_value_kernel(
    query,  # [batch, head, query, d_head]
    lse_ptr,  # float32 [batch, head, query] contiguous
    delta_ptr,
    key,  # [batch, kv_head, key, d_head]
    value,
    d_output,  # [batch, head, query, d_head]
    d_key,  # [batch, kv_head, key, d_head], written
    d_value,
    masks,  # Masks
    dropout,  # Dropout or None
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
    """d_key and d_value of one tile of keys, from all query heads of its group."""
    ITEMSIZE: tl.constexpr = query.ptr.dtype.element_ty.primitive_bitwidth // 8
    # Dropout's random numbers need registers, and so do the operands of products on NVIDIA's chips
    # other than sm_90. With either, half as many queries stream past at a time.
    FROM_REGISTERS: tl.constexpr = tl.target_info.is_cuda() and (
        not tl.target_info.cuda_capability_geq(9) or tl.target_info.cuda_capability_geq(10)
    )
    HALF: tl.constexpr = dropout is not None or FROM_REGISTERS
    BLOCK_QUERIES: tl.constexpr = summed_rows_per_tile(
        QUERY_TILE_BYTES // 2 if HALF else QUERY_TILE_BYTES, D_HEAD, ITEMSIZE
    )
    BLOCK_KEYS: tl.constexpr = summed_rows_per_tile(KEY_TILE_BYTES, D_HEAD, ITEMSIZE)
    BLOCK_D: tl.constexpr = features_per_tile(D_HEAD)
    # At d_head 128 sm_100 spills whenever loads are in flight. None leaves it as configured.
    STAGES: tl.constexpr = 1 if tl.target_info.cuda_capability_geq(10) and BLOCK_D >= 128 else None
    LOW_VARIES: tl.constexpr = masks.window is not None or masks.document_start is not None
    # Without these masks the first query sees every key that the last one sees.
    HIGH_VARIES: tl.constexpr = masks.causal or masks.document_start is not None
    # With a causal mask the first keys are seen by the most queries: the first tile is the longest.
    n_tiles = tl.cdiv(n_key, BLOCK_KEYS)
    tile, _, batch, kv_head = place(n_tiles, n_head // GROUP, LAST_FIRST=False)
    first_key = tile * BLOCK_KEYS
    keys = first_key + tl.arange(0, BLOCK_KEYS)
    in_block = tl.arange(0, BLOCK_QUERIES)

    # The keys that some query sees go from the first query's low to the last one's high.
    key_start = load_key_start(batch, n_key, masks)
    first_seen, _ = key_interval(batch * 0, key_start, n_query, n_key, masks)
    _, end_seen = key_interval(batch * 0 + n_query - 1, key_start, n_query, n_key, masks)
    first_seen = tl.maximum(first_seen, first_key)
    end_seen = tl.minimum(end_seen, first_key + BLOCK_KEYS)
    is_seen = (keys >= first_seen) & (keys < end_seen)
    start, full_start, full_end, end = query_stretch(first_seen, end_seen, n_query, n_key, masks)
    starts, ends = parts(start, full_start, full_end, end, BLOCK_QUERIES)

    key_tile = load_tile(head_of(key, batch, kv_head), keys, is_seen, True, D_HEAD)
    value_tile = load_tile(head_of(value, batch, kv_head), keys, is_seen, True, D_HEAD)
    key_sums = tl.zeros([BLOCK_KEYS, BLOCK_D], tl.float32)
    value_sums = tl.zeros([BLOCK_KEYS, BLOCK_D], tl.float32)
    # Addresses that Triton moved ahead of this loop would take registers, and spill.
    for member in tl.range(0, GROUP, disable_licm=True):
        head = kv_head * GROUP + member
        batch_head = batch * n_head + head
        query_rows, d_output_rows = head_of(query, batch, head), head_of(d_output, batch, head)
        of_head = (batch.to(tl.int64) * n_head + head) * n_query
        # Part 1 needs no mask. Part 0, before it, is empty unless the first queries see less.
        for part in tl.static_range(0 if HIGH_VARIES else 1, 3):
            for first_query in tl.range(starts[part], ends[part], BLOCK_QUERIES, num_stages=STAGES):
                queries = first_query + in_block
                inside = in_block < ends[part] - first_query
                query_tile = load_tile(
                    from_row(query_rows, first_query), in_block, inside, part != 1, D_HEAD
                )
                lse = load_lse(lse_ptr + of_head, queries, inside, part != 1)
                scores = row_products(key_tile, query_tile, part != 1, D_HEAD)  # [key, query]
                p = tl.exp2(scores * scale_log2_e - lse[None, :])
                if part != 1:
                    low, high = key_interval(queries, key_start, n_query, n_key, masks)
                    seen = keys[:, None] < high[None, :]
                    if LOW_VARIES:
                        seen = seen & (keys[:, None] >= low[None, :])
                    p = tl.where(seen, p, 0.0)
                d_output_tile = load_tile(
                    from_row(d_output_rows, first_query), in_block, inside, part != 1, D_HEAD
                )
                weights = p
                d_p = row_products(value_tile, d_output_tile, part != 1, D_HEAD)  # [key, query]
                if dropout is not None:
                    kept = is_kept(dropout, seed, batch_head, queries[None, :], keys[:, None])
                    weights = tl.where(kept, weights, 0.0)
                    d_p = tl.where(kept, d_p * dropout.keep_scale, 0.0)
                weights = weights.to(d_output_tile.block.dtype)
                value_sums = tl.dot(
                    weights, d_output_tile.block, value_sums, input_precision="ieee"
                )
                delta = load_statistic(delta_ptr + of_head, queries, inside, 0.0, part != 1)
                d_scores = (p * (d_p - delta[None, :])).to(query_tile.block.dtype)
                key_sums = tl.dot(d_scores, query_tile.block, key_sums, input_precision="ieee")

    # The loop without a mask also scored the zeros that stand for keys that nobody sees.
    keep_scale = 1.0 if dropout is None else dropout.keep_scale
    key_sums = tl.where(is_seen[:, None], key_sums * scale, 0.0)
    value_sums = tl.where(is_seen[:, None], value_sums * keep_scale, 0.0)
    store_tile(head_of(d_key, batch, kv_head), keys, key_sums, keys < n_key, D_HEAD)
    store_tile(head_of(d_value, batch, kv_head), keys, value_sums, keys < n_key, D_HEAD)


# One kernel for each number of bytes.
KEY_VALUE_KERNELS = {
    itemsize: triton.autotune(configs, key=[*TUNING_KEY, "GROUP"])(
        attention_backward_key_value_kernel
    )
    for itemsize, configs in KEY_VALUE_CONFIGS.items()
}
