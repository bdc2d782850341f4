"""The gradients of attention for Hopper: attention_backward.py with its work shared out.

Mathematics and tiling are those of kernels/attention/attention_backward.py, whose delta kernel runs
before these. As there, d_query is summed by who owns a tile of queries, while keys and values
stream past (this file), and d_key and d_value by who owns a tile of keys, while queries and
gradients of the output stream past (attention_backward_keys.py). As in attention.py one warp copies
and two warpgroups multiply, 64 rows of the tile each.

For d_query, of each tile of keys:

    scores = query · keyᵀ        ░░░░░░░░
    d_p = d_output · valueᵀ − delta      ░░░░░░░░
    p = exp2(scores − lse)               ▓▓▓▓▓▓▓▓
    d_scores = p · d_p                           ▓▓▓▓
    sums + d_scores · key                            ░░░░░░░░     ░ tensor cores   ▓ the warps
                                 ──────────────────────────► time

delta is what the second product's sums start from: to be subtracted later, it would have to be kept
in registers. Where one warpgroup's tensor cores rest the other's products run.
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
from .attention_backward_keys import key_value_backward
from .descriptors import described
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
from .rings import arrived, copy_tile, fill, matrix, new_barriers, new_ring, new_tiles, release
from .statistics import LOG2_E, as_exponent, load_rows

BLOCK_KEYS = 64
# Tiles of a ring: a turn of d_head 64 is over before a copy from memory is there. One program
# resides on a multiprocessor, whose registers are all taken: shared memory is there for the asking.
STAGES = 4


@gluon.jit
def walk(n_full, end, sums, own, keys, values, high, scale_log2_e):
    """Sum d_query / scale, [query, feature], over tiles of keys, those from n_full on masked."""
    query, d_output, lse, delta = own
    BLOCK: gl.constexpr = keys.tiles.shape[3]
    FEATURES: gl.constexpr = keys.tiles.shape[4]
    for j in range(end):
        key, value = arrived(keys, j), arrived(values, j)
        minus_delta = start_from(-delta[:, None], BLOCK)
        scores = begin_row_products(query, key)
        d_p = begin_row_products_from(minus_delta, d_output, value)
        scores = warpgroup_mma_wait(1, deps=(scores,))  # the other product goes on
        p = gl.exp2(scores * scale_log2_e - lse[:, None])
        if j >= n_full:
            keys_here = j * BLOCK + gl.arange(0, BLOCK, column_layout(BLOCK))
            p = gl.where(keys_here[None, :] < high[:, None], p, 0.0)
        d_p, p = warpgroup_mma_wait(0, deps=(d_p, p))
        release(values, j)
        d_scores = as_factor(p * d_p, FEATURES, query.dtype)
        sums = warpgroup_mma(d_scores, key, sums, is_async=True)
        sums, _ = warpgroup_mma_wait(0, deps=(sums, d_scores))
        release(keys, j)
    return sums


@gluon.jit
def differentiate(
    WARPGROUP: gl.constexpr, tensors, rings, ready, place, lengths, scales, CAUSAL: gl.constexpr
):
    """As a warpgroup: sum d_query of 64 queries."""
    d_query, lse_ptr, delta_ptr = tensors[4], tensors[5], tensors[6]
    query_tiles, d_output_tiles, keys, values = rings
    batch, head, batch_head, _, first_query, n_tiles = place
    n_query, n_key = lengths
    scale, scale_log2_e = scales
    BLOCK: gl.constexpr = keys.tiles.shape[3]
    FEATURES: gl.constexpr = keys.tiles.shape[4]

    first_query += WARPGROUP * ROWS
    queries = first_query + gl.arange(0, ROWS, row_layout(BLOCK))
    high = queries * 0 + n_key
    n_full = n_key // BLOCK  # tiles that all of these queries see whole
    if CAUSAL:
        high = gl.minimum(high, queries + (n_key - n_query) + 1)
        n_full = gl.minimum(n_full, (first_query + (n_key - n_query) + 1) // BLOCK)
    of_head = batch_head.to(gl.int64) * n_query
    lse = as_exponent(load_rows(lse_ptr + of_head, queries, n_query))
    delta = load_rows(delta_ptr + of_head, queries, n_query)

    mbarrier.wait(ready.index(WARPGROUP), 0)
    query = matrix(query_tiles.index(WARPGROUP))
    own = (query, matrix(d_output_tiles.index(WARPGROUP)), lse, delta)
    sums = gl.zeros([ROWS, FEATURES], gl.float32, sums_layout(FEATURES))
    sums = walk(n_full, n_tiles, sums, own, keys, values, high, scale_log2_e)

    # No product reads the queries any more: their tile takes their gradient.
    query.store((sums * scale).to(query.dtype))
    fence_async_shared()
    d_query_tile = query_tiles.index(WARPGROUP)
    tma.async_store(d_query, [batch, head, first_query, 0], d_query_tile)
    tma.store_wait(0)


@gluon.jit
def differentiate_first(tensors, rings, ready, place, lengths, scales, CAUSAL: gl.constexpr):
    """As the first warpgroup: sum d_query of the tile's first 64 queries."""
    differentiate(0, tensors, rings, ready, place, lengths, scales, CAUSAL)


@gluon.jit
def differentiate_second(tensors, rings, ready, place, lengths, scales, CAUSAL: gl.constexpr):
    """As the second warpgroup: sum d_query of the other 64."""
    differentiate(1, tensors, rings, ready, place, lengths, scales, CAUSAL)


@gluon.jit
def produce(tensors, rings, ready, place, lengths, scales, CAUSAL: gl.constexpr):
    """As the producer: ask for what stays, then for one tile of keys and values after another."""
    query, key, value, d_output = tensors[0], tensors[1], tensors[2], tensors[3]
    query_tiles, d_output_tiles, keys, values = rings
    batch, head, _, kv_head, first_query, n_tiles = place
    BLOCK: gl.constexpr = keys.tiles.shape[3]
    for i in gl.static_range(WARPGROUPS):
        row = first_query + i * ROWS
        copy_tile(query, batch, head, row, ready.index(i), query_tiles.index(i))
        copy_tile(d_output, batch, head, row, ready.index(i), d_output_tiles.index(i))
    for j in range(n_tiles):
        fill(keys, j, key, batch, kv_head, j * BLOCK)
        fill(values, j, value, batch, kv_head, j * BLOCK)


@gluon.jit(do_not_specialize=["n_head", "n_query", "n_key"])
def hopper_attention_backward_query_kernel(
    query,  # described [batch, head, query, d_head], in tiles of ROWS
    key,  # described [batch, kv_head, key, d_head], in tiles of BLOCK_KEYS, like the next
    value,
    d_output,  # described as query
    d_query,  # described as query, written
    lse_ptr,  # float32 [batch, head, query] contiguous, like the next
    delta_ptr,
    n_head,
    n_query,
    n_key,
    scale,
    scale_log2_e,
    GROUP: gl.constexpr,  # query heads for each key head
    CAUSAL: gl.constexpr,
    STAGES: gl.constexpr,
):
    """d_query of one tile of queries of one head; every query sees a key."""
    TILE: gl.constexpr = ROWS * WARPGROUPS
    BLOCK: gl.constexpr = key.block_type.shape[2]
    n_query_tiles = gl.cdiv(n_query, TILE)
    tile = gl.program_id(0) % n_query_tiles
    batch_head = gl.program_id(0) // n_query_tiles
    end = n_key
    if CAUSAL:
        tile = n_query_tiles - 1 - tile  # the longest first
        last_query = gl.minimum((tile + 1) * TILE, n_query) - 1
        end = gl.minimum(end, last_query + (n_key - n_query) + 1)
    batch, head = batch_head // n_head, batch_head % n_head
    place = (batch, head, batch_head, head // GROUP, tile * TILE, gl.cdiv(end, BLOCK))

    query_tiles, d_output_tiles = new_tiles(query, WARPGROUPS), new_tiles(d_output, WARPGROUPS)
    ready = new_barriers(WARPGROUPS, 2)  # a copy of queries, one of their output's gradient
    keys, values = new_ring(key, STAGES, WARPGROUPS), new_ring(value, STAGES, WARPGROUPS)
    fence_async_shared()  # TMA, too, sees that the barriers are new
    tensors = (query, key, value, d_output, d_query, lse_ptr, delta_ptr)
    rings = (query_tiles, d_output_tiles, keys, values)
    arguments = (tensors, rings, ready, place, (n_query, n_key), (scale, scale_log2_e), CAUSAL)
    gl.warp_specialize(
        [(differentiate_first, arguments), (differentiate_second, arguments), (produce, arguments)],
        [4, 1],
        WORKER_REGISTERS,
    )


def attention_backward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    d_output: torch.Tensor,
    lse: torch.Tensor,
    delta: torch.Tensor,
    *,
    causal: bool,
    scale: float,
    d_query: torch.Tensor | None,
    d_key: torch.Tensor | None,
    d_value: torch.Tensor | None,
    stages: int = STAGES,
) -> None:
    """Launch the backward kernels for tensors that `why_not` has nothing against.

    Parameters
    ----------
    query, d_output : torch.Tensor [batch, head, query, d_head]
        float16 or bfloat16, like all but the statistics.
    key, value : torch.Tensor [batch, kv_head, key, d_head]
    lse, delta : torch.Tensor of float32 [batch, head, query]
        Contiguous.
    causal : bool
    scale : float
    d_query : torch.Tensor [batch, head, query, d_head] or None
        Written; None if it is not wanted.
    d_key, d_value : torch.Tensor [batch, kv_head, key, d_head] or None
        Written; both or neither.
    stages : int
        Tiles of a ring; fewer are played faster (lab/gluon).
    """
    if d_key is not None and d_value is not None:
        key_value_backward(
            *(query, key, value, d_output, lse, delta, d_key, d_value),
            causal=causal, scale=scale, stages=stages,
        )  # fmt: skip
    if d_query is not None:
        n_batch, n_head, n_query, _ = query.shape
        n_tiles = -(-n_query // (ROWS.value * WARPGROUPS.value))
        launch(
            hopper_attention_backward_query_kernel,
            (n_tiles * n_batch * n_head,),
            described(query, ROWS.value),
            described(key, BLOCK_KEYS),
            described(value, BLOCK_KEYS),
            described(d_output, ROWS.value),
            described(d_query, ROWS.value),
            *(lse, delta, n_head, n_query, key.shape[2], scale, scale * LOG2_E.value),
            GROUP=n_head // key.shape[1],
            CAUSAL=causal,
            STAGES=stages,
            num_warps=4,
            maxnreg=REGISTERS,
        )
