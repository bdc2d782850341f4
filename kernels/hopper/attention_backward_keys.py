"""The kernel that sums d_key and d_value; attention_backward.py tells its place.

A program owns 128 keys, 64 for each warpgroup, and walks along the queries that see them, head
after head of the group that shares the keys. Everything is transposed, [key, query], so that the
weights and the scores' gradient leave the first two products in the registers where the last two
want their left factor. Of each tile of queries:

    scores = key · queryᵀ          ░░░░░░░░
    d_p = value · d_outputᵀ − delta        ░░░░░░░░
    p = exp2(scores − lse)                 ▓▓▓▓▓▓▓▓
    value_sums + p · d_output                      ░░░░░░░░
    d_scores = p · d_p                             ▓▓▓▓
    key_sums + d_scores · query                            ░░░░░░░░    ░ tensor cores   ▓ the warps
                                   ──────────────────────────────► time
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from ..common.launch import launch
from .descriptors import described, described_numbers
from .products import (
    REGISTERS,
    ROWS,
    WARPGROUPS,
    WORKER_REGISTERS,
    as_factor,
    begin_row_products,
    begin_row_products_from,
    column_layout,
    row_layout,
    start_from,
    sums_layout,
)
from .rings import (
    arrived,
    copy_tile,
    fill_both,
    matrix,
    new_barriers,
    new_ring,
    new_tiles,
    release,
)
from .statistics import LOG2_E, as_exponent, new_numbers, numbers_of, only_inside

BLOCK_QUERIES = 64


@gluon.jit
def walk(tiles, turn, sums, own, rings, n_query, scale_log2_e, CAUSAL: gl.constexpr):
    """Add what a head's queries give to the sums of 64 keys: d_key / scale and d_value."""
    start, n_masked, end = tiles
    key, value, first_seeing = own
    queries, lse_rows, d_outputs, delta_rows = rings
    key_sums, value_sums = sums  # [key, feature]
    BLOCK: gl.constexpr = queries.tiles.shape[3]
    FEATURES: gl.constexpr = queries.tiles.shape[4]
    for j in range(start, end):
        query, d_output = arrived(queries, turn), arrived(d_outputs, turn)
        lse = numbers_of(queries, lse_rows, turn, column_layout(BLOCK))
        delta = numbers_of(d_outputs, delta_rows, turn, column_layout(BLOCK))
        lse = as_exponent(only_inside(lse, j * BLOCK, n_query, float("inf")))
        delta = only_inside(delta, j * BLOCK, n_query, 0.0)
        minus_delta = start_from(-delta[None, :], BLOCK)
        scores = begin_row_products(key, query)  # [key, query]
        d_p = begin_row_products_from(minus_delta, value, d_output)
        scores = warpgroup_mma_wait(1, deps=(scores,))  # the other product goes on
        p = gl.exp2(scores * scale_log2_e - lse[None, :])
        if CAUSAL and j < n_masked:
            here = j * BLOCK + gl.arange(0, BLOCK, column_layout(BLOCK))
            p = gl.where(here[None, :] >= first_seeing[:, None], p, 0.0)
        weights = as_factor(p, FEATURES, key.dtype)
        value_sums = warpgroup_mma(weights, d_output, value_sums, is_async=True)
        d_p = warpgroup_mma_wait(1, deps=(d_p,))  # the sum of values goes on
        d_scores = as_factor(p * d_p, FEATURES, key.dtype)
        key_sums = warpgroup_mma(d_scores, query, key_sums, is_async=True)
        key_sums, value_sums, _, _ = warpgroup_mma_wait(
            0, deps=(key_sums, value_sums, weights, d_scores)
        )
        fence_async_shared()  # before TMA writes where registers were loaded from: lse, delta
        release(queries, turn)
        release(d_outputs, turn)
        turn += 1
    return key_sums, value_sums


@gluon.jit
def differentiate(
    WARPGROUP: gl.constexpr,
    tensors,
    tiles,
    rings,
    ready,
    place,
    lengths,
    scales,
    GROUP: gl.constexpr,
    CAUSAL: gl.constexpr,
):
    """As a warpgroup: sum d_key and d_value of 64 keys."""
    d_key, d_value = tensors[4], tensors[5]
    key_tiles, value_tiles = tiles
    batch, kv_head, first_key, start, end = place
    n_query, n_key = lengths
    scale, scale_log2_e = scales
    BLOCK: gl.constexpr = rings[0].tiles.shape[3]
    FEATURES: gl.constexpr = rings[0].tiles.shape[4]

    first_key += WARPGROUP * ROWS
    mbarrier.wait(ready.index(WARPGROUP), 0)
    key, value = matrix(key_tiles.index(WARPGROUP)), matrix(value_tiles.index(WARPGROUP))
    nothing = gl.zeros([ROWS, FEATURES], gl.float32, sums_layout(FEATURES))
    sums = (nothing, nothing)
    # With a causal mask, the first query that sees each key; and from which tile on all see all.
    first_seeing = first_key + gl.arange(0, ROWS, row_layout(BLOCK)) - (n_key - n_query)
    n_masked = gl.cdiv(first_key + ROWS - 1 - (n_key - n_query), BLOCK)
    own = (key, value, first_seeing)
    for member in range(GROUP):
        turn = member * (end - start)
        sums = walk((start, n_masked, end), turn, sums, own, rings, n_query, scale_log2_e, CAUSAL)

    # No product reads the keys and values any more: their tiles take their gradients.
    key_sums, value_sums = sums
    key.store((key_sums * scale).to(key.dtype))
    value.store(value_sums.to(value.dtype))
    fence_async_shared()
    key_tile, value_tile = key_tiles.index(WARPGROUP), value_tiles.index(WARPGROUP)
    tma.async_store(d_key, [batch, kv_head, first_key, 0], key_tile)
    tma.async_store(d_value, [batch, kv_head, first_key, 0], value_tile)
    tma.store_wait(0)


@gluon.jit
def differentiate_first(
    tensors, tiles, rings, ready, place, lengths, scales, GROUP: gl.constexpr, CAUSAL: gl.constexpr
):
    """As the first warpgroup: sum the gradients of the tile's first 64 keys and values."""
    differentiate(0, tensors, tiles, rings, ready, place, lengths, scales, GROUP, CAUSAL)


@gluon.jit
def differentiate_second(
    tensors, tiles, rings, ready, place, lengths, scales, GROUP: gl.constexpr, CAUSAL: gl.constexpr
):
    """As the second warpgroup: sum those of the other 64."""
    differentiate(1, tensors, tiles, rings, ready, place, lengths, scales, GROUP, CAUSAL)


@gluon.jit
def produce(
    tensors, tiles, rings, ready, place, lengths, scales, GROUP: gl.constexpr, CAUSAL: gl.constexpr
):
    """As the producer: ask for what stays, then for each head's queries, tile after tile."""
    query, key, value, d_output, _, _, lse, delta, n_kv_head = tensors
    key_tiles, value_tiles = tiles
    queries, lse_rows, d_outputs, delta_rows = rings
    batch, kv_head, first_key, start, end = place
    n_query, _ = lengths
    BLOCK: gl.constexpr = queries.tiles.shape[3]
    for i in gl.static_range(WARPGROUPS):
        row = first_key + i * ROWS
        copy_tile(key, batch, kv_head, row, ready.index(i), key_tiles.index(i))
        copy_tile(value, batch, kv_head, row, ready.index(i), value_tiles.index(i))
    turn = 0
    for member in range(GROUP):
        head = kv_head * GROUP + member
        of_head = (batch * n_kv_head * GROUP + head) * n_query
        for j in range(start, end):
            row = j * BLOCK
            fill_both(queries, lse_rows, turn, query, batch, head, row, lse, of_head + row)
            fill_both(d_outputs, delta_rows, turn, d_output, batch, head, row, delta, of_head + row)
            turn += 1


@gluon.jit(do_not_specialize=["n_kv_head", "n_query", "n_key"])
def hopper_attention_backward_key_value_kernel(
    query,  # described [batch, head, query, d_head], in tiles of BLOCK_QUERIES
    key,  # described [batch, kv_head, key, d_head], in tiles of ROWS, like the next
    value,
    d_output,  # described as query
    d_key,  # described as key, written, like the next
    d_value,
    lse,  # described float32 [batch * head * query], like the next
    delta,
    n_kv_head,
    n_query,
    n_key,
    scale,
    scale_log2_e,
    GROUP: gl.constexpr,  # query heads for each key head
    CAUSAL: gl.constexpr,
    STAGES: gl.constexpr,
):
    """d_key and d_value of one tile of keys, from all query heads of its group."""
    TILE: gl.constexpr = ROWS * WARPGROUPS
    BLOCK: gl.constexpr = query.block_type.shape[2]
    n_key_tiles = gl.cdiv(n_key, TILE)
    tile = gl.program_id(0) % n_key_tiles  # with a causal mask the first is the longest
    batch_kv_head = gl.program_id(0) // n_key_tiles
    batch, kv_head = batch_kv_head // n_kv_head, batch_kv_head % n_kv_head
    start, end = tile * 0, gl.cdiv(n_query, BLOCK)
    if CAUSAL:
        start = gl.maximum(tile * TILE - (n_key - n_query), 0) // BLOCK
    place = (batch, kv_head, tile * TILE, start, end)

    tiles = (new_tiles(key, WARPGROUPS), new_tiles(value, WARPGROUPS))
    ready = new_barriers(WARPGROUPS, 2)  # a copy of keys, one of values
    queries, d_outputs = new_ring(query, STAGES, WARPGROUPS), new_ring(d_output, STAGES, WARPGROUPS)
    rings = (queries, new_numbers(lse, STAGES), d_outputs, new_numbers(delta, STAGES))
    fence_async_shared()  # TMA, too, sees that the barriers are new
    tensors = (query, key, value, d_output, d_key, d_value, lse, delta, n_kv_head)
    lengths, scales = (n_query, n_key), (scale, scale_log2_e)
    arguments = (tensors, tiles, rings, ready, place, lengths, scales, GROUP, CAUSAL)
    gl.warp_specialize(
        [(differentiate_first, arguments), (differentiate_second, arguments), (produce, arguments)],
        [4, 1],
        WORKER_REGISTERS,
    )


def key_value_backward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    d_output: torch.Tensor,
    lse: torch.Tensor,
    delta: torch.Tensor,
    d_key: torch.Tensor,
    d_value: torch.Tensor,
    *,
    causal: bool,
    scale: float,
    stages: int,
) -> None:
    """Launch it; arguments as of `attention_backward`."""
    n_batch, n_kv_head, n_key, _ = key.shape
    n_tiles = -(-n_key // (ROWS.value * WARPGROUPS.value))
    launch(
        hopper_attention_backward_key_value_kernel,
        (n_tiles * n_batch * n_kv_head,),
        described(query, BLOCK_QUERIES),
        *(described(x, ROWS.value) for x in (key, value)),
        described(d_output, BLOCK_QUERIES),
        *(described(x, ROWS.value) for x in (d_key, d_value)),
        *(described_numbers(x, BLOCK_QUERIES) for x in (lse, delta)),
        *(n_kv_head, query.shape[2], n_key, scale, scale * LOG2_E.value),
        GROUP=query.shape[1] // n_kv_head,
        CAUSAL=causal,
        STAGES=stages,
        num_warps=4,
        maxnreg=REGISTERS,
    )
