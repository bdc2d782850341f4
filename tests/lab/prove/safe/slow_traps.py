"""Traps as in `traps.py`, about which z3 thinks for long: `broken_prover.py` asks about them."""

import torch
import triton
import triton.language as tl


@triton.jit
def gives_up_broken(y_ptr, n, m, BLOCK: tl.constexpr):
    # The first solution of p² = 61·n² + 1 is p = 1,766,319,049, n = 226,153,980.
    program, n = tl.program_id(0).to(tl.int64), n.to(tl.int64)
    mask = (program == 0) | (program * program == 61 * n * n + 1)
    tl.store(y_ptr + program, 0.0, mask=mask)


@triton.jit
def a_row_too_many_broken(y_ptr, n_rows, n_tiles, BLOCK: tl.constexpr):
    row = (tl.program_id(0) // n_tiles).to(tl.int64)
    tl.store(y_ptr + row * BLOCK + tl.arange(0, BLOCK), 0.0)


@triton.jit
def unlike_n_broken(y_ptr, n, m, n_programs, BLOCK: tl.constexpr):
    # n·m fits, but this multiplies where the program is not n.
    program, lane = tl.program_id(0), tl.arange(0, BLOCK)
    if program == n:
        tl.store(y_ptr + lane, 1.0)
    else:
        tl.store(y_ptr + lane, 0.0, mask=lane > program * m)


@triton.jit
def beyond_n_broken(y_ptr, n, m, n_programs, BLOCK: tl.constexpr):
    # n·m fits, but this multiplies where the program is larger.
    program, lane = tl.program_id(0), tl.arange(0, BLOCK)
    if program <= n:
        tl.store(y_ptr + lane, 1.0)
    else:
        tl.store(y_ptr + lane, 0.0, mask=lane > program * m)


@triton.jit
def shared_head_broken(y_ptr, stride, n_groups, group, n, BLOCK: tl.constexpr):
    # The last head of one group is the first of the next one.
    batch, own = tl.program_id(0) // n_groups, tl.program_id(0) % n_groups
    row = tl.arange(0, BLOCK)
    head = own.to(tl.int64) * group + row // n
    at = batch.to(tl.int64) * stride + head * n + row % n
    tl.store(y_ptr + at, 0.0, mask=row < group * n + n)


@triton.jit
def of_the_next_group_broken(y_ptr, stride, n_groups, group, BLOCK: tl.constexpr):
    # A program writes its own heads, and those of the next group.
    batch, own = tl.program_id(0) // n_groups, tl.program_id(0) % n_groups
    head = tl.arange(0, BLOCK)
    at = batch.to(tl.int64) * stride + own.to(tl.int64) * group + head
    tl.store(y_ptr + at, 0.0, mask=head < group)
    tl.store(y_ptr + at + group, 0.0, mask=head < group)


PRODUCT_FITS = """y_ptr[BLOCK]; grid[n_programs]; partly(y_ptr)
    n * m < 2**31; n < 2**31; 0 <= m < 2**31; n_programs < 2**31
"""
CONTRACTS = {
    "unlike_n_broken": PRODUCT_FITS,
    "beyond_n_broken": PRODUCT_FITS,
    "shared_head_broken": """y_ptr[n_batches:stride, n_heads:n, n:1]; grid[n_batches * n_groups]
        n_groups * group + BLOCK <= n_heads; 1 <= n <= 8; 1 <= group <= 8; partly(y_ptr)
    """,
    "of_the_next_group_broken": """y_ptr[n_batches:stride, n_heads:1]
        grid[n_batches * n_groups]; n_groups * group + group <= n_heads; 1 <= group; partly(y_ptr)
    """,
    "gives_up_broken": "y_ptr[n]; grid[m]; 1 <= n <= 2**28; m < 2**31; partly(y_ptr)",
    "a_row_too_many_broken": (
        "y_ptr[n_rows + 1, BLOCK]; grid[n_rows * n_tiles]; n_tiles >= 1; n_rows >= 1"
    ),
}


def drive_slow_traps():
    y = torch.empty(16)
    gives_up_broken[(1,)](y, 16, 2, BLOCK=16)
    for kernel in (unlike_n_broken, beyond_n_broken):
        kernel[(1,)](y, 16, 2, 1, BLOCK=16)
    shared_head_broken[(1,)](y, 16, 1, 1, 1, BLOCK=16)
    of_the_next_group_broken[(1,)](y, 16, 1, 1, BLOCK=16)
    a_row_too_many_broken[(16,)](y, 1, 1, BLOCK=16)
    return y
