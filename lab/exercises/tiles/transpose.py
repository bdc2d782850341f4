"""transpose: one tile read along rows and written along columns.

y[c, r] = x[r, c]. Each program reads one square tile of x and writes it where it belongs in y.
Masks are the same lanes, seen from the other side.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def transpose_kernel(x_ptr, y_ptr, n_rows, n_columns, TILE: tl.constexpr):
    # x is [n_rows, n_columns] and y [n_columns, n_rows], each without gaps.
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    x = tl.load(x_ptr + rows[:, None] * n_columns + columns[None, :], mask=inside)
    # hole 1: store the tile to y; tl.trans(tile) turns a tile round
    y_offsets = columns[:, None] * n_rows + rows[None, :]
    tl.store(y_ptr + y_offsets, tl.trans(x), mask=tl.trans(inside))
    # end


def solve(x: torch.Tensor) -> torch.Tensor:
    """Transpose x, [n_rows, n_columns]."""
    n_rows, n_columns = x.shape
    y = torch.empty(n_columns, n_rows, dtype=x.dtype)
    # hole 2: a grid of two dimensions, for tiles of 16 x 16
    grid = (triton.cdiv(n_rows, 16), triton.cdiv(n_columns, 16))
    # end
    transpose_kernel[grid](x, y, n_rows, n_columns, TILE=16)
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Mistake, Wrong

EXERCISE = Exercise(
    level=2,
    draw=lambda shape, seeded: {"x": torch.randn(shape, generator=seeded, dtype=torch.float64)},
    cases=((16, 16), (20, 37)),
    reference=lambda x: x.T,
    results=("y",),
    hints=(
        "y has n_rows elements in a row: element (c, r) lies at c * n_rows + r.",
        "Either turn the tile round, or keep it and write to x's tile of (c, r) addresses.",
        "What is turned round needs its mask turned round, too.",
    ),
    mistakes=(
        Mistake("this is x itself, its rows cut anew", lambda x: x.reshape(x.shape[1], x.shape[0])),
        Mistake(
            "the tiles lie where they belong, but none has been turned round",
            lambda x: x if x.shape[0] == x.shape[1] == 16 else _tiles_in_place(x),
        ),
    ),
    wrong=(
        Wrong({"tl.trans(x), mask=tl.trans(inside)": "tl.trans(x), mask=inside"}, "rule:"),
        Wrong({"columns[:, None] * n_rows + rows": "columns[:, None] * n_columns + rows"}, "rule:"),
        Wrong(
            {
                "(triton.cdiv(n_rows, 16), triton.cdiv(n_columns, 16))": "(triton.cdiv(n_columns, 16), triton.cdiv(n_rows, 16))"
            },
            "count the programs",
        ),
        Wrong(
            {
                "columns[:, None] * n_rows + rows[None, :]": "rows[:, None] * n_columns + columns[None, :]",
                "tl.trans(x), mask=tl.trans(inside)": "x, mask=inside",
            },
            "its rows cut anew",
        ),
    ),
    reads={"x": 1},
)


def _tiles_in_place(x: torch.Tensor) -> torch.Tensor:
    """Move each tile to its place without turning it; what does not fit is dropped."""
    n_rows, n_columns = x.shape
    y = torch.full((n_columns, n_rows), torch.nan, dtype=x.dtype)
    for r in range(0, n_rows, 16):
        for c in range(0, n_columns, 16):
            tile = x[r : r + 16, c : c + 16]
            place = y[c : c + 16, r : r + 16]
            place[: tile.shape[0], : tile.shape[1]] = tile[: place.shape[0], : place.shape[1]]
    return y
