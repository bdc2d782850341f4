"""cancellation: a variance below zero.

y[r] = the variance of row r (divided by the number of columns). It was to be fast: one pass,
E[x^2] - E[x]^2. With a mean of 3000 the result is anything, even negative.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def variance_kernel(x_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < n_columns
    x = tl.load(x_ptr + row * n_columns + columns, mask=inside, other=0.0)
    mean = tl.sum(x, axis=0) / n_columns
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / n_columns
    tl.store(y_ptr + row, variance)


def solve(x: torch.Tensor) -> torch.Tensor:
    """Give each row's variance; x is [n_rows, n_columns], without gaps."""
    n_rows, n_columns = x.shape
    y = torch.empty(n_rows, dtype=x.dtype)
    variance_kernel[(n_rows,)](x, y, n_columns, BLOCK=triton.next_power_of_2(n_columns))
    return y


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[str, int], seeded: Any) -> Tensors:
    kind, n = case
    x = torch.randn(3, n, generator=seeded, dtype=torch.float64)
    return {"x": x + (3000 if kind == "mean of 3000" else 0)}


def _with_empty_lanes(x: torch.Tensor) -> torch.Tensor:
    empty = triton.next_power_of_2(x.shape[1]) - x.shape[1]
    return x.var(1, correction=0) + empty / x.shape[1] * x.mean(1) ** 2


EXERCISE = Exercise(
    level=3,
    draw=_draw,
    cases=(("mean of 0", 40), ("mean of 3000", 40)),
    reference=lambda x: x.var(1, correction=0),
    results=("y",),
    hints=(
        "3000^2 is 9 million; float32 has 24 digits: how large is its step there?",
        "The row is in registers: a second sum over it costs no memory.",
        "Subtract the mean first, then square; an empty lane must not become -mean.",
    ),
    mistakes=(
        Mistake(
            "the empty lanes count: each holds 0, which lies a mean away from the mean",
            _with_empty_lanes,
        ),
        Mistake("divided by n - 1", lambda x: x.var(1)),
        Mistake("this is the standard deviation", lambda x: x.std(1, correction=0)),
    ),
    wrong=(
        Wrong(
            {
                "tl.sum(centred * centred, axis=0) / n_columns": "tl.sum(x * x, axis=0) / n_columns - mean * mean"
            },
            "right, on the other hand",
        ),
        Wrong({"tl.where(inside, x - mean, 0.0)": "x - mean"}, "the empty lanes count"),
        Wrong(
            {"axis=0) / n_columns\n    tl.store": "axis=0) / (n_columns - 1)\n    tl.store"},
            "divided by n - 1",
        ),
    ),
    broken={
        "    centred = tl.where(inside, x - mean, 0.0)\n": "",
        "tl.sum(centred * centred, axis=0) / n_columns": "tl.sum(x * x, axis=0) / n_columns - mean * mean",
    },
    dtypes=("float32",),
)
