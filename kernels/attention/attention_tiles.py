"""What the attention kernels share: sizes of tiles, their place, who sees whom, and dropout.

Every mask is an interval of keys for each query, [low, high), whose ends never decrease along the
queries (core/attention/key_intervals.py proves and pictures it). A program therefore computes from
its first and last position alone which tiles it has to read, and which of those need no mask:
`key_stretch` for a tile of queries, `query_stretch` for a tile of keys. Stretches are walked from
their very first position on, not from a multiple of the block size: no block is read for a few of
its keys.
"""

import dataclasses
import math
from typing import Any

import torch

from ...core.attention.attention import DROPOUT_BITS, dropout_threshold
from ..common._triton import tl, triton
from ..common.rows import tile_at

# What a configuration's speed depends on.
TUNING_KEY = ["BLOCK_D", "CAUSAL", "HAS_WINDOW", "HAS_DOCUMENTS", "DROPOUT", "length_bucket"]
# Numbers that are no stride: to compile a kernel again where one happens to be a multiple of 16,
# or 1, gains nothing. A seed does in one of 16 steps, a length in one of 16 sequences.
NOT_SPECIALIZED = [
    "n_head", "n_query", "n_key", "length_bucket", "window", "seed", "dropout_threshold",
]  # fmt: skip
LOG2_E = math.log2(math.e)
LOG2_E_CONSTANT = tl.constexpr(LOG2_E)
DROPOUT_SHIFT = tl.constexpr(32 - DROPOUT_BITS)
# Below it a block is mostly overhead, above it a tile of scores no longer fits into the registers.
SMALLEST_BLOCK, LARGEST_BLOCK = 32, 128
SMALLEST_D = 16  # of tl.dot
FLOAT32_FEATURES = tl.constexpr(16)


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
def load_rows(
    ptr,
    rows,  # [BLOCK]
    features,  # [BLOCK_D]
    inside,  # [BLOCK] bool; not looked at unless MASKED
    row_stride,
    feature_stride,
    MASKED: tl.constexpr,
    D_HEAD: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Load rows of one head, 0 beyond D_HEAD and where not inside: [BLOCK, BLOCK_D]."""
    at = tile_at(ptr, rows.to(tl.int64), features, row_stride, feature_stride)
    if MASKED:
        x = tl.load(at, mask=inside[:, None] & (features < D_HEAD)[None, :], other=0.0)
    elif D_HEAD < BLOCK_D:
        x = tl.load(at, mask=(features < D_HEAD)[None, :], other=0.0)
    else:
        x = tl.load(at)
    return x


@triton.jit
def row_products(
    left,  # [BLOCK_LEFT, BLOCK_D], as load_rows returns it, masked
    right,  # [BLOCK_RIGHT, BLOCK_D], likewise, masked if MASKED
    left_ptr,  # and what load_rows was told for each
    left_rows,
    left_inside,
    left_row_stride,
    left_feature_stride,
    right_ptr,
    right_rows,
    right_inside,
    right_row_stride,
    right_feature_stride,
    MASKED: tl.constexpr,
    D_HEAD: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Multiply each row of `left` with each of `right`: float32 [BLOCK_LEFT, BLOCK_RIGHT].

    A tensor core reads whole tiles. 4-byte floats are multiplied from registers, and a thread would
    hold all features of its rows, more than it has registers: they are read again, a few at a time.
    """
    if left.dtype == tl.float32:
        FEATURES: tl.constexpr = min(BLOCK_D, FLOAT32_FEATURES)
        product = tl.zeros([left.shape[0], right.shape[0]], tl.float32)
        for first in tl.range(0, BLOCK_D, FEATURES, num_stages=1):
            features = first + tl.arange(0, FEATURES)
            some_left = load_rows(
                left_ptr, left_rows, features, left_inside, left_row_stride, left_feature_stride,
                True, D_HEAD, BLOCK_D,
            )  # fmt: skip
            some_right = load_rows(
                right_ptr, right_rows, features, right_inside, right_row_stride,
                right_feature_stride, MASKED, D_HEAD, BLOCK_D,
            )  # fmt: skip
            product = tl.dot(some_left, tl.trans(some_right), product, input_precision="ieee")
    else:
        product = tl.dot(left, tl.trans(right))
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


@triton.jit
def key_interval(
    queries,  # any shape
    key_start,
    n_query,
    n_key,
    window,
    document_start_ptr,
    document_end_ptr,
    CAUSAL: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
):
    """Return low and high of each query."""
    low = queries * 0 + key_start
    if CAUSAL:
        high = queries + (n_key - n_query) + 1
        if HAS_WINDOW:
            low = tl.maximum(low, high - window)
    else:
        high = queries * 0 + n_key
    if HAS_DOCUMENTS:
        inside = queries < n_query
        low = tl.maximum(low, tl.load(document_start_ptr + queries, mask=inside, other=0))
        high = tl.minimum(high, tl.load(document_end_ptr + queries, mask=inside, other=0))
    return low, high


@triton.jit
def load_key_start(key_start_ptr, batch, HAS_KEY_START: tl.constexpr):
    """Load where a sequence's keys start; 0 if there is no left padding."""
    key_start = batch * 0
    if HAS_KEY_START:
        key_start = tl.maximum(tl.load(key_start_ptr + batch), 0)
    return key_start


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
def key_stretch(
    first_query,
    BLOCK_QUERIES: tl.constexpr,
    key_start,
    n_query,
    n_key,
    window,
    document_start_ptr,
    document_end_ptr,
    CAUSAL: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
):
    """Say which keys a tile of queries reads: start, full_start, full_end, end."""
    last_query = tl.minimum(first_query + BLOCK_QUERIES, n_query) - 1
    start, full_end = key_interval(
        first_query, key_start, n_query, n_key, window, document_start_ptr, document_end_ptr,
        CAUSAL, HAS_WINDOW, HAS_DOCUMENTS,
    )  # fmt: skip
    full_start, end = key_interval(
        last_query, key_start, n_query, n_key, window, document_start_ptr, document_end_ptr,
        CAUSAL, HAS_WINDOW, HAS_DOCUMENTS,
    )  # fmt: skip
    return start, full_start, full_end, end


@triton.jit
def query_stretch(
    first_key,  # int32, the first and the one after the last key of the tile that anyone sees
    end_key,
    n_query,
    n_key,
    window,
    document_start_ptr,
    document_end_ptr,
    CAUSAL: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
):
    """Say which queries see a tile of keys: start, full_start, full_end, end.

    Where core/attention/key_intervals.py searches the sorted bounds, here each is solved for the
    query.
    """
    start = first_key * 0
    full_start, full_end, end = start, start + n_query, start + n_query
    shift = n_key - n_query
    if CAUSAL:
        start = tl.maximum(start, first_key - shift)
        full_start = tl.maximum(full_start, end_key - 1 - shift)
        if HAS_WINDOW:
            full_end = tl.minimum(full_end, first_key + window - shift)
            end = tl.minimum(end, end_key - 1 + window - shift)
    if HAS_DOCUMENTS:
        some = first_key < end_key
        last_key = end_key - 1
        start = tl.maximum(start, tl.load(document_start_ptr + first_key, mask=some, other=0))
        full_start = tl.maximum(
            full_start, tl.load(document_start_ptr + last_key, mask=some, other=0)
        )
        full_end = tl.minimum(full_end, tl.load(document_end_ptr + first_key, mask=some, other=0))
        end = tl.minimum(end, tl.load(document_end_ptr + last_key, mask=some, other=0))
    end = tl.where(first_key < end_key, end, 0)
    full_end = tl.minimum(full_end, end)
    return start, full_start, full_end, end


@triton.jit
def is_kept(seed, threshold, batch_head, queries, keys):
    """Draw dropout's mask: True where a weight is kept; `queries` and `keys` broadcast.

    One Philox for each pair, at its own coordinates (core/attention/attention.py): the same in any
    tiling.
    """
    zero = (queries + keys) * 0
    word, _, _, _ = tl.philox(seed, zero + keys, zero + queries, zero + batch_head, zero)
    return (word >> DROPOUT_SHIFT).to(tl.int32) >= threshold


# --- on the host ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Masks:
    """The masks of one call, as the kernels take them.

    Attributes
    ----------
    causal, window
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
        causal, window, key_start, cu_seqlens
            As in `attention`.

        Returns
        -------
        Masks
        """
        start = end = None
        if cu_seqlens is not None:
            positions = torch.arange(n_query, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
            # The last boundary at or before a position: documents of length 0 are stepped over.
            document = torch.searchsorted(cu_seqlens.contiguous(), positions, right=True) - 1
            bounds = torch.cat([cu_seqlens, cu_seqlens[-1:]]).int()
            start, end = bounds[document], bounds[document + 1]
        if key_start is not None:
            key_start = key_start.int().contiguous()
        return cls(causal, window, key_start, start, end)

    def arguments(self, query: torch.Tensor, key: torch.Tensor) -> tuple[Any, ...]:
        """Return what every kernel takes first after its tensors: pointers and sizes.

        Parameters
        ----------
        query, key : torch.Tensor
            As in `attention`.

        Returns
        -------
        tuple
            key_start, document_start, document_end (or `query` for None), n_head, n_query, n_key,
            length_bucket, window.
        """
        (_, n_head, n_query, _), n_key = query.shape, key.shape[2]
        pointers = (self.key_start, self.document_start, self.document_end)
        return (
            *(query if pointer is None else pointer for pointer in pointers),
            *(n_head, n_query, n_key),
            triton.next_power_of_2(max(n_query, n_key)),
            n_key if self.window is None else min(self.window, n_key),
        )

    def constants(self, query: torch.Tensor, key: torch.Tensor, dropout: float) -> dict[str, Any]:
        """Return the compile-time constants of every kernel.

        Parameters
        ----------
        query, key, dropout
            As in `attention`.

        Returns
        -------
        dict
        """
        d_head = query.shape[-1]
        return {
            "CAUSAL": self.causal,
            "HAS_WINDOW": self.window is not None,
            "HAS_KEY_START": self.key_start is not None,
            "HAS_DOCUMENTS": self.document_start is not None,
            "DROPOUT": dropout > 0,
            "GROUP": query.shape[1] // key.shape[1],
            "D_HEAD": d_head,
            "BLOCK_D": max(SMALLEST_D, triton.next_power_of_2(d_head)),
        }


def dropout_arguments(dropout: float, seed: int) -> tuple[int, int, float]:
    """Return what the kernels take for dropout: seed, threshold, 1/(1 − dropout).

    Parameters
    ----------
    dropout, seed
        As in `attention`.

    Returns
    -------
    tuple
    """
    return seed, dropout_threshold(dropout), 1 / (1 - dropout)


def tile_grid(
    n_positions: int,
    n_heads: int,
    tensor: torch.Tensor,
    d_head: int,
    which: str,
    rows: Any = rows_per_tile,
) -> Any:
    """Return a launch's grid: a program for each tile of each head of each sequence.

    Parameters
    ----------
    n_positions, n_heads : int
        Queries (or keys) of a head; heads of all sequences together.
    tensor : torch.Tensor
        Any of them, for its dtype.
    d_head : int
        Width of a head.
    which : str
        The constant that gives the tile's bytes.
    rows : callable
        How the kernel turns them into positions.

    Returns
    -------
    function from the constants to a tuple
        One axis: the others end at 65,535.
    """
    itemsize = tensor.element_size()

    def grid(meta: dict[str, Any]) -> tuple[int, ...]:
        block = rows(meta[which], d_head, itemsize)
        return (triton.cdiv(n_positions, block) * n_heads,)

    return grid
