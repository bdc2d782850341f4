"""scale_rows: a tile of two dimensions, and strides.

y[r, c] = x[r, c] * scale[r]. Element (r, c) of x lies r * x.stride(0) + c * x.stride(1) elements
after its first. Strides are arguments, since x may be a part of a larger tensor, or transposed.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def scale_rows_kernel(
    x_ptr, scale_ptr, y_ptr, n_rows, n_columns,
    x_row_stride, x_column_stride, y_row_stride, y_column_stride,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    # hole 1: `inside`, [BLOCK_ROWS, BLOCK_COLUMNS]: which elements are inside in both directions
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    # end
    # hole 2: load the tile of x, [BLOCK_ROWS, BLOCK_COLUMNS], and its rows' scale, [BLOCK_ROWS]
    x_offsets = rows[:, None] * x_row_stride + columns[None, :] * x_column_stride
    x = tl.load(x_ptr + x_offsets, mask=inside)
    scale = tl.load(scale_ptr + rows, mask=rows < n_rows)
    # end
    # hole 3: store the scaled tile to y
    y_offsets = rows[:, None] * y_row_stride + columns[None, :] * y_column_stride
    tl.store(y_ptr + y_offsets, x * scale[:, None], mask=inside)
    # end


def solve(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Scale each row of x, [n_rows, n_columns], by its own number."""
    y = torch.empty(x.shape, dtype=x.dtype)
    n_rows, n_columns = x.shape
    grid = (triton.cdiv(n_rows, 16), triton.cdiv(n_columns, 16))
    scale_rows_kernel[grid](
        x, scale, y, n_rows, n_columns, *x.stride(), *y.stride(), BLOCK_ROWS=16, BLOCK_COLUMNS=16
    )
    return y


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[str, int, int], seeded: Any) -> Tensors:
    layout, n_rows, n_columns = case
    x = torch.randn(n_rows, n_columns + 3, generator=seeded, dtype=torch.float64)
    if layout == "transposed":
        x = torch.randn(n_columns + 3, n_rows, generator=seeded, dtype=torch.float64).T
    return {
        "x": x[:, :n_columns],
        "scale": torch.randn(n_rows, generator=seeded, dtype=torch.float64),
    }


EXERCISE = Exercise(
    level=2,
    draw=_draw,
    cases=(("a part of wider rows", 19, 16), ("transposed", 20, 20)),
    reference=lambda x, scale: x * scale[:, None],
    results=("y",),
    hints=(
        "rows[:, None] is a column, columns[None, :] a row; together they span the tile.",
        "An element is inside if its row is and its column is: combine the two with &.",
        "A pointer tile is x_ptr + rows * row stride + columns * column stride, rows as a column.",
    ),
    mistakes=(
        Mistake(
            "each column has been scaled, not each row: scale[:, None] goes along rows",
            lambda x, scale: x * scale[None, : x.shape[1]] if len(scale) >= x.shape[1] else x,
        ),
    ),
    wrong=(
        Wrong({"columns[None, :] * x_column_stride": "columns[None, :]"}, "right, on the other"),
        Wrong({"(rows < n_rows)[:, None] & ": ""}, "lanes are inside"),
        Wrong({"(rows < n_rows)[:, None] & (": "(rows < n_rows)[:, None] | ("}, "lanes are inside"),
        Wrong(
            {
                "rows[:, None] * x_row_stride + columns[None, :] * x_column_stride": "rows[:, None] * x_column_stride + columns[None, :] * x_row_stride"
            },
            "rule:",
        ),
    ),
    reads={"x": 1},
)
