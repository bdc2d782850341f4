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


CONTRACTS = {
    "unlike_n_broken": """y_ptr[BLOCK]; grid[n_programs]; partly(y_ptr)
        n * m < 2**31; n < 2**31; 0 <= m < 2**31; n_programs < 2**31
    """,
    "gives_up_broken": "y_ptr[n]; grid[m]; 1 <= n <= 2**28; m < 2**31; partly(y_ptr)",
    "a_row_too_many_broken": (
        "y_ptr[n_rows + 1, BLOCK]; grid[n_rows * n_tiles]; n_tiles >= 1; n_rows >= 1"
    ),
}


def drive_slow_traps():
    y = torch.empty(16)
    gives_up_broken[(1,)](y, 16, 2, BLOCK=16)
    unlike_n_broken[(1,)](y, 16, 2, 1, BLOCK=16)
    a_row_too_many_broken[(16,)](y, 1, 1, BLOCK=16)
    return y
