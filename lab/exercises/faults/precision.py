"""precision: the mean of a long row of float16 numbers is far too small.

y[r] = the mean of row r, tile by tile. In float32 all is well, and in float16 with short rows.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def row_mean_kernel(x_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, n_columns, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * n_columns + columns, mask=columns < n_columns, other=0.0)
        total += x
    tl.store(y_ptr + row, tl.sum(total, axis=0) / n_columns)


def solve(x: torch.Tensor) -> torch.Tensor:
    """Give each row's mean; x is [n_rows, n_columns], without gaps."""
    n_rows, n_columns = x.shape
    y = torch.empty(n_rows, dtype=x.dtype)
    row_mean_kernel[(n_rows,)](x, y, n_columns, BLOCK=16)
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Mistake, Wrong

EXERCISE = Exercise(
    level=2,
    draw=lambda shape, seeded: {"x": 24 + torch.rand(shape, generator=seeded, dtype=torch.float64)},
    cases=((2, 30), (2, 4000)),
    reference=lambda x: x.mean(1),
    results=("y",),
    hints=(
        "float16 has 11 digits (binary): from 2048 on, its steps are 2; from 4096 on, 4.",
        "What is added to a large sum disappears where it is less than half a step.",
        "The tile may be float16; what it is added to should not be.",
    ),
    mistakes=(
        Mistake("this is the sum", lambda x: x.sum(1)),
        Mistake("the sum is divided by the tile's width", lambda x: x.sum(1) / 16),
    ),
    wrong=(
        Wrong(
            {
                "tl.zeros([BLOCK], dtype=tl.float32)": "tl.zeros([BLOCK], dtype=x_ptr.dtype.element_ty)"
            },
            "round once, at the store",
        ),
        Wrong({"/ n_columns)": "/ BLOCK)"}, "the tile's width"),
        Wrong({"tl.sum(total, axis=0) / n_columns": "tl.sum(total, axis=0)"}, "this is the sum"),
    ),
    broken={
        "tl.zeros([BLOCK], dtype=tl.float32)": "tl.zeros([BLOCK], dtype=x_ptr.dtype.element_ty)"
    },
)
