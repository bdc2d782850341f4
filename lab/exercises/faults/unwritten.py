"""unwritten: some rows hold numbers that nobody has computed.

y[r] = the sum of the first length[r] elements of row r. Rows of length 0 hold what was in memory
before: often 0, so that no test has noticed.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def prefix_sum_kernel(x_ptr, length_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    length = tl.load(length_ptr + row)
    columns = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n_columns + columns, mask=columns < length, other=0.0)
    tl.store(y_ptr + row, tl.sum(x.to(tl.float32), axis=0))


def solve(x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Sum the beginning of each row; x is [n_rows, n_columns], length [n_rows]."""
    n_rows, n_columns = x.shape
    y = torch.empty(n_rows, dtype=x.dtype)
    block = triton.next_power_of_2(n_columns)
    prefix_sum_kernel[(n_rows,)](x, length, y, n_columns, BLOCK=block)
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Mistake, Wrong


def _sums(x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    return (x * (torch.arange(x.shape[1]) < length[:, None])).sum(1)


EXERCISE = Exercise(
    level=2,
    draw=lambda case, seeded: {
        "x": torch.randn(3, case[0], generator=seeded, dtype=torch.float64),
        "length": torch.tensor(case[1]),
    },
    cases=((16, [3, 16, 7]), (21, [5, 0, 21])),
    reference=_sums,
    results=("y",),
    hints=(
        "torch.empty is memory as it was left by whoever had it before.",
        "Does every program store something, whatever its length?",
        "The sum of nothing is 0, and it comes out of the same line as every other sum.",
    ),
    mistakes=(Mistake("the length is not looked at", lambda x, length: x.sum(1)),),
    wrong=(
        Wrong(
            {
                "    columns = tl.arange": "    if length == 0:\n        return\n    columns = tl.arange"
            },
            "nothing has written",
        ),
        Wrong({"columns < length": "columns < n_columns"}, "not looked at"),
        Wrong({"columns < length": "columns <= length"}, "lanes are inside"),
    ),
    broken={
        "    columns = tl.arange": "    if length == 0:\n        return\n    columns = tl.arange"
    },
    dtypes=("float32",),
)
