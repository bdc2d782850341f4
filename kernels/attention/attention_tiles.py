"""What the attention kernels share: who sees whom, tiles and their products, and dropout.

Every mask is an interval of keys for each query, [low, high), whose ends never decrease along the
queries (core/attention/key_intervals.py proves and pictures it). A program therefore computes from
its first and last position alone which tiles it has to read, and which of those need no mask:
`key_stretch` for a tile of queries, `query_stretch` for a tile of keys. A stretch is walked from
its very first position on, not from a multiple of the block size, so no block is read for a few of
its keys; but forward with a window, where the order of sums must not show the tile.
"""

import math
from typing import Any, NamedTuple

import torch

from ...core.attention.attention import DROPOUT_BITS, dropout_threshold
from ..common._triton import tl, triton
from ..common.indices import expect_countable, in_int32, signed
from ..common.strided import Strided, block_at

# A configuration's speed depends on these.
TUNING_KEY = ["D_HEAD", "tuned_for"]
# Triton would compile a kernel again when one of these is 1 or a multiple of 16, as one seed or
# length in 16 is. Nothing would be gained by it.
NOT_SPECIALIZED = ["seed", "n_head", "n_query", "n_key"]
LOG2_E = math.log2(math.e)
LOG2_E_CONSTANT = tl.constexpr(LOG2_E)
DROPOUT_SHIFT = tl.constexpr(32 - DROPOUT_BITS)
# A smaller block is mostly overhead; the scores of a larger one do not fit into the registers.
SMALLEST_BLOCK, LARGEST_BLOCK = 32, 128
SMALLEST_D = 16  # of tl.dot
FLOAT32_FEATURES = tl.constexpr(16)


class Masks(NamedTuple):
    """Who sees whom, on the host and in the kernels.

    Attributes
    ----------
    causal : bool
        As in `attention`; a compile-time constant in a kernel.
    window : int or None
        As in `attention`.
    key_start : torch.Tensor of int32 [batch] or None
        As in `attention`.
    document_start, document_end : torch.Tensor of int32 [query] or None
        Where the document of each position starts and ends; both or neither.
    """

    causal: bool = False
    window: int | None = None
    key_start: torch.Tensor | None = None
    document_start: torch.Tensor | None = None
    document_end: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        n_query: int,
        *,
        causal: bool = False,
        window: int | None = None,
        key_start: torch.Tensor | None = None,
        cu_seqlens: torch.Tensor | None = None,
    ) -> "Masks":
        """Prepare the masks, on the device and without waiting for it.

        Parameters
        ----------
        n_query : int
            Positions.
        """
        start = end = None
        window = None if window is None else int(window)
        cu_seqlens = signed(cu_seqlens)
        if cu_seqlens is not None:
            positions = torch.arange(n_query, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
            # The last boundary at or before a position: documents of length 0 are stepped over.
            document = torch.searchsorted(cu_seqlens.contiguous(), positions, right=True) - 1
            bounds = in_int32(torch.cat([cu_seqlens, cu_seqlens[-1:]]))
            start, end = bounds[document], bounds[document + 1]
        if key_start is not None:
            key_start = in_int32(key_start).contiguous()
        return cls(causal, window, key_start, start, end)

    def holding(self, *tensors: torch.Tensor | None) -> "Masks":
        """Return the same masks of other tensors: autograd keeps, and watches, those it is given.

        Parameters
        ----------
        *tensors : torch.Tensor or None
            key_start, document_start and document_end.

        Returns
        -------
        Masks
        """
        return Masks(self.causal, self.window, *tensors)

    def padding(self, n_position: int) -> torch.Tensor | None:
        """Say which positions see nothing, nor are seen, where queries and keys are the same ones.

        Returns
        -------
        torch.Tensor of bool [batch or 1, n_position] or None
            None if there are none.
        """
        some = self.document_start if self.key_start is None else self.key_start
        if some is None:
            return None
        position = torch.arange(n_position, device=some.device)
        low, high = position * 0, position + 1 if self.causal else position * 0 + n_position
        if self.document_start is not None and self.document_end is not None:
            low = torch.maximum(low, self.document_start)
            high = torch.minimum(high, self.document_end)
        if self.key_start is not None:
            low = torch.maximum(low, self.key_start[:, None])
        return torch.atleast_2d(low >= high)

    def argument(self, length_bucket: int) -> "Masks":
        """Return what a kernel takes.

        Parameters
        ----------
        length_bucket : int
            At least the number of keys. A wider window is cut down to it, for positions are 32-bit.

        Returns
        -------
        Masks
        """
        window = None if self.window is None else min(self.window, length_bucket)
        return self._replace(causal=tl.constexpr(self.causal), window=window)


class Dropout(NamedTuple):
    """What the kernels take for dropout; None stands for no dropout.

    Attributes
    ----------
    threshold : int
        A weight is kept if its random number is not below it.
    keep_scale : float
        1 / (1 - dropout).
    """

    threshold: int
    keep_scale: float


class Tile(NamedTuple):
    """Rows of one head as they are loaded, and what it takes to load them again.

    Attributes
    ----------
    block : tl.tensor [row, feature]
        0 beyond D_HEAD, and where a row is not inside.
    x : Strided
        The head, a matrix.
    rows : tl.tensor [row]
        Their numbers in it.
    inside : tl.tensor of bool [row]
    """

    block: Any
    x: Any
    rows: Any
    inside: Any


# --- tiles ----------------------------------------------------------------------------------------


def tiles(
    query_bytes: int, key_bytes: int, num_warps: int, num_stages: int, maxnreg: int | None = None
) -> triton.Config:
    """Make a configuration; bytes are those of `rows_per_tile`, maxnreg is registers a thread."""
    sizes = {"QUERY_TILE_BYTES": query_bytes, "KEY_TILE_BYTES": key_bytes}
    return triton.Config(sizes, num_warps=num_warps, num_stages=num_stages, maxnreg=maxnreg)


@triton.constexpr_function
def rows_per_tile(tile_bytes, d_head, itemsize, smallest=SMALLEST_BLOCK):
    """Return how many positions a tile holds, 32 (or `smallest`) to 128.

    Parameters
    ----------
    tile_bytes : int
        Of a tile of 2-byte floats. Configurations are given in bytes, so that one list suits every
        head dimension: it is bytes of shared memory that run out. 4-byte floats get a quarter of
        them, for their products are no tensor core's but long lists of multiply-adds on registers.
    d_head, itemsize : int
        D_HEAD and the bytes of a number. Where a row's length is no multiple of 16, its numbers are
        loaded one by one, with an address each in registers: half as many fit.
    smallest : int
        The least, however wide a row.
    """
    width = max(SMALLEST_D, triton.next_power_of_2(d_head))
    rows = tile_bytes // (width * itemsize)
    if d_head % SMALLEST_D:
        rows //= 2
    if itemsize == 4:
        rows //= 4
    return max(smallest, min(LARGEST_BLOCK, rows))


@triton.constexpr_function
def features_per_tile(d_head):
    """Return how many features a tile has: d_head rounded up to a power of two, at least 16."""
    return max(SMALLEST_D, triton.next_power_of_2(d_head))


@triton.jit
def place(n_tiles, n_head, LAST_FIRST: tl.constexpr):
    """Say which tile a program owns: tile, batch · n_head + head, batch, head, all int32.

    The tiles of one head run side by side, for they share its keys and values in the L2 cache (and
    the query heads of a group come next to each other). Within a head the longest go first where
    they are not equally long, so that no long one is left over at the end.
    """
    program = tl.program_id(0)
    tile = program % n_tiles
    if LAST_FIRST:
        tile = n_tiles - 1 - tile
    batch_head = program // n_tiles
    return tile, batch_head, batch_head // n_head, batch_head % n_head


@triton.jit
def head_of(x, batch, head):
    """Take one head of one sequence: [batch, head, row, feature] -> [row, feature]."""
    offset = batch.to(tl.int64) * x.strides[0] + head.to(tl.int64) * x.strides[1]
    return Strided(x.ptr + offset, x.strides[2:])


@triton.jit
def from_row(x, first):
    """Leave out the rows before `first`."""
    # int64, here and for every position that meets a stride: their product passes 2^31.
    return Strided(x.ptr + tl.cast(first, tl.int64) * x.strides[0], x.strides)


@triton.jit
def load_features(x, rows, features, inside, MASKED: tl.constexpr, D_HEAD: tl.constexpr):
    """Load some features of some rows, 0 beyond D_HEAD and where not inside: [row, feature]."""
    at = block_at(x, rows, features)
    if MASKED:
        values = tl.load(at, mask=inside[:, None] & (features < D_HEAD)[None, :], other=0.0)
    elif features_per_tile(D_HEAD) > D_HEAD:
        values = tl.load(at, mask=(features < D_HEAD)[None, :], other=0.0)
    else:
        values = tl.load(at)
    return values


@triton.jit
def load_tile(x, rows, inside, MASKED: tl.constexpr, D_HEAD: tl.constexpr):
    """Load rows of a head as a Tile; `inside` is not looked at unless MASKED."""
    features = tl.arange(0, features_per_tile(D_HEAD))
    return Tile(load_features(x, rows, features, inside, MASKED, D_HEAD), x, rows, inside)


@triton.jit
def store_tile(x, rows, values, inside, D_HEAD: tl.constexpr):
    """Store rows of a head."""
    features = tl.arange(0, features_per_tile(D_HEAD))
    inside = inside[:, None] & (features < D_HEAD)[None, :]
    tl.store(block_at(x, rows, features), values, mask=inside)


@triton.jit
def row_products(left, right, MASKED: tl.constexpr, D_HEAD: tl.constexpr):
    """Multiply each row of a masked Tile with each of another: float32 [left row, right row].

    MASKED says whether the right one is masked, too. A tensor core reads whole tiles. 4-byte floats
    are multiplied from registers, and a thread would hold all features of its rows, more than it
    has registers: they are read again, a few at a time.
    """
    if left.block.dtype == tl.float32:
        BLOCK_D: tl.constexpr = features_per_tile(D_HEAD)
        FEATURES: tl.constexpr = min(BLOCK_D, FLOAT32_FEATURES)
        product = tl.zeros([left.block.shape[0], right.block.shape[0]], tl.float32)
        for first in tl.range(0, BLOCK_D, FEATURES, num_stages=1):
            features = first + tl.arange(0, FEATURES)
            some_left = load_features(left.x, left.rows, features, left.inside, True, D_HEAD)
            some_right = load_features(right.x, right.rows, features, right.inside, MASKED, D_HEAD)
            product = tl.dot(some_left, tl.trans(some_right), product, input_precision="ieee")
    else:
        product = tl.dot(left.block, tl.trans(right.block))
    return product


@triton.jit
def load_statistic(ptr, queries, inside, outside, MASKED: tl.constexpr):
    """Load one number for each query; `outside` where it is not inside."""
    if MASKED:
        x = tl.load(ptr + queries, mask=inside, other=outside)
    else:
        x = tl.load(ptr + queries)
    return x


@triton.jit
def load_lse(ptr, queries, inside, MASKED: tl.constexpr):
    """Load lse in units of log 2; +∞ where not inside or where nothing was seen.

    exp(s − ∞) is 0, and so is every gradient there; exp(s + ∞) would not be.
    """
    lse = load_statistic(ptr, queries, inside, float("inf"), MASKED)
    return tl.where(lse == -float("inf"), float("inf"), lse) * LOG2_E_CONSTANT


# --- who sees whom --------------------------------------------------------------------------------


@triton.jit
def load_key_start(batch, n_key, masks):
    """Load where a sequence's keys start, from 0 to n_key; 0 if there is no left padding."""
    key_start = batch * 0
    if masks.key_start is not None:
        key_start = tl.minimum(tl.maximum(tl.load(masks.key_start + batch), 0), n_key)
    return key_start


@triton.jit
def key_interval(queries, key_start, n_query, n_key, masks):
    """Return low and high of each query, in any shape."""
    low = queries * 0 + key_start
    if masks.causal:
        high = queries + (n_key - n_query) + 1
    else:
        high = queries * 0 + n_key
    if masks.document_start is not None:
        inside = queries < n_query
        low = tl.maximum(low, tl.load(masks.document_start + queries, mask=inside, other=0))
        high = tl.minimum(high, tl.load(masks.document_end + queries, mask=inside, other=0))
    if masks.window is not None:
        low = tl.maximum(low, high - masks.window)
    return low, high


@triton.jit
def key_stretch(first_query, BLOCK_QUERIES: tl.constexpr, key_start, n_query, n_key, masks):
    """Say which keys a tile of queries reads: start, full_start, full_end, end."""
    last_query = tl.minimum(first_query + BLOCK_QUERIES, n_query) - 1
    start, full_end = key_interval(first_query, key_start, n_query, n_key, masks)
    full_start, end = key_interval(last_query, key_start, n_query, n_key, masks)
    return start, full_start, full_end, end


@triton.jit
def query_stretch(first_key, end_key, n_query, n_key, masks):
    """Say which queries see a tile of keys: start, full_start, full_end, end.

    `first_key` and `end_key` are the first and the one after the last of its keys that anyone sees.
    Where core/attention/key_intervals.py searches the sorted bounds, here each is solved for the
    query.
    """
    start = first_key * 0
    full_start, full_end, end = start, start + n_query, start + n_query
    shift = n_key - n_query
    if masks.causal:
        start = tl.maximum(start, first_key - shift)
        full_start = tl.maximum(full_start, end_key - 1 - shift)
        if masks.window is not None:
            full_end = tl.minimum(full_end, first_key + masks.window - shift)
            end = tl.minimum(end, end_key - 1 + masks.window - shift)
    if masks.document_start is not None:
        some = first_key < end_key
        starts_at, ends_at = masks.document_start, masks.document_end
        last_key = end_key - 1
        start = tl.maximum(start, tl.load(starts_at + first_key, mask=some, other=0))
        full_start = tl.maximum(full_start, tl.load(starts_at + last_key, mask=some, other=0))
        full_end = tl.minimum(full_end, tl.load(ends_at + first_key, mask=some, other=0))
        end = tl.minimum(end, tl.load(ends_at + last_key, mask=some, other=0))
    end = tl.where(first_key < end_key, end, 0)
    full_end = tl.minimum(full_end, end)
    return start, full_start, full_end, end


@triton.jit
def parts(start, full_start, full_end, end, BLOCK: tl.constexpr):
    """Cut a stretch into masked blocks, blocks that need no mask, and masked blocks.

    Returns where each of the three starts, and where each ends. What needs no mask is rounded
    inwards to whole blocks, counted from the start.
    """
    before = tl.maximum(full_start - start, 0)
    full_start = start + before + (BLOCK - before % BLOCK) % BLOCK
    without_mask = tl.maximum(full_end - full_start, 0)
    full_end = full_start + without_mask - without_mask % BLOCK
    return (start, full_start, full_end), (tl.minimum(full_start, end), full_end, end)


@triton.jit
def is_kept(dropout, seed, batch_head, queries, keys):
    """Draw dropout's mask: True where a weight is kept; `queries` and `keys` broadcast.

    One Philox for each pair, at its own coordinates (core/attention/attention.py): the same in any
    tiling.
    """
    zero = (queries + keys) * 0
    word, _, _, _ = tl.philox(seed, zero + keys, zero + queries, zero + batch_head, zero)
    return (word >> DROPOUT_SHIFT).to(tl.int32) >= dropout.threshold


# --- on the host ----------------------------------------------------------------------------------


def mask_arguments(
    query: torch.Tensor, key: torch.Tensor, masks: Masks, dropout: float, seed: int
) -> tuple[Any, ...]:
    """Return what every kernel takes after its tensors.

    Parameters
    ----------
    masks : Masks
        From `Masks.of`.

    Returns
    -------
    tuple
        masks, dropout, seed, n_head, n_query, n_key, tuned_for.
    """
    (_, n_head, n_query, _), n_key = query.shape, key.shape[2]
    # In 32 bits a window, of 2^30 at the most, is added to a position: n_key, if all is padding.
    expect_countable("attention", most=2**30 - 1, queries=n_query, keys=n_key)
    length_bucket = max(16, triton.next_power_of_2(max(n_query, n_key)))
    drop = Dropout(dropout_threshold(dropout), 1 / (1 - dropout)) if dropout > 0 else None
    flags = (masks.causal, masks.window is not None, masks.document_start is not None, dropout > 0)
    tuned_for = (length_bucket, *map(int, flags))
    return masks.argument(length_bucket), drop, seed, n_head, n_query, n_key, tuned_for


def tile_grid(tensor: torch.Tensor, which: str, rows: Any = rows_per_tile) -> Any:
    """Return a launch's grid: a program for each tile of each head of each sequence.

    Parameters
    ----------
    tensor : torch.Tensor [batch, head, row, d_head]
        What is cut into tiles.
    which : str
        The constant that gives the tile's bytes.
    rows : callable
        How the kernel turns them into rows.

    Returns
    -------
    function from the constants to a tuple
        One axis: the others end at 65,535.
    """
    n_batch, n_head, n_rows, d_head = tensor.shape

    def grid(meta: dict[str, Any]) -> tuple[int, ...]:
        block = rows(meta[which], d_head, tensor.element_size())
        return (triton.cdiv(n_rows, block) * n_batch * n_head,)

    return grid
