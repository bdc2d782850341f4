"""Attention's forward pass for Hopper: attention_forward_kernel with its work shared out.

Mathematics and tiling are those of kernels/attention/attention.py: a program takes a tile of
queries, walks along the keys, and keeps the running maximum, the running sum and the weighted
values. There one program multiplies and exponentiates in turn, and the tensor cores rest while it
exponentiates. Here a program has three partitions of warps (Shah et al. 2024, arXiv 2407.08608):

    producer   1 warp    copies tiles of queries, keys and values with TMA (rings.py)
    first      4 warps   a warpgroup, for 64 queries
    second     4 warps   a warpgroup, for the next 64

and within a warpgroup the product with a tile's values is in flight while the scores of the next
are exponentiated:

    scores of tile j                  ░░░░░░░░
    weights × values of tile j − 1            ░░░░░░░░
    maximum, exp2, sum of tile j              ▓▓▓▓▓▓▓▓▓▓▓    ░ tensor cores   ▓ the warps themselves
                                      ───────────────────► time

While one warpgroup exponentiates the other's products run. Nothing orders the two but the copies
that they share: each says for itself when it has used a tile up.

Memory: as the plain kernel. Rows beyond the tensor arrive as 0, and TMA leaves out those of the
output. Deterministic: each element is written by one warpgroup, in one order of the keys.
"""

import math

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
from .descriptors import described
from .products import (
    REGISTERS,
    ROWS,
    WARPGROUPS,
    WORKER_REGISTERS,
    as_factor,
    begin_row_products,
    by_row,
    column_layout,
    row_layout,
    sums_layout,
)
from .rings import arrived, copy_tile, fill, matrix, new_barriers, new_ring, new_tiles, release

LN_2 = gl.constexpr(math.log(2))
BLOCK_KEYS, STAGES = 128, 2


@gluon.jit
def hide(scores, first_key, high):
    """Give −inf to the scores of keys that a query does not see."""
    KEYS: gl.constexpr = scores.shape[1]
    keys = first_key + gl.arange(0, KEYS, column_layout(KEYS))
    return gl.where(keys[None, :] < high[:, None], scores, -float("inf"))


@gluon.jit
def exponentiate(scores, running_max, scale_log2_e):
    """Return the weights of scores, the new maximum, and what rescales older sums to it."""
    new_max = gl.maximum(running_max, gl.max(scores, axis=1))
    # Where all scores so far are -inf: subtract 0, since -inf - (-inf) is NaN.
    pivot = gl.where(new_max == -float("inf"), 0.0, new_max) * scale_log2_e
    weights = gl.exp2(scores * scale_log2_e - pivot[:, None])
    return weights, new_max, gl.exp2(running_max * scale_log2_e - pivot)


@gluon.jit
def walk(start, n_full, end, state, query, keys, values, high, scale_log2_e):
    """Take in tiles start to end of the keys, those from n_full on with a mask.

    state: the weights of tile start − 1 [query, key], which wait for their values; the accumulator
    of weighted values [query, feature]; running maximum and sum [query].
    """
    BLOCK: gl.constexpr = keys.tiles.shape[3]
    FEATURES: gl.constexpr = keys.tiles.shape[4]
    factor, accumulator, running_max, running_sum = state
    for j in range(start, end):
        scores = begin_row_products(query, arrived(keys, j))
        accumulator = warpgroup_mma(factor, arrived(values, j - 1), accumulator, is_async=True)
        scores = warpgroup_mma_wait(1, deps=(scores,))  # the product with the values goes on
        release(keys, j)
        if j >= n_full:
            scores = hide(scores, j * BLOCK, high)
        weights, running_max, rescale = exponentiate(scores, running_max, scale_log2_e)
        running_sum = running_sum * rescale + gl.sum(weights, axis=1)
        next_factor = as_factor(weights, FEATURES, factor.dtype)
        # The new weights stand among what is waited for, or the wait would move up before them;
        # the old ones, since the product reads them until then.
        accumulator, _, factor = warpgroup_mma_wait(0, deps=(accumulator, factor, next_factor))
        release(values, j - 1)
        accumulator = accumulator * by_row(rescale, accumulator)
    return factor, accumulator, running_max, running_sum


@gluon.jit
def attend(
    WARPGROUP: gl.constexpr,
    tensors,
    rings,
    ready,
    place,
    lengths,
    scale_log2_e,
    CAUSAL: gl.constexpr,
):
    """As a warpgroup: attend from 64 queries."""
    output, lse_ptr = tensors[3], tensors[4]
    query_tiles, keys, values = rings
    batch, head, batch_head, _, first_query, n_tiles = place
    n_query, n_key = lengths
    BLOCK: gl.constexpr = keys.tiles.shape[3]
    FEATURES: gl.constexpr = keys.tiles.shape[4]
    DTYPE: gl.constexpr = output.dtype

    first_query += WARPGROUP * ROWS
    queries = first_query + gl.arange(0, ROWS, row_layout(BLOCK))
    high = queries * 0 + n_key
    n_full = n_key // BLOCK  # tiles that all of these queries see whole
    if CAUSAL:
        high = gl.minimum(high, queries + (n_key - n_query) + 1)
        n_full = gl.minimum(n_full, (first_query + (n_key - n_query) + 1) // BLOCK)

    mbarrier.wait(ready.index(WARPGROUP), 0)
    query = matrix(query_tiles.index(WARPGROUP))

    # The first tile's scores, alone. It may be the last one, too, and so have a mask.
    scores = warpgroup_mma_wait(0, deps=(begin_row_products(query, arrived(keys, 0)),))
    release(keys, 0)
    nothing = gl.full([ROWS], -float("inf"), gl.float32, row_layout(BLOCK))
    weights, running_max, _ = exponentiate(hide(scores, 0, high), nothing, scale_log2_e)
    accumulator = gl.zeros([ROWS, FEATURES], gl.float32, sums_layout(FEATURES))
    factor = as_factor(weights, FEATURES, DTYPE)
    state = (factor, accumulator, running_max, gl.sum(weights, axis=1))

    state = walk(1, n_full, n_tiles, state, query, keys, values, high, scale_log2_e)

    factor, accumulator, running_max, running_sum = state
    accumulator = warpgroup_mma(factor, arrived(values, n_tiles - 1), accumulator, is_async=True)
    accumulator, _ = warpgroup_mma_wait(0, deps=(accumulator, factor))
    total = gl.where(running_sum == 0.0, 1.0, running_sum)
    # No product reads the queries any more: their tile takes the output.
    query.store((accumulator / by_row(total, accumulator)).to(DTYPE))
    fence_async_shared()
    output_tile = query_tiles.index(WARPGROUP)
    tma.async_store(output, [batch, head, first_query, 0], output_tile)
    lse = (running_max * scale_log2_e + gl.log2(running_sum)) * LN_2
    gl.store(lse_ptr + batch_head.to(gl.int64) * n_query + queries, lse, mask=queries < n_query)
    tma.store_wait(0)


@gluon.jit
def attend_first(tensors, rings, ready, place, lengths, scale_log2_e, CAUSAL: gl.constexpr):
    """As the first warpgroup: attend from the tile's first 64 queries."""
    attend(0, tensors, rings, ready, place, lengths, scale_log2_e, CAUSAL)


@gluon.jit
def attend_second(tensors, rings, ready, place, lengths, scale_log2_e, CAUSAL: gl.constexpr):
    """As the second warpgroup: attend from the other 64."""
    attend(1, tensors, rings, ready, place, lengths, scale_log2_e, CAUSAL)


@gluon.jit
def produce(tensors, rings, ready, place, lengths, scale_log2_e, CAUSAL: gl.constexpr):
    """As the producer: ask for the queries, then for one tile of keys and values after another."""
    query, key, value = tensors[0], tensors[1], tensors[2]
    query_tiles, keys, values = rings
    batch, head, _, kv_head, first_query, n_tiles = place
    BLOCK: gl.constexpr = keys.tiles.shape[3]
    for i in gl.static_range(WARPGROUPS):
        row = first_query + i * ROWS
        copy_tile(query, batch, head, row, ready.index(i), query_tiles.index(i))
    for j in range(n_tiles):
        fill(keys, j, key, batch, kv_head, j * BLOCK)
        fill(values, j, value, batch, kv_head, j * BLOCK)


@gluon.jit(do_not_specialize=["n_head", "n_query", "n_key"])
def hopper_attention_forward_kernel(
    query,  # described [batch, head, query, d_head], in tiles of ROWS
    key,  # described [batch, kv_head, key, d_head], in tiles of BLOCK_KEYS, like the next
    value,
    output,  # described as query, written
    lse_ptr,  # float32 [batch, head, query] contiguous, written
    n_head,
    n_query,
    n_key,
    scale_log2_e,
    GROUP: gl.constexpr,  # query heads for each key head
    CAUSAL: gl.constexpr,
    STAGES: gl.constexpr,
):
    """One tile of queries of one head; every query sees a key."""
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

    query_tiles = new_tiles(query, WARPGROUPS)
    ready = new_barriers(WARPGROUPS, 1)
    keys, values = new_ring(key, STAGES, WARPGROUPS), new_ring(value, STAGES, WARPGROUPS)
    fence_async_shared()  # TMA, too, sees that the barriers are new
    tensors, rings = (query, key, value, output, lse_ptr), (query_tiles, keys, values)
    arguments = (tensors, rings, ready, place, (n_query, n_key), scale_log2_e, CAUSAL)
    gl.warp_specialize(
        [(attend_first, arguments), (attend_second, arguments), (produce, arguments)],
        [4, 1],
        WORKER_REGISTERS,
    )


def attention_forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    lse: torch.Tensor,
    *,
    causal: bool,
    scale_log2_e: float,
) -> None:
    """Launch the forward kernel for tensors that `why_not` has nothing against.

    Parameters
    ----------
    query : torch.Tensor [batch, head, query, d_head]
        float16 or bfloat16, like the next three.
    key, value : torch.Tensor [batch, kv_head, key, d_head]
    output : torch.Tensor [batch, head, query, d_head]
        Written.
    lse : torch.Tensor of float32 [batch, head, query]
        Contiguous; written.
    causal : bool
    scale_log2_e : float
        The scores' scale times log₂e.
    """
    n_batch, n_head, n_query, _ = query.shape
    n_tiles = -(-n_query // (ROWS.value * WARPGROUPS.value))
    launch(
        hopper_attention_forward_kernel,
        (n_tiles * n_batch * n_head,),
        described(query, ROWS.value),
        described(key, BLOCK_KEYS),
        described(value, BLOCK_KEYS),
        described(output, ROWS.value),
        *(lse, n_head, n_query, key.shape[2], scale_log2_e),
        GROUP=n_head // key.shape[1],
        CAUSAL=causal,
        STAGES=STAGES,
        num_warps=4,
        maxnreg=REGISTERS,
    )
