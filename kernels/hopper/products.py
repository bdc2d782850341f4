"""What a warpgroup multiplies, and how its threads hold the numbers.

Four warps multiply together: a left factor of 64 rows, from shared memory or from registers, with a
right one from shared memory. They go on while the tensor cores work; `warpgroup_mma_wait(n)` waits
until n products at most are left, the newest.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import warpgroup_mma, warpgroup_mma_wait

ROWS = gl.constexpr(64)  # of a warpgroup's product
WARPGROUPS = gl.constexpr(2)  # of a program, beside the producer
# Registers of a thread. A program starts with as many for each of its twelve warps (three of the
# producer's four do nothing); the producer then gives up most of its own for the warpgroups'.
REGISTERS = 168
WORKER_REGISTERS = gl.constexpr([240, 24])  # the second warpgroup's, the producer's


@gluon.constexpr_function
def sums_layout(columns):
    """Return how a warpgroup's threads hold the float32 sums of a product, [64, columns]."""
    return gl.NVMMADistributedLayout([3, 0], [4, 1], [16, columns, 16])


@gluon.constexpr_function
def factor_layout(columns):
    """Return how they hold the left factor of a product that has so many columns."""
    return gl.DotOperandLayout(0, sums_layout(columns), 2)


@gluon.constexpr_function
def row_layout(columns):
    """Return how they hold one number for each row of a product with so many columns."""
    return gl.SliceLayout(1, sums_layout(columns))


@gluon.constexpr_function
def column_layout(columns):
    """Return how they hold one number for each column."""
    return gl.SliceLayout(0, sums_layout(columns))


@gluon.jit
def begin_row_products(left, right):
    """Begin to multiply each row of a tile with each of another: [left row, right row]."""
    COLUMNS: gl.constexpr = right.shape[0]
    nothing = gl.zeros([ROWS, COLUMNS], gl.float32, sums_layout(COLUMNS))
    return warpgroup_mma(left, right.permute((1, 0)), nothing, use_acc=False, is_async=True)


@gluon.jit
def start_from(numbers, COLUMNS: gl.constexpr):
    """Write numbers, a row or a column, into a product's sums, while no product is in flight.

    The wait has nothing to wait for: it keeps ptxas from writing them later, beside another
    product, which it would wait for first.
    """
    sums = gl.zeros([ROWS, COLUMNS], gl.float32, sums_layout(COLUMNS)) + numbers
    return warpgroup_mma_wait(0, deps=(sums,))


@gluon.jit
def begin_row_products_from(sums, left, right):
    """Begin to add the products of rows to sums."""
    return warpgroup_mma(left, right.permute((1, 0)), sums, is_async=True)


@gluon.jit
def as_factor(x, COLUMNS: gl.constexpr, DTYPE: gl.constexpr):
    """Round a product's sums, and lay them out as the left factor of one with so many columns."""
    return gl.convert_layout(x.to(DTYPE), factor_layout(COLUMNS))


@gluon.jit
def by_row(x, sums):
    """Lay a number for each row out beside a product's sums: [row] -> [row, 1]."""
    COLUMNS: gl.constexpr = sums.shape[1]
    return gl.convert_layout(x, row_layout(COLUMNS))[:, None]
