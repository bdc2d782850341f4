"""Kernels that a hasty prover calls safe, and harmless siblings: each holds a rule to account.

`broken_prover.py` breaks the rules one by one and asks about these, and about the kernels of
`small_kernels.py` and `slow_traps.py`.
"""

import torch
import triton
import triton.language as tl

# --- arithmetic ---


@triton.jit
def negative_product_broken(y_ptr, BLOCK: tl.constexpr):
    at = (8 - tl.arange(0, BLOCK)) * (tl.program_id(0) * 0 + 2**29)  # −7 · 2^29 does not fit
    tl.store(y_ptr + tl.arange(0, BLOCK), 0.0, mask=at < 0)


@triton.jit
def carried_over_broken(y_ptr, n, BLOCK: tl.constexpr):
    lane = tl.minimum(tl.arange(0, BLOCK), 8)
    at = (tl.program_id(0) * 8 + lane) // 8  # the last lanes belong to the next number
    tl.store(y_ptr + at, 0.0)


@triton.jit
def last_row_broken(y_ptr, n_rows, n_tiles, BLOCK: tl.constexpr):
    row = (tl.program_id(0) // n_tiles).to(tl.int64)
    tl.store(y_ptr + row, 0.0)


@triton.jit
def rows_and_tiles_fixed(y_ptr, n_rows, n_tiles, BLOCK: tl.constexpr):
    row, tile = tl.program_id(0) // n_tiles, tl.program_id(0) % n_tiles
    at = row.to(tl.int64) * n_tiles + n_tiles - 1 - tile
    tl.store(y_ptr + at * BLOCK + tl.arange(0, BLOCK), 0.0)


@triton.jit
def smaller_of_two_fixed(x_ptr, y_ptr, n, m, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < tl.minimum(n, m)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=inside), mask=inside)


@triton.jit
def larger_of_two_broken(x_ptr, y_ptr, n, m, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < tl.maximum(n, m)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=inside), mask=inside)


@triton.jit
def chosen_broken(y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + tl.where(at < n, 0, at), 0.0)


@triton.jit
def chosen_fixed(y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + tl.where(at < n, at, 0), 0.0, mask=n > 0)


@triton.jit
def other_branch_broken(y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64)
    if at < n:
        tl.store(y_ptr + at, 0.0)
    else:
        tl.store(y_ptr + at, 1.0)


@triton.jit
def narrow_sum_broken(y_ptr, n, BLOCK: tl.constexpr):
    # The sum is what is compared: that it wraps is no matter of its address alone.
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at.to(tl.int64), 0.0, mask=at < n)


@triton.jit
def one_too_large_broken(y_ptr, n, BLOCK: tl.constexpr):
    # Of the largest n that there is, n + 1 is one too large.
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 0.0, mask=at + 1 < n + 1)


@triton.jit
def up_to_n_broken(y_ptr, n, m, n_programs, BLOCK: tl.constexpr):
    # (n − 1)·m fits, and n·m need not.
    program, lane = tl.program_id(0), tl.arange(0, BLOCK)
    if program <= n:
        tl.store(y_ptr + lane, 0.0, mask=lane > program * m)


@triton.jit
def largest_of_each_row_broken(y_ptr, BLOCK: tl.constexpr):
    rows, lanes = tl.arange(0, 2)[:, None], tl.arange(0, BLOCK)[None, :]
    # 0 to 15, and −15 to 0: each row has its own largest, in a lane of its own.
    first, second = tl.split(tl.max(lanes * (1 - 2 * rows), axis=1))
    tl.store(y_ptr + first + second, 0.0)


@triton.jit
def rows_of_a_group_fixed(y_ptr, n_rows, n_tiles, BLOCK: tl.constexpr):
    group = tl.program_id(0) // (4 * n_tiles)
    rows = tl.minimum(n_rows - group * 4, 4)
    within = tl.program_id(0) % (4 * n_tiles)
    row, tile = group * 4 + within % rows, within // rows
    at = row.to(tl.int64) * n_tiles + tile
    tl.store(y_ptr + at * BLOCK + tl.arange(0, BLOCK), 0.0)


@triton.jit
def columns_left_over_broken(x, y_ptr, row_stride, column_stride, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    # The stride of columns is forgotten: where it is 2, half of them are others' gaps.
    at = row * row_stride + columns
    tl.store(y_ptr + row * BLOCK + columns, tl.load(x + at))


@triton.jit
def two_products_broken(x_ptr, y_ptr, n, m, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    tl.store(y_ptr + program, 0.0, mask=program * n < m * m)


@triton.jit
def moved_once_broken(x_ptr, n, BLOCK: tl.constexpr):
    # What is added in turn t, times t, is 0 in each turn; and yet the second turn is one further.
    at = tl.program_id(0).to(tl.int64) * 0
    for turn in range(0, n):
        tl.store(x_ptr + at, 0.0)
        at += tl.where(turn == 0, 1, 0)


@triton.jit
def of_this_turn_broken(ids_ptr, y_ptr, n, m, BLOCK: tl.constexpr):
    # What was kept satisfied its own turn's condition, with its own half: no other turn's.
    kept = tl.program_id(0).to(tl.int64) * 0
    for turn in range(0, n):
        new = tl.load(ids_ptr + turn)
        tl.store(y_ptr + kept, 0.0, mask=new < 2)
        kept = tl.where(new - new // 2 <= m, new, kept)


@triton.jit
def by_minus_one_broken(y_ptr, n, m, BLOCK: tl.constexpr):
    # −(−2^31) is −2^31, in 32 bits.
    at = n // -1
    tl.store(y_ptr + at, 0.0, mask=at < m)


# --- memory ---


@triton.jit
def nothing_read_broken(ids_ptr, table_ptr, y_ptr, n, vocab, BLOCK: tl.constexpr):
    # Where n is 0 nothing is read of ids, and an empty table has no number 0.
    at = tl.arange(0, BLOCK)
    ids = tl.load(ids_ptr + at, mask=at < n, other=0)
    tl.store(y_ptr + at, tl.load(table_ptr + ids), mask=at < n)


@triton.jit
def swapped_broken(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    here, there = x_ptr, y_ptr
    at = tl.arange(0, BLOCK)
    for _ in range(0, n):
        tl.store(here + at, 0.0)
        here, there = there, here


@triton.jit
def by_hand_broken(y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.inline_asm_elementwise("mov.b32 $0, 0;", "=r,r", [at], tl.int32, is_pure=False, pack=1)
    tl.store(y_ptr + at, x.to(tl.float32), mask=at < n)


# --- programs, and what they leave out ---


@triton.jit
def squared_broken(ids_ptr, y_ptr, BLOCK: tl.constexpr):
    # Of −1 and 1 the squares are one number.
    program = tl.program_id(0).to(tl.int64)
    number = tl.load(ids_ptr + program)
    mask = program // 5 * 5 + program % 5 == number + 8
    square = number * number
    tl.store(y_ptr + square // 3 * 3 + square % 3, 0.0, mask=mask)


@triton.jit
def added_up_fixed(y_ptr, n, BLOCK: tl.constexpr):
    tl.atomic_add(y_ptr + tl.arange(0, BLOCK), 1.0)


@triton.jit
def all_to_one_broken(y_ptr, n, BLOCK: tl.constexpr):
    tl.store(y_ptr + tl.arange(0, BLOCK), 1.0)


@triton.jit
def read_of_the_next_broken(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    following = tl.load(x_ptr + program + 1, mask=program + 1 < n, other=0.0)
    tl.store(y_ptr + program, following)
    tl.store(x_ptr + program, following)


@triton.jit
def in_steps_fixed(x_ptr, y_ptr, n, n_programs, BLOCK: tl.constexpr):
    for tile in range(tl.program_id(0), tl.cdiv(n, BLOCK), tl.num_programs(0)):
        at = tl.cast(tile, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


@triton.jit
def in_too_short_steps_broken(x_ptr, y_ptr, n, n_programs, BLOCK: tl.constexpr):
    for tile in range(tl.program_id(0), tl.cdiv(n, BLOCK), tl.num_programs(0) - 1):
        at = tl.cast(tile, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


@triton.jit
def nobody_there_broken(y_ptr, n_rows, n_heads, BLOCK: tl.constexpr):
    # Without heads there is no program, and rows are there all the same.
    row, head = (tl.program_id(0) // n_heads).to(tl.int64), tl.program_id(0) % n_heads
    tl.store(y_ptr + row * BLOCK + tl.arange(0, BLOCK), 0.0, mask=(tl.arange(0, BLOCK) + head) >= 0)


@triton.jit
def a_row_left_out_broken(y_ptr, n_rows, n_tiles, BLOCK: tl.constexpr):
    # Of the last row only the hint says that it is one of the grid's.
    row, tile = tl.program_id(0) // n_tiles, tl.program_id(0) % n_tiles
    at = row.to(tl.int64) * n_tiles + tile
    tl.store(y_ptr + at * BLOCK + tl.arange(0, BLOCK), 0.0)


@triton.jit
def nobody_divides_broken(y_ptr, n_rows, n_heads, m, BLOCK: tl.constexpr):
    # That n_heads divides something is known of programs, and without heads there is none.
    row = (tl.program_id(0) // n_heads + m // n_heads).to(tl.int64)
    tl.store(y_ptr + row * BLOCK + tl.arange(0, BLOCK), 0.0)


@triton.jit
def another_half_broken(y_ptr, n, BLOCK: tl.constexpr):
    # Of a column one row is written. Its least with n, asked of any other row, is another number.
    column = tl.program_id(0)
    row = column // 2
    mask = tl.program_id(1) // (tl.minimum(row, n) + 1) == 0
    tl.store(y_ptr + row.to(tl.int64) * n + column, 0.0, mask=mask)


# --- compare-and-swap ---


@triton.jit
def claimed_fixed(state_ptr, y_ptr, n, BLOCK: tl.constexpr):
    # All programs ask for one element. It held 0 or 1, and nobody puts anything else there.
    found = tl.atomic_cas(state_ptr, 0, 1)
    tl.atomic_add(y_ptr + found, 1.0)


@triton.jit
def found_broken(state_ptr, y_ptr, n, BLOCK: tl.constexpr):
    # What it finds need not be 0, nor 1.
    found = tl.atomic_cas(state_ptr, 0, 1)
    tl.atomic_add(y_ptr + found, 1.0)


@triton.jit
def swapped_in_broken(state_ptr, y_ptr, n, BLOCK: tl.constexpr):
    # Where it does not find 0 it writes nothing.
    tl.atomic_cas(state_ptr + tl.program_id(0), 0, 1)


@triton.jit
def peeked_broken(state_ptr, y_ptr, n, BLOCK: tl.constexpr):
    tl.atomic_cas(state_ptr, tl.load(state_ptr), 1)


TILES = "y_ptr[n_rows, n_tiles, BLOCK]; grid[n_rows * n_tiles]; n_rows <= 2**20; n_tiles <= 2**10"
ROWS = "x_ptr[n]; y_ptr[n]; grid[cdiv(n, BLOCK)]"
STEPS = "x_ptr[n]; y_ptr[n]; grid[n_programs]; n <= 2**30"
CLAIMED = "state_ptr[1]; y_ptr[2]; grid[n]; partly(state_ptr, y_ptr)"
CONTRACTS = {
    "negative_product_broken": "y_ptr[BLOCK]; partly(y_ptr)",
    "carried_over_broken": "y_ptr[n]; grid[n]; n <= 2**20; partly(y_ptr)",
    "last_row_broken": "y_ptr[n_rows - 1]; grid[n_rows * n_tiles]; partly(y_ptr)",
    "rows_and_tiles_fixed": TILES,
    "a_row_left_out_broken": TILES.replace("y_ptr[n_rows,", "y_ptr[n_rows + 1,"),
    "rows_of_a_group_fixed": TILES,
    "columns_left_over_broken": (
        "x[n_rows:row_stride, BLOCK:column_stride]; y_ptr[n_rows, BLOCK]; grid[n_rows]; "
        "column_stride >= 1; row_stride >= BLOCK * column_stride"
    ),
    "two_products_broken": "y_ptr[n]; grid[n + m]; n <= 2**20; m <= 2**20; partly(y_ptr)",
    "of_this_turn_broken": (
        "ids_ptr[n]; y_ptr[m + 1]; 0 <= ids_ptr.value <= 2**40; m <= 2**20; partly(y_ptr)"
    ),
    "by_minus_one_broken": "y_ptr[m]; n <= -1; partly(y_ptr)",
    "squared_broken": """ids_ptr[17]; y_ptr[22, 3]; grid[17]; partly(y_ptr)
        -8 <= ids_ptr.value <= 8
    """,
    "moved_once_broken": "x_ptr[1]; n <= 2**20; partly(x_ptr)",
    "smaller_of_two_fixed": "x_ptr[n]; y_ptr[m]; grid[cdiv(n, BLOCK)]; partly(y_ptr)",
    "larger_of_two_broken": "x_ptr[n]; y_ptr[m]; grid[cdiv(n, BLOCK)]; partly(y_ptr)",
    "chosen_broken": "y_ptr[n]; grid[cdiv(n, BLOCK)]; partly(y_ptr)",
    "chosen_fixed": "y_ptr[n]; grid[1]; partly(y_ptr); n <= 2**20",
    "other_branch_broken": "y_ptr[n]; grid[n + 1]; partly(y_ptr)",
    "narrow_sum_broken": "y_ptr[n]; grid[cdiv(n, BLOCK)]",
    "one_too_large_broken": "y_ptr[n]; partly(y_ptr); n < 2**31",
    "up_to_n_broken": """y_ptr[BLOCK]; grid[n_programs]; partly(y_ptr)
        n * m - m < 2**31; n < 2**31; 0 <= m < 2**31; n_programs < 2**31
    """,
    "largest_of_each_row_broken": "y_ptr[1]; partly(y_ptr)",
    "nothing_read_broken": (
        "ids_ptr[n]; table_ptr[vocab]; y_ptr[n]; 0 <= ids_ptr.value < vocab; n <= BLOCK"
    ),
    "swapped_broken": "x_ptr[BLOCK]; y_ptr[BLOCK]; partly(x_ptr, y_ptr)",
    "by_hand_broken": "y_ptr[n]; grid[cdiv(n, BLOCK)]",
    "added_up_fixed": "y_ptr[BLOCK]; grid[n]; n >= 1; partly(y_ptr)",
    "all_to_one_broken": "y_ptr[BLOCK]; grid[n]; n >= 1",
    "read_of_the_next_broken": "x_ptr[n]; y_ptr[n]; grid[n]",
    "in_steps_fixed": STEPS + "; 1 <= n_programs <= 2**16",
    "in_too_short_steps_broken": STEPS + "; 2 <= n_programs <= 2**16",
    "nobody_divides_broken": "y_ptr[n_rows, BLOCK]; grid[n_rows * n_heads]; m == 0",
    "another_half_broken": "y_ptr[n, n]; grid[n, n + 1]; n <= 2**15",
    "nobody_there_broken": "y_ptr[n_rows, BLOCK]; grid[n_rows * n_heads]",
    "claimed_fixed": CLAIMED + "; 0 <= state_ptr.value <= 1",
    "found_broken": CLAIMED,
    "swapped_in_broken": "state_ptr[n]; grid[n]",
    "peeked_broken": "state_ptr[1]; grid[n]; partly(state_ptr)",
}


def drive_traps():
    x, y, ids = torch.zeros(16), torch.empty(16), torch.zeros(16, dtype=torch.int64)
    for kernel in (negative_product_broken, largest_of_each_row_broken):
        kernel[(1,)](y, BLOCK=16)
    for kernel in (
        carried_over_broken, chosen_broken, chosen_fixed, other_branch_broken, narrow_sum_broken,
        by_hand_broken, added_up_fixed, all_to_one_broken, another_half_broken,
    ):  # fmt: skip
        kernel[(1,)](y, 16, BLOCK=16)
    for kernel in (
        last_row_broken, rows_and_tiles_fixed, rows_of_a_group_fixed, nobody_there_broken,
        a_row_left_out_broken,
    ):  # fmt: skip
        kernel[(16,)](y, 1, 1, BLOCK=16)
    for kernel in (swapped_broken, read_of_the_next_broken):
        kernel[(1,)](x, y, 16, BLOCK=16)
    for kernel in (
        smaller_of_two_fixed, larger_of_two_broken, in_steps_fixed, in_too_short_steps_broken,
    ):  # fmt: skip
        kernel[(1,)](x, y, 16, 2, BLOCK=16)
    nobody_divides_broken[(16,)](y, 1, 1, 0, BLOCK=16)
    two_products_broken[(1,)](x, y, 16, 2, BLOCK=16)
    up_to_n_broken[(1,)](y, 16, 2, 1, BLOCK=16)
    for kernel in (moved_once_broken, one_too_large_broken):
        kernel[(1,)](x, 16, BLOCK=16)
    columns_left_over_broken[(1,)](x.view(1, 16), y, 16, 1, BLOCK=16)
    of_this_turn_broken[(1,)](ids, y, 16, 15, BLOCK=16)
    by_minus_one_broken[(1,)](y, -16, 16, BLOCK=16)
    squared_broken[(17,)](ids, y, BLOCK=16)
    nothing_read_broken[(1,)](ids, x, y, 16, 16, BLOCK=16)
    for kernel in (claimed_fixed, found_broken, swapped_in_broken, peeked_broken):
        kernel[(1,)](torch.zeros(16, dtype=torch.int32), y, 1, BLOCK=16)
    return y
