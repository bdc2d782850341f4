"""row_sum: a reduction, and what masked-off lanes hold.

y[r] = the sum of row r. One program a row, one tile a row: BLOCK is the next power of two, so the
last lanes are empty. What does a load put into an empty lane? Anything, unless `other=` says what.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def row_sum_kernel(x_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    # hole 1: load the row, in such a way that empty lanes change no sum
    x = tl.load(x_ptr + row * n_columns + columns, mask=columns < n_columns, other=0.0)
    # end
    # hole 2: sum it in float32, whatever x holds, and store the one number
    tl.store(y_ptr + row, tl.sum(x.to(tl.float32), axis=0))
    # end


def solve(x: torch.Tensor) -> torch.Tensor:
    """Sum each row of x, [n_rows, n_columns], without gaps."""
    n_rows, n_columns = x.shape
    y = torch.empty(n_rows, dtype=x.dtype)
    row_sum_kernel[(n_rows,)](x, y, n_columns, BLOCK=triton.next_power_of_2(n_columns))
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Mistake, Wrong

EXERCISE = Exercise(
    level=2,
    # Nearly alike and positive, so that a float16 sum stops growing.
    draw=lambda shape, seeded: {
        "x": 1 + torch.rand(shape, generator=seeded, dtype=torch.float64) / 8
    },
    cases=((3, 64), (2, 1500)),
    reference=lambda x: x.sum(1),
    results=("y",),
    hints=(
        "Which number can be added to a sum without changing it? That is what other= should be.",
        "tl.sum(tile, axis=0) is one number; x.to(tl.float32) widens what is summed.",
        "tl.store(pointer, number) stores a single number at a single pointer.",
    ),
    mistakes=(
        Mistake(
            "each empty lane has been counted as 1",
            lambda x: x.sum(1) + triton.next_power_of_2(x.shape[1]) - x.shape[1],
        ),
        Mistake("this is the row's mean", lambda x: x.mean(1)),
        Mistake("this is the row's maximum", lambda x: x.max(1).values),
    ),
    wrong=(
        Wrong({", other=0.0": ""}, "holds anything"),
        Wrong({"other=0.0": "other=1.0"}, "counted as 1"),
        Wrong(
            {"mask=columns < n_columns, other=0.0": "mask=columns >= 0, other=0.0"},
            "lanes are inside",
        ),
        Wrong({"x_ptr + row * n_columns": "x_ptr + row"}, "wrote it at line"),
        Wrong(
            {
                "tl.sum(x.to(tl.float32), axis=0)": "tl.reduce(x, 0, _add)",
                "@triton.jit\ndef row": "@triton.jit\ndef _add(a, b):\n    return (a + b).to(tl.float16)\n\n\n"
                "@triton.jit\ndef row",
            },
            "wrote it at line",
        ),
    ),
    reads={"x": 1},
)
