"""lanes: rows of negative numbers have the maximum 0.

y[r] = the largest number of row r. It is right for rows with a positive number, and for rows of 64.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def row_maximum_kernel(x_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < n_columns
    x = tl.load(x_ptr + row * n_columns + columns, mask=inside, other=-float("inf"))
    tl.store(y_ptr + row, tl.max(x, axis=0))


def solve(x: torch.Tensor) -> torch.Tensor:
    """Give each row's maximum; x is [n_rows, n_columns], without gaps."""
    n_rows, n_columns = x.shape
    y = torch.empty(n_rows, dtype=x.dtype)
    row_maximum_kernel[(n_rows,)](x, y, n_columns, BLOCK=triton.next_power_of_2(n_columns))
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Mistake, Wrong

EXERCISE = Exercise(
    level=1,
    draw=lambda shape, seeded: {"x": -1 - torch.rand(shape, generator=seeded, dtype=torch.float64)},
    cases=((2, 64), (3, 40)),
    reference=lambda x: x.max(1).values,
    results=("y",),
    hints=(
        "Where does a 0 come from, if no element is 0?",
        "40 columns need a tile of 64: what do the other 24 lanes hold?",
        "Which number is never the maximum of anything?",
    ),
    mistakes=(
        Mistake(
            "the empty lanes take part: their value is larger than every element",
            lambda x: torch.where(torch.tensor(x.shape[1] < 64), 0.0, x.max(1).values),
        ),
        Mistake("this is the minimum", lambda x: x.min(1).values),
    ),
    wrong=(
        Wrong({'other=-float("inf")': "other=0.0"}, "the empty lanes take part"),
        Wrong({', other=-float("inf")': ""}, "holds anything"),
        Wrong({'mask=inside, other=-float("inf")': "mask=columns < BLOCK"}, "lanes are inside"),
    ),
    broken={'other=-float("inf")': "other=0.0"},
)
