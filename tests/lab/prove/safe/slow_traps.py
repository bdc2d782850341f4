"""Traps as in `traps.py`, about which z3 thinks for long: `broken_prover.py` asks about them."""

import torch
import triton
import triton.language as tl


@triton.jit
def gives_up_broken(x_ptr, y_ptr, n, m, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    tl.store(y_ptr + program, 0.0, mask=program * program * program < n * n * n + 2)


@triton.jit
def a_row_too_many_broken(y_ptr, n_rows, n_tiles, BLOCK: tl.constexpr):
    row = (tl.program_id(0) // n_tiles).to(tl.int64)
    tl.store(y_ptr + row * BLOCK + tl.arange(0, BLOCK), 0.0)


CONTRACTS = {
    "gives_up_broken": "y_ptr[n]; grid[n + m]; n <= 2**20; m <= 2**20; partly(y_ptr)",
    "a_row_too_many_broken": (
        "y_ptr[n_rows + 1, BLOCK]; grid[n_rows * n_tiles]; n_tiles >= 1; n_rows >= 1"
    ),
}


def drive_slow_traps():
    x, y = torch.zeros(16), torch.empty(16)
    gives_up_broken[(1,)](x, y, 16, 2, BLOCK=16)
    a_row_too_many_broken[(16,)](y, 1, 1, BLOCK=16)
    return y
