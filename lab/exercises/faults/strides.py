"""strides: right for new tensors, wrong for parts of others.

y[r, c] = x[r, c] + 1. x[:, :40] of a wider tensor comes out with its rows mixed up.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def increment_kernel(x_ptr, y_ptr, n_columns, x_stride, y_stride, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < n_columns
    x = tl.load(x_ptr + row * x_stride + columns, mask=inside)
    tl.store(y_ptr + row * y_stride + columns, x + 1, mask=inside)


def solve(x: torch.Tensor) -> torch.Tensor:
    """Add 1 to each element; x is [n_rows, n_columns], its rows without gaps."""
    n_rows, n_columns = x.shape
    y = torch.empty(n_rows, n_columns, dtype=x.dtype)
    block = triton.next_power_of_2(n_columns)
    increment_kernel[(n_rows,)](x, y, n_columns, x.stride(0), y.stride(0), BLOCK=block)
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Wrong

EXERCISE = Exercise(
    level=2,
    draw=lambda shape, seeded: {
        "x": torch.randn(*shape, generator=seeded, dtype=torch.float64)[:, :40]
    },
    cases=((3, 40), (3, 48)),
    reference=lambda x: x + 1,
    results=("y",),
    hints=(
        "How far is it from the beginning of one row of x[:, :40] to the next?",
        "x.stride(0) is that distance. It is x.shape[1] for new tensors alone.",
        "y is a new tensor here: its stride is another.",
    ),
    mistakes=(),
    wrong=(
        Wrong(
            {"n_columns, x.stride(0), y.stride(0)": "n_columns, n_columns, y.stride(0)"}, "rule:"
        ),
        Wrong(
            {"n_columns, x.stride(0), y.stride(0)": "n_columns, x.stride(0), x.stride(0)"}, "rule:"
        ),
        Wrong(
            {"n_columns, x.stride(0), y.stride(0)": "n_columns, x.stride(1), y.stride(0)"},
            "rule:",
        ),
    ),
    broken={"n_columns, x.stride(0), y.stride(0)": "n_columns, n_columns, n_columns"},
    dtypes=("float32",),
)
