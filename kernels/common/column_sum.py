"""Sum a matrix over its rows, deterministically: bias gradients and other sums over tokens.

One program sums a panel of ROWS_PER_PROGRAM rows × BLOCK_COLUMNS columns in float32 and writes one
row of partial sums; the partial sums are a matrix with ROWS_PER_PROGRAM times fewer rows, summed
the same way, until one row is left. No atomics: they would add in a different order each run.
"""

import torch

from ._triton import tl, triton
from .launch import LARGEST_GRID, launch
from .strided import block_at, strided

COLUMN_SUM_CONFIGS = [
    triton.Config({"BLOCK_ROWS": 32, "BLOCK_COLUMNS": 64}, num_warps=4),
    triton.Config({"BLOCK_ROWS": 32, "BLOCK_COLUMNS": 128}, num_warps=8),
]
ROWS_PER_PROGRAM = 256


@triton.autotune(COLUMN_SUM_CONFIGS, key=["n_columns"])
@triton.jit
def column_sum_kernel(
    x,  # Strided [row, column]
    sums_ptr,  # [row block, column] contiguous
    n_rows,
    n_columns,
    ROWS_PER_PROGRAM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Sum a panel of rows and columns."""
    row_block = tl.program_id(1).to(tl.int64)
    columns = tl.program_id(0).to(tl.int64) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    first = row_block * ROWS_PER_PROGRAM
    n_rows_here = tl.minimum(n_rows - first, ROWS_PER_PROGRAM)
    sums = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    for start in range(0, n_rows_here, BLOCK_ROWS):
        rows = first + start + tl.arange(0, BLOCK_ROWS)
        inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
        sums += tl.load(block_at(x, rows, columns), mask=inside, other=0.0).to(tl.float32)
    sums_at = sums_ptr + row_block * n_columns + columns
    tl.store(sums_at, tl.sum(sums, axis=0), mask=columns < n_columns)


def rows_per_program(n_rows: int) -> int:
    """Return ROWS_PER_PROGRAM, or as much more as keeps blocks of rows within a grid's axis.

    Parameters
    ----------
    n_rows : int
    """
    rows = ROWS_PER_PROGRAM
    while triton.cdiv(n_rows, rows) > LARGEST_GRID[1]:
        rows *= 2
    return rows


def column_sum(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Sum over the rows.

    Parameters
    ----------
    x : torch.Tensor [row, column]
        Any strides; no rows sum to 0.
    dtype : torch.dtype
        Of the result; the sum itself is float32.

    Returns
    -------
    torch.Tensor [column]
    """
    n_rows, n_columns = x.shape
    rows = rows_per_program(n_rows)
    row_blocks = max(1, triton.cdiv(n_rows, rows))
    last = row_blocks == 1
    shape = (n_columns,) if last else (row_blocks, n_columns)
    sums = torch.empty(shape, dtype=dtype if last else torch.float32, device=x.device)
    launch(
        column_sum_kernel,
        lambda meta: (triton.cdiv(n_columns, meta["BLOCK_COLUMNS"]), row_blocks),
        *(strided(x), sums, n_rows, n_columns),
        ROWS_PER_PROGRAM=rows,
    )
    return sums if last else column_sum(sums, dtype)
