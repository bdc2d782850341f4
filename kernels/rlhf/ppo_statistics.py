"""The sums that blocks of tokens leave behind, and the kernel that adds them up for the PPO loss.

Each block of tokens writes one column of a [16, block] float32 matrix, whose rows are named below.
One program then reduces each row to a number, and forms the loss and its statistics.

Variances: each block sums squares about its own mean; from the blocks' counts, sums and squares
Σ (x − mean)² over all is Σ_blocks (squares + count·(block mean − mean)²) (Chan, Golub & LeVeque
1979), so that a large mean costs no digits.

Deterministic: one order of summation. No atomics.
"""

from typing import Any, NamedTuple

from ..common._triton import tl, triton

_INFINITY = tl.constexpr(float("inf"))

# The rows of the partial sums: one float32 per block and row.
N_ROWS = 16
COUNT = tl.constexpr(0)
POLICY_LOSS = tl.constexpr(1)
SQUARED_ERROR = tl.constexpr(2)  # of the values: the larger of the two
ENTROPY = tl.constexpr(3)
SQUARED_LOG_RATIO = tl.constexpr(4)
POLICY_BINDS = tl.constexpr(5)
VALUE_BINDS = tl.constexpr(6)
RATIO = tl.constexpr(7)
RATIO_MIN = tl.constexpr(8)
RATIO_MAX = tl.constexpr(9)
RETURN = tl.constexpr(10)
RETURN_SQUARES = tl.constexpr(11)  # about the block's mean
RETURN_MIN = tl.constexpr(12)
RETURN_MAX = tl.constexpr(13)
ERROR = tl.constexpr(14)
ERROR_SQUARES = tl.constexpr(15)  # about the block's mean


class Sums(NamedTuple):
    """What the blocks leave: float32 [N_ROWS, n_columns], contiguous, one column a block."""

    ptr: Any
    n_columns: Any


@triton.jit
def squares_about_mean(x, counts, count):
    """Σ (x − mean)² over the counted elements of one block, x being 0 elsewhere."""
    away = tl.where(counts, x - tl.sum(x) / tl.maximum(count, 1.0), 0.0)
    # The mean is rounded: the second term takes out what that adds.
    return tl.sum(away * away) - tl.sum(away) * tl.sum(away) / tl.maximum(count, 1.0)


@triton.jit
def _load_row(sums, ROW: tl.constexpr, start, other, BLOCK: tl.constexpr):
    columns = start + tl.arange(0, BLOCK)
    row_at = sums.ptr + tl.cast(sums.n_columns, tl.int64) * ROW
    return tl.load(row_at + columns, mask=columns < sums.n_columns, other=other)


@triton.jit
def _sum_row(sums, ROW: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, sums.n_columns, BLOCK):
        total += _load_row(sums, ROW, start, 0.0, BLOCK)
    return tl.sum(total)


@triton.jit
def _count_row(sums, ROW: tl.constexpr, BLOCK: tl.constexpr):
    """Σ of the blocks' counts, in integers: each is exact, and in float32 sums up to 2²⁴ alone."""
    total = tl.zeros([BLOCK], tl.int64)
    for start in range(0, sums.n_columns, BLOCK):
        total += _load_row(sums, ROW, start, 0.0, BLOCK).to(tl.int64)
    return tl.sum(total).to(tl.float32)


@triton.jit
def _min_row(sums, ROW: tl.constexpr, BLOCK: tl.constexpr):
    smallest = tl.full([BLOCK], _INFINITY, tl.float32)
    for start in range(0, sums.n_columns, BLOCK):
        x = _load_row(sums, ROW, start, _INFINITY, BLOCK)
        smallest = tl.minimum(smallest, x)
    return tl.min(smallest)


@triton.jit
def _max_row(sums, ROW: tl.constexpr, BLOCK: tl.constexpr):
    largest = tl.full([BLOCK], -_INFINITY, tl.float32)
    for start in range(0, sums.n_columns, BLOCK):
        x = _load_row(sums, ROW, start, -_INFINITY, BLOCK)
        largest = tl.maximum(largest, x)
    return tl.max(largest)


@triton.jit
def _combined_squares(sums, SUM: tl.constexpr, SQUARES: tl.constexpr, mean, BLOCK: tl.constexpr):
    """Σ (x − mean)² over all tokens, from each block's sum and squares about its own mean."""
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, sums.n_columns, BLOCK):
        count = _load_row(sums, COUNT, start, 0.0, BLOCK)
        block_sum = _load_row(sums, SUM, start, 0.0, BLOCK)
        squares = _load_row(sums, SQUARES, start, 0.0, BLOCK)
        away = block_sum / tl.maximum(count, 1.0) - mean
        total += squares + count * away * away
    return tl.sum(total)


@triton.jit
def ppo_loss_statistics_kernel(
    sums,  # Sums
    loss_ptr,  # []
    statistics_ptr,  # [11], in the order of PPOResults after the loss
    value_coefficient,
    entropy_coefficient,
    BLOCK: tl.constexpr,
):
    """One program: the blocks' sums into the loss and its statistics."""
    count = _count_row(sums, COUNT, BLOCK)
    n = tl.maximum(count, 1.0)
    policy_loss = _sum_row(sums, POLICY_LOSS, BLOCK) / n
    value_loss = _sum_row(sums, SQUARED_ERROR, BLOCK) / n * 0.5
    entropy = _sum_row(sums, ENTROPY, BLOCK) / n
    squared = _sum_row(sums, SQUARED_LOG_RATIO, BLOCK)
    policy_binds = _count_row(sums, POLICY_BINDS, BLOCK)
    value_binds = _count_row(sums, VALUE_BINDS, BLOCK)
    ratio = _sum_row(sums, RATIO, BLOCK)
    ratio_min = _min_row(sums, RATIO_MIN, BLOCK)
    ratio_max = _max_row(sums, RATIO_MAX, BLOCK)

    mean = _sum_row(sums, RETURN, BLOCK) / n
    squares = _combined_squares(sums, RETURN, RETURN_SQUARES, mean, BLOCK)
    error_mean = _sum_row(sums, ERROR, BLOCK) / n
    error_squares = _combined_squares(sums, ERROR, ERROR_SQUARES, error_mean, BLOCK)
    lowest = _min_row(sums, RETURN_MIN, BLOCK)
    highest = _max_row(sums, RETURN_MAX, BLOCK)
    # Rounding gives equal returns squares above 0, so their extremes decide whether they vary. The
    # extremes pass a NaN over, the squares do not.
    is_nan = squares != squares
    varies = (((lowest != highest) & (squares > 0.0)) | is_nan) & (count > 0.0)
    explained = tl.where(varies, 1.0 - error_squares / tl.where(varies, squares, 1.0), 0.0)

    loss = policy_loss + value_loss * value_coefficient - entropy * entropy_coefficient
    tl.store(loss_ptr, loss)
    tl.store(statistics_ptr + 0, policy_loss)
    tl.store(statistics_ptr + 1, value_loss)
    tl.store(statistics_ptr + 2, entropy)
    tl.store(statistics_ptr + 3, squared / n * 0.5)
    tl.store(statistics_ptr + 4, policy_binds / n)
    tl.store(statistics_ptr + 5, value_binds / n)
    tl.store(statistics_ptr + 6, ratio / n)
    no_ratio = ratio != ratio  # a NaN, which the extremes pass over; the ratios are bounded
    ratio_min, ratio_max = (
        tl.where(no_ratio, ratio, ratio_min),
        tl.where(no_ratio, ratio, ratio_max),
    )
    tl.store(statistics_ptr + 7, tl.where(count > 0.0, ratio_min, 0.0))
    tl.store(statistics_ptr + 8, tl.where(count > 0.0, ratio_max, 0.0))
    tl.store(statistics_ptr + 9, explained)
    tl.store(statistics_ptr + 10, count)
