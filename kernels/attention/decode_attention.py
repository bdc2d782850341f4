"""Decode attention in Triton: the keys are shared out among programs, then the pieces combined.

Mathematics (core/attention/decode_attention.py): output = Σ_j p[j]·v[j], p[j] = exp(s[j] − lse);
pieces of the keys merge as lse = log Σ_s exp(lse_s), output = Σ_s exp(lse_s − lse)·output_s. GPUs
have an instruction for 2^x, so scores are kept multiplied by log₂e.

Tiling. One program of the split kernel owns one piece of one cache (sequence × key head). Every
query that reads this cache, of all the query heads in the group and all new positions, is a row of
its one tile, so that each key and value is read once however many heads share it:

              d_head                  keys of sequence b, key head k
            ┌────────┐    ┌───────────────┬───────────────┬─────────────┄┄┄┄┄┄┄┄┄┄┄┄┐
    group · │ query  │    │ split 0 ────► │ split 1 ────► │ split 2 ──► ┊ not yet   ┊
    n_query │ rows   │    └───────────────┴───────────────┴─────────────┄┄┄┄┄┄┄┄┄┄┄┄┘
            └────────┘      output_0, lse_0  output_1, lse_1 …   → combine → output, lse

A tensor core's tile has at least 16 rows: where fewer queries share a cache the rest are idle,
which costs nothing, for the kernel waits for memory. More rows than a tile holds (32 at d_head 64,
less beyond) take several tiles, and find the keys in the L2 cache.

How many splits (`number_of_splits`): enough to give each multiprocessor WAVES programs, no more
than give each KEYS_PER_SPLIT keys of a full cache, 1 if the batch fills the device anyway. The host
decides it from shapes alone; which keys a split walks is computed on the device from `lengths`,
evenly, so a short sequence in a long cache is shared out as well, and no step waits for a length to
reach the host. Under `batch_invariant` it is 1: the batch must not decide how a row is summed.

Memory. Keys and values are read once, those beyond the length, before the window or before
key_start not at all. Each split writes d_head + 1 float32 numbers a row and the combine kernel
reads them; with one split the same kernel writes the result itself, and there is no second launch.
The output lies in memory as [batch, query, head, d_head], so that merging the heads is a view.

Deterministic: a piece is summed by one program, and pieces are combined in order. No atomics.
"""

import math

import torch

from ...core.attention.decode_attention import check_decode_attention, check_lengths
from ...core.checks import refuse
from ..common._triton import for_architecture, tl, triton
from ..common.indices import expect_countable, signed
from ..common.launch import door, expect_same_dtype, launch, runs_on_triton
from ..common.registered import registered
from ..common.rows import bucketed, multiprocessors
from ..common.strided import block_at, part_of, strided, transposed
from ..common.widened import product_in_float32

MAX_D_HEAD = 256
# Query rows in a tile: tl.dot takes 16 at the least, and ROWS_TIMES_D bounds the accumulator. With
# twice as many it would spill; in float32, which tensor cores do not multiply, with more than 16.
MIN_ROWS, MAX_ROWS, ROWS_TIMES_D = 16, 32, 2048
# Splits: programs for each multiprocessor, keys that are worth a program, and the most there are.
WAVES, KEYS_PER_SPLIT, MAX_SPLITS = 2, 128, 128
# A tile of keys is given in bytes, so that one list suits every head dimension. With two stages a
# turn would begin with waiting for its own copies. In float32, from d_head 128 on, both entries
# would be 16 keys: it has the second alone. Unlimited, sm_100's first spills to fit five programs.
STAGES = for_architecture(3, amd=2)
SPLIT_CONFIGS = [
    triton.Config({"KEY_TILE_BYTES": tile_bytes}, num_warps=4, num_stages=STAGES, maxnreg=limit)
    for tile_bytes, limit in ((8192, for_architecture(None, sm_100=128)), (16384, None))
]
SPLIT_KEY = ["BLOCK_D", "BLOCK_ROWS", "size_bucket"]
COMBINE_COLUMNS = 64

_LOG2_E = tl.constexpr(math.log2(math.e))
_LN_2 = tl.constexpr(math.log(2))


@triton.autotune(SPLIT_CONFIGS, key=SPLIT_KEY)
@triton.jit
def decode_attention_split_kernel(
    query,  # [batch, head, query, d_head]
    key,  # [batch, kv_head, capacity, d_head]
    value,
    lengths_ptr,  # int [batch]
    key_start_ptr,  # int [batch] or None
    output_ptr,  # [split, batch, query, head, d_head] contiguous
    lse_ptr,  # float32 [split, batch, query, head] contiguous
    n_query,
    n_head,
    n_kv_head,
    d_head,
    capacity,
    size_bucket,  # capacity rounded up to a power of two: tuned once for each
    window,  # or None
    scale_log2_e,
    split_rows,  # batch · query · head
    ROW_TILES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    KEY_TILE_BYTES: tl.constexpr,
):
    """One piece of one cache, for a tile of the queries that read it."""
    # Float32 counts double: without a tensor core, what is multiplied stays in registers.
    ELEMENT_BYTES: tl.constexpr = key.ptr.dtype.element_ty.primitive_bitwidth // 8
    KEY_BYTES: tl.constexpr = BLOCK_D * ELEMENT_BYTES * (ELEMENT_BYTES // 2)
    BLOCK_KEYS: tl.constexpr = (
        16 if KEY_TILE_BYTES < 16 * KEY_BYTES else KEY_TILE_BYTES // KEY_BYTES
    )
    cache = tl.program_id(0) // ROW_TILES
    batch = (cache // n_kv_head).to(tl.int64)
    kv_head = (cache % n_kv_head).to(tl.int64)
    split = tl.program_id(1).to(tl.int64)
    group = n_head // n_kv_head
    # Row r of a cache is new position r % n_query of the group's query head r // n_query.
    row = tl.program_id(0) % ROW_TILES * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row_inside = row < group * n_query
    head = kv_head * group + row // n_query  # int64 [BLOCK_ROWS]
    new = row % n_query
    dims = tl.arange(0, BLOCK_D)
    d_inside = dims < d_head
    d_at = dims.to(tl.int64)

    # Which keys these rows see, and which of them are this split's.
    length = tl.load(lengths_ptr + batch).to(tl.int64)
    position = length - n_query + new  # [BLOCK_ROWS]
    low = tl.zeros([BLOCK_ROWS], tl.int64)
    first = tl.zeros([], tl.int64)
    if window is not None:
        low = position - window + 1
        first = tl.maximum(first, length - n_query - window + 1)
    if key_start_ptr is not None:
        key_start = tl.load(key_start_ptr + batch).to(tl.int64)
        low = tl.maximum(low, key_start)
        first = tl.maximum(first, key_start)
    last = tl.minimum(length, capacity)
    per_split = tl.cdiv(tl.cdiv(last - first, BLOCK_KEYS), tl.num_programs(1)) * BLOCK_KEYS
    start = first + split * per_split
    stop = tl.minimum(start + per_split, last)

    query_of = part_of(query, batch)  # [head, query, d_head]
    query_at = query_of.ptr + head[:, None] * query_of.strides[0]
    query_at += new.to(tl.int64)[:, None] * query_of.strides[1]
    query_at += d_at[None, :] * query_of.strides[2]
    query_tile = tl.load(query_at, mask=row_inside[:, None] & d_inside[None, :], other=0.0)
    key_rows = part_of(part_of(key, batch), kv_head)  # [capacity, d_head]
    value_rows = part_of(part_of(value, batch), kv_head)

    running_max = tl.full([BLOCK_ROWS], -float("inf"), tl.float32)
    running_sum = tl.zeros([BLOCK_ROWS], tl.float32)
    accumulator = tl.zeros([BLOCK_ROWS, BLOCK_D], tl.float32)
    for block in range(start, stop, BLOCK_KEYS):
        keys = block + tl.arange(0, BLOCK_KEYS)  # int64
        # Beyond `stop` the cache may hold anything: it is not read.
        inside = keys < stop
        key_at = block_at(transposed(key_rows), dims, keys)
        key_tile = tl.load(key_at, mask=d_inside[:, None] & inside[None, :], other=0.0)
        scores = tl.dot(query_tile, key_tile, input_precision="ieee") * scale_log2_e
        seen = inside[None, :] & (keys[None, :] <= position[:, None])
        seen = seen & (keys[None, :] >= low[:, None])
        scores = tl.where(seen, scores, -float("inf"))  # [BLOCK_ROWS, BLOCK_KEYS]

        new_max = tl.maximum(running_max, tl.max(scores, axis=1))
        origin = tl.where(new_max == -float("inf"), 0.0, new_max)
        rescale = tl.exp2(running_max - origin)
        exponents = tl.exp2(scores - origin[:, None])
        running_sum = running_sum * rescale + tl.sum(exponents, axis=1)
        running_max = new_max
        value_at = block_at(value_rows, keys, dims)
        value_tile = tl.load(value_at, mask=inside[:, None] & d_inside[None, :], other=0.0)
        accumulator = accumulator * rescale[:, None]
        weights = exponents.to(value_tile.dtype)
        accumulator = tl.dot(weights, value_tile, accumulator, input_precision="ieee")

    unseen = running_sum == 0.0
    total = tl.where(unseen, 1.0, running_sum)
    lse = tl.where(unseen, -float("inf"), (running_max + tl.log2(total)) * _LN_2)
    result_row = split * split_rows + (batch * n_query + new) * n_head + head
    output_at = output_ptr + result_row[:, None] * d_head + d_at[None, :]
    output = accumulator / total[:, None]
    tl.store(output_at, output, mask=row_inside[:, None] & d_inside[None, :])
    tl.store(lse_ptr + result_row, lse, mask=row_inside)


FLOAT32_SPLIT = triton.autotune(SPLIT_CONFIGS[1:], SPLIT_KEY)(decode_attention_split_kernel.fn)


@triton.jit
def decode_attention_combine_kernel(
    partial_ptr,  # float32 [split, row, d_head] contiguous
    partial_lse_ptr,  # float32 [split, row] contiguous
    output_ptr,  # [row, d_head] contiguous
    lse_ptr,  # float32 [row]
    n_rows,
    n_splits,
    d_head,
    BLOCK_SPLITS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Merge the pieces of one row, BLOCK_COLUMNS of its numbers at a time."""
    row = tl.program_id(0).to(tl.int64)
    splits = tl.arange(0, BLOCK_SPLITS).to(tl.int64)
    dims = tl.program_id(1).to(tl.int64) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    split_inside, d_inside = splits < n_splits, dims < d_head
    partial_row = splits * n_rows + row
    lses = tl.load(partial_lse_ptr + partial_row, mask=split_inside, other=-float("inf"))
    largest = tl.max(lses, axis=0)
    origin = tl.where(largest == -float("inf"), 0.0, largest)
    weights = tl.exp2((lses - origin) * _LOG2_E)  # [BLOCK_SPLITS], 0 for an empty piece
    total = tl.sum(weights, axis=0)
    unseen = total == 0.0
    total = tl.where(unseen, 1.0, total)

    partial_at = partial_ptr + partial_row[:, None] * d_head + dims[None, :]
    partial = tl.load(partial_at, mask=split_inside[:, None] & d_inside[None, :], other=0.0)
    output = tl.sum(partial * (weights / total)[:, None], axis=0)
    tl.store(output_ptr + row * d_head + dims, output, mask=d_inside)
    lse = tl.where(unseen, -float("inf"), origin + tl.log2(total) * _LN_2)
    # All programs of a row know it; one of them writes it.
    tl.store(lse_ptr + row, lse, mask=tl.program_id(1) == 0)


def number_of_splits(programs: int, n_keys: int, processors: int) -> int:
    """Decide into how many pieces each cache is cut, from shapes alone.

    Parameters
    ----------
    programs : int
        Programs that one piece per cache would give: batch · kv_head · tiles of query rows.
    n_keys : int
        Most keys that a tile can see: the capacity, or less with a window.
    processors : int
        Multiprocessors of the device.

    Returns
    -------
    int
        At least 1, at most MAX_SPLITS.
    """
    wanted = triton.cdiv(WAVES * processors, max(programs, 1))
    worthwhile = triton.cdiv(n_keys, KEYS_PER_SPLIT)
    return max(1, min(wanted, worthwhile, MAX_SPLITS))


@registered
def decode_attention_forward(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    lengths: torch.Tensor,
    scale: float,
    window: int | None,
    key_start: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the split kernel and, if there is more than one split, the combine kernel.

    Parameters
    ----------
    query, key_cache, value_cache, lengths, scale, window, key_start
        As in `decode_attention`, checked.

    Returns
    -------
    output : torch.Tensor [batch, head, query, d_head]
        A view of memory that lies as [batch, query, head, d_head].
    lse : torch.Tensor of float32 [batch, head, query]
        Likewise a view.
    """
    batch, n_head, n_query, d_head = query.shape
    n_kv_head, capacity = key_cache.shape[1:3]
    n_shared = n_head // n_kv_head * n_query  # rows that read the same cache
    expect_countable("decode_attention", queries=n_shared)
    block_d = max(triton.next_power_of_2(d_head), 16)
    most_rows = MIN_ROWS if query.element_size() == 4 else min(ROWS_TIMES_D // block_d, MAX_ROWS)
    block_rows = max(min(triton.next_power_of_2(n_shared), most_rows), MIN_ROWS)
    row_tiles = triton.cdiv(n_shared, block_rows)
    programs = batch * n_kv_head * row_tiles
    n_keys = capacity if window is None else min(capacity, window + n_query - 1)
    n_splits = number_of_splits(programs, n_keys, multiprocessors(query))
    if door().batch_invariant:
        n_splits = 1

    rows = (batch, n_query, n_head)
    output = torch.empty(*rows, d_head, dtype=query.dtype, device=query.device)
    lse = torch.empty(rows, dtype=torch.float32, device=query.device)
    partial, partial_lse = output, lse
    if n_splits > 1:
        partial = torch.empty(n_splits, *output.shape, dtype=torch.float32, device=query.device)
        partial_lse = torch.empty(n_splits, *rows, dtype=torch.float32, device=query.device)
    launch(
        FLOAT32_SPLIT if query.element_size() == 4 else decode_attention_split_kernel,
        (programs, n_splits),
        *(strided(query), strided(key_cache), strided(value_cache), lengths.contiguous()),
        None if key_start is None else key_start.contiguous(),
        *(partial, partial_lse, n_query, n_head, n_kv_head, d_head, *bucketed(capacity), window),
        *(scale * math.log2(math.e), lse.numel()),
        ROW_TILES=row_tiles,
        BLOCK_ROWS=block_rows,
        BLOCK_D=block_d,
    )
    if n_splits > 1:
        launch(
            decode_attention_combine_kernel,
            (lse.numel(), triton.cdiv(d_head, COMBINE_COLUMNS)),
            *(partial, partial_lse, output, lse, lse.numel(), n_splits, d_head),
            BLOCK_SPLITS=triton.next_power_of_2(n_splits),
            BLOCK_COLUMNS=COMBINE_COLUMNS,
        )
    # [batch, query, head, …] -> [batch, head, query, …]
    return output.transpose(1, 2), lse.transpose(1, 2)


def decode_attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    lengths: torch.Tensor,
    *,
    scale: float | None = None,
    window: int | None = None,
    key_start: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend to a KV cache; the twin of `gptwin.core.attention.decode_attention.decode_attention`.

    Parameters
    ----------
    query : torch.Tensor [batch, head, query, d_head]
        float32, float16 or bfloat16, any strides: the last n_query positions of each sequence.
    key_cache, value_cache : torch.Tensor [batch, kv_head, capacity, d_head]
        Any strides; `head` is a multiple of `kv_head`.
    lengths : torch.Tensor of int [batch]
        Keys that each sequence has so far, its queries' own included; from 0 to capacity. On a GPU
        they are not read back to be checked: nothing beyond the capacity is read either way.
    scale : float, optional
        Multiplies the scores; 1/√d_head if not given.
    window : int, optional
        Let a query see at most the last `window` keys up to its own position.
    key_start : torch.Tensor of int [batch], optional
        Keys before it are padding on the left.

    Returns
    -------
    output : torch.Tensor [batch, head, query, d_head]
        Of the query's dtype; `output.transpose(1, 2).flatten(2)` is a view.
    lse : torch.Tensor of float32 [batch, head, query]
        Neither carries a gradient.

    Raises
    ------
    ValueError
        If shapes, dtypes, devices or values do not fit.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_decode_attention(query, key_cache, value_cache, lengths, scale, window, key_start)
    expect_same_dtype(query=query, key_cache=key_cache, value_cache=value_cache)
    lengths, key_start = signed(lengths), signed(key_start)
    window = None if window is None else int(window)
    if lengths.device.type == "cpu":
        check_lengths(lengths, key_cache.shape[2])
    given = {"query": query, "key_cache": key_cache, "value_cache": value_cache}
    if runs_on_triton("decode_attention", **given, lengths=lengths, key_start=key_start):
        if query.shape[-1] > MAX_D_HEAD:
            refuse("query", f"d_head of at most {MAX_D_HEAD}", f"shape {tuple(query.shape)}")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        with torch.no_grad():
            return decode_attention_forward(
                query, key_cache, value_cache, lengths, scale, window, key_start
            )
    return decode_attention_eager(
        **given, lengths=lengths, scale=scale, window=window, key_start=key_start
    )


@torch.no_grad()
def decode_attention_eager(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    lengths: torch.Tensor,
    *,
    scale: float | None = None,
    window: int | None = None,
    key_start: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick.

    Returns
    -------
    output, lse : torch.Tensor
        As in `decode_attention`; lse is float64 if the query is.
    """
    (n_head, n_query, d_head), (n_kv_head, capacity) = query.shape[1:], key_cache.shape[1:3]
    keys = torch.arange(capacity, device=query.device)
    new = torch.arange(n_query, device=query.device)
    position = (lengths[:, None] - n_query + new)[..., None]  # [batch, query, 1]
    seen = keys <= position  # [batch, query, capacity]
    if window is not None:
        seen = seen & (keys > position - window)
    if key_start is not None:
        seen = seen & (keys >= key_start[:, None, None])
    unwanted = ~seen.any(1)[:, None, :, None]
    # [batch, kv_head, capacity, d_head] -> [batch, kv_head, 1, capacity, d_head]
    key = key_cache.masked_fill(unwanted, 0).unsqueeze(2)
    value = value_cache.masked_fill(unwanted, 0).unsqueeze(2)
    unseen = ~seen[:, None, None]  # [batch, 1, 1, query, capacity]
    grouped = query.unflatten(1, (n_kv_head, n_head // n_kv_head))
    scores = product_in_float32(grouped, key.transpose(-1, -2))
    scores = scores * (d_head**-0.5 if scale is None else scale)
    scores = scores.masked_fill(unseen, -math.inf)
    # PyTorch gives NaN where every score is -inf; such a query's output is 0 here.
    nothing_seen = (scores == -math.inf).all(dim=-1, keepdim=True)
    probabilities = torch.softmax(scores.masked_fill(nothing_seen, 0), -1).to(query.dtype)
    output = probabilities.masked_fill(unseen | nothing_seen, 0) @ value
    wide = torch.promote_types(query.dtype, torch.float32)
    return output.flatten(1, 2), torch.logsumexp(scores.to(wide), -1).flatten(1, 2)
