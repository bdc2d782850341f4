"""Small kernels, each in two forms: one with a fault at some size, and the same mended.

`CONTRACTS` are what launches promise. A kernel's fault need not show in the launch of its driver,
which tells the prover which arguments there are, and nothing of their sizes.
"""

import torch
import triton
import triton.language as tl

ROWS = "x_ptr[n]; y_ptr[n]; grid[cdiv(n, BLOCK)]"
MATRIX = "x_ptr[n_rows:stride, n_columns:1]; y_ptr[n_rows, n_columns]; grid[n_rows]"


# --- in bounds ---


@triton.jit
def no_mask_broken(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at), mask=at < n)


@triton.jit
def no_mask_fixed(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


@triton.jit
def off_by_one_broken(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at <= n), mask=at < n)


@triton.jit
def wrong_column_broken(x_ptr, y_ptr, n_rows, n_columns, stride, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + columns, mask=columns < stride)
    tl.store(y_ptr + row * n_columns + columns, x, mask=columns < n_columns)


@triton.jit
def wrong_column_fixed(x_ptr, y_ptr, n_rows, n_columns, stride, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + columns, mask=columns < n_columns)
    tl.store(y_ptr + row * n_columns + columns, x, mask=columns < n_columns)


@triton.jit
def gather_broken(ids_ptr, table_ptr, y_ptr, n, vocab, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ids = tl.load(ids_ptr + at, mask=at < n, other=0)
    tl.store(y_ptr + at, tl.load(table_ptr + ids, mask=ids < vocab), mask=at < n)


@triton.jit
def gather_fixed(ids_ptr, table_ptr, y_ptr, n, vocab, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ids = tl.load(ids_ptr + at, mask=at < n, other=0)
    tl.store(y_ptr + at, tl.load(table_ptr + ids, mask=(ids >= 0) & (ids < vocab)), mask=at < n)


@triton.jit
def nested_broken(x_ptr, y_ptr, n_rows, n_columns, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for row in range(0, n_rows):
        at = x_ptr + tl.cast(row, tl.int64) * n_columns + tl.arange(0, BLOCK)
        for _start in range(0, n_columns, BLOCK):
            total += tl.load(at, mask=tl.arange(0, BLOCK) < n_columns)
            at += BLOCK
    tl.store(y_ptr + tl.arange(0, BLOCK), total)


@triton.jit
def nested_fixed(x_ptr, y_ptr, n_rows, n_columns, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for row in range(0, n_rows):
        at = x_ptr + tl.cast(row, tl.int64) * n_columns + tl.arange(0, BLOCK)
        for start in range(0, n_columns, BLOCK):
            total += tl.load(at, mask=tl.arange(0, BLOCK) < n_columns - start)
            at += BLOCK
    tl.store(y_ptr + tl.arange(0, BLOCK), total)


@triton.jit
def while_broken(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    start, total = tl.cast(n, tl.int64) * 0, 0.0
    while start <= n:
        total += tl.load(x_ptr + start)
        start += 2
    tl.store(y_ptr, total)


@triton.jit
def while_fixed(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    start, total = tl.cast(n, tl.int64) * 0, 0.0
    while start < n:
        total += tl.load(x_ptr + start)
        start += 2
    tl.store(y_ptr, total)


# --- no wrap: the faults of widths, as they were before they were mended ---


@triton.jit
def row_offset_broken(x_ptr, y_ptr, n_rows, n_columns, stride, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + columns, mask=columns < n_columns)
    tl.store(y_ptr + row.to(tl.int64) * n_columns + columns, x, mask=columns < n_columns)


@triton.jit
def row_offset_fixed(x_ptr, y_ptr, n_rows, n_columns, stride, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + columns, mask=columns < n_columns)
    tl.store(y_ptr + row * n_columns + columns, x, mask=columns < n_columns)


@triton.jit
def extended_too_late_broken(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = (tl.program_id(0) * BLOCK).to(tl.int64) + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


@triton.jit
def loop_counter(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, n, BLOCK):
        inside = tl.arange(0, BLOCK) < n - start
        at = tl.cast(start, tl.int64) + tl.arange(0, BLOCK)
        total += tl.load(x_ptr + at, mask=inside)
    tl.store(y_ptr + tl.arange(0, BLOCK), total)


@triton.jit
def tiles(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    last = tl.cdiv(n, BLOCK) - 1
    at = (last - tl.program_id(0)).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


# The same, mended as they were in the project: extended in time, or sizes so large refused by name.


@triton.jit
def extended_in_time_fixed(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


@triton.jit
def loop_counter_fixed(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, n, BLOCK):
        inside = tl.arange(0, BLOCK) < n - start
        at = tl.cast(start, tl.int64) + tl.arange(0, BLOCK)
        total += tl.load(x_ptr + at, mask=inside)
    tl.store(y_ptr + tl.arange(0, BLOCK), total)


@triton.jit
def tiles_fixed(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    last = tl.cdiv(n, BLOCK) - 1
    at = (last - tl.program_id(0)).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


@triton.jit
def two_parts_broken(y_ptr, BLOCK: tl.constexpr):
    programs = 2 * tl.num_programs(0)  # reward_loss's partial sums, before: 2^31 at 2^30 programs
    tl.store(y_ptr + tl.program_id(0).to(tl.int64), 0.0)
    tl.store(y_ptr + (programs - 1 - tl.program_id(0)).to(tl.int64), 1.0)


@triton.jit
def two_parts_fixed(y_ptr, BLOCK: tl.constexpr):
    programs = 2 * tl.num_programs(0).to(tl.int64)
    tl.store(y_ptr + tl.program_id(0).to(tl.int64), 0.0)
    tl.store(y_ptr + programs - 1 - tl.program_id(0), 1.0)


# --- no race, all written ---


@triton.jit
def overlapping_broken(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * (BLOCK - 1) + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


@triton.jit
def shift_broken(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at + 1, mask=at + 1 < n)
    tl.store(x_ptr + at, x, mask=at + 1 < n)


@triton.jit
def shift_fixed(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(x_ptr + at, x + 1, mask=at < n)


@triton.jit
def unwritten_broken(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at + 1 < n)


@triton.jit
def reversed_tiles_fixed(x_ptr, y_ptr, n_rows, n_columns, BLOCK: tl.constexpr):
    columns = tl.cdiv(n_columns, BLOCK)
    row = (tl.program_id(0) // columns).to(tl.int64)
    tile = columns - 1 - tl.program_id(0) % columns
    at = tile.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n_columns + at, mask=at < n_columns)
    tl.store(y_ptr + row * n_columns + at, x, mask=at < n_columns)


# --- what a prover must not believe -------------------------------------------------------------


@triton.jit
def contradicted(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at))


@triton.jit
def never_reached(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)
    if n < 0:
        tl.store(y_ptr + at, 0.0)


@triton.jit
def from_a_table(table_ptr, BLOCK: tl.constexpr):
    x_ptr = tl.load(table_ptr).to(tl.pointer_type(tl.float32))
    tl.store(x_ptr + tl.arange(0, BLOCK), 0.0)


@triton.jit
def without_a_contract(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


@triton.jit
def one_stride_for_both(x_ptr, y_ptr, stride, n_columns, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + columns, mask=columns < n_columns)
    tl.store(y_ptr + row * stride + columns, x, mask=columns < n_columns)


# --- contracts, and what the kernels are given ---

IDS = "ids_ptr[n]; table_ptr[vocab]; y_ptr[n]; grid[cdiv(n, BLOCK)]"
WHOLE_ROWS = MATRIX + "; n_columns <= BLOCK"
SUMS = "x_ptr[n]; y_ptr[BLOCK]"
CONTRACTS = {
    "no_mask_broken": ROWS,
    "no_mask_fixed": ROWS,
    "off_by_one_broken": ROWS,
    "wrong_column_broken": WHOLE_ROWS + "; stride <= BLOCK",
    "wrong_column_fixed": WHOLE_ROWS,
    "gather_broken": IDS,
    "gather_fixed": IDS,
    "nested_broken": "x_ptr[n_rows, n_columns]; y_ptr[BLOCK]; n_columns <= 2**30; n_rows <= 2**30",
    "nested_fixed": "x_ptr[n_rows, n_columns]; y_ptr[BLOCK]; n_columns <= 2**30; n_rows <= 2**30",
    "while_broken": "x_ptr[n]; y_ptr[1]",
    "while_fixed": "x_ptr[n]; y_ptr[1]",
    "row_offset_broken": WHOLE_ROWS,
    "row_offset_fixed": WHOLE_ROWS,
    "extended_too_late_broken": ROWS,
    "loop_counter": SUMS,
    "tiles": ROWS,
    "extended_in_time_fixed": ROWS,
    "loop_counter_fixed": SUMS + "; n <= MOST_COUNTED",
    "tiles_fixed": ROWS + "; n <= MOST_COUNTED",
    "two_parts_broken": "y_ptr[2 * n]; grid[n]",
    "two_parts_fixed": "y_ptr[2 * n]; grid[n]",
    "overlapping_broken": ROWS,
    "shift_broken": "x_ptr[n]; grid[cdiv(n, BLOCK)]; partly(x_ptr)",
    "shift_fixed": "x_ptr[n]; grid[cdiv(n, BLOCK)]",
    "unwritten_broken": ROWS,
    "contradicted": ROWS + "; n > 5; n < 3",
    "never_reached": ROWS,
    "from_a_table": "table_ptr[1]",
    "reversed_tiles_fixed": (
        "x_ptr[n_rows, n_columns]; y_ptr[n_rows, n_columns]; n_columns <= 2**30; "
        "grid[n_rows * cdiv(n_columns, BLOCK)]"
    ),
}


def launch(kernel, *arguments):
    kernel[(1,)](*arguments, BLOCK=16)
    return arguments[0]


def drive_vectors():
    x, y = torch.zeros(16), torch.empty(16)
    for kernel in (
        no_mask_broken, no_mask_fixed, off_by_one_broken, extended_too_late_broken, loop_counter,
        tiles, extended_in_time_fixed, loop_counter_fixed, tiles_fixed, overlapping_broken,
        unwritten_broken, while_broken, while_fixed,
        contradicted, never_reached,
    ):  # fmt: skip
        launch(kernel, x, y, 16)
    for kernel in (two_parts_broken, two_parts_fixed):
        kernel[(8,)](y, BLOCK=16)
    for kernel in (shift_broken, shift_fixed):
        launch(kernel, x, 16)
    from_a_table[(1,)](torch.zeros(1, dtype=torch.int64), BLOCK=16)
    for n in (16, 100, 37):
        x = torch.zeros(n)
        without_a_contract[(triton.cdiv(n, 16),)](x, torch.empty(n), n, BLOCK=16)
    return y


def drive_rows():
    for rows, columns in ((3, 16), (5, 12), (7, 13)):
        x, y = torch.zeros(rows, columns), torch.empty(rows, columns)
        one_stride_for_both[(rows,)](x, y, columns, columns, BLOCK=16)
    return y


def drive_matrices():
    x, y = torch.zeros(1, 16), torch.empty(1, 16)
    for kernel in (wrong_column_broken, wrong_column_fixed, row_offset_broken, row_offset_fixed):
        launch(kernel, x, y, 1, 16, 16)
    for kernel in (nested_broken, nested_fixed, reversed_tiles_fixed):
        launch(kernel, x, y, 1, 16)
    return y


def drive_gathers():
    ids, table, y = torch.zeros(16, dtype=torch.int64), torch.zeros(16), torch.empty(16)
    for kernel in (gather_broken, gather_fixed):
        launch(kernel, ids, table, y, 16, 16)
    return y
