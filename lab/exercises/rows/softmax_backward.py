"""softmax_backward: the gradient of a softmax, from its result.

With y = softmax(x) and d_y the gradient of the loss with respect to y:
d_x[c] = y[c] * (d_y[c] - sum over k of y[k] * d_y[k]). x itself is not needed.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def softmax_backward_kernel(y_ptr, d_y_ptr, d_x_ptr, n_columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    offsets, inside = row * n_columns + columns, columns < n_columns
    # hole 1: load what the formula needs, store d_x; sums in float32
    y = tl.load(y_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    d_x = y * (d_y - tl.sum(y * d_y, axis=0))
    tl.store(d_x_ptr + offsets, d_x, mask=inside)
    # end


def solve(y: torch.Tensor, d_y: torch.Tensor) -> torch.Tensor:
    """Give the gradient with respect to x; all are [n_rows, n_columns], without gaps."""
    n_rows, n_columns = y.shape
    d_x = torch.empty_like(y)
    softmax_backward_kernel[(n_rows,)](
        y, d_y, d_x, n_columns, BLOCK=triton.next_power_of_2(n_columns)
    )
    return d_x


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[int, int], seeded: Any) -> Tensors:
    x = torch.randn(case, generator=seeded, dtype=torch.float64)
    return {
        "y": torch.softmax(2 * x, 1),
        "d_y": torch.randn(case, generator=seeded, dtype=torch.float64),
    }


EXERCISE = Exercise(
    level=3,
    draw=_draw,
    cases=((2, 8), (3, 21)),
    reference=lambda y, d_y: y * (d_y - (y * d_y).sum(1, keepdim=True)),
    results=("d_x",),
    hints=(
        "Every d_x of a row depends on the same one number, the sum of y * d_y: take it first.",
        "Empty lanes of y * d_y must add nothing to that sum.",
        "If all of d_y is alike, d_x is 0: moving all probabilities together is impossible.",
    ),
    mistakes=(
        Mistake(
            "the sum of y * d_y is missing: this treats each element alone", lambda y, d_y: y * d_y
        ),
        Mistake(
            "the sum is of d_y, not of y * d_y",
            lambda y, d_y: y * (d_y - d_y.sum(1, keepdim=True)),
        ),
        Mistake(
            "y multiplies d_y alone: it belongs before the bracket",
            lambda y, d_y: y * d_y - (y * d_y).sum(1, keepdim=True),
        ),
    ),
    wrong=(
        Wrong({"y * (d_y - tl.sum(y * d_y, axis=0))": "y * d_y"}, "treats each element alone"),
        Wrong({"tl.sum(y * d_y, axis=0)": "tl.sum(d_y, axis=0)"}, "the sum is of d_y"),
        Wrong(
            {"y * (d_y - tl.sum(y * d_y, axis=0))": "y * d_y - tl.sum(y * d_y, axis=0)"},
            "belongs before the bracket",
        ),
        Wrong(
            {
                "tl.load(d_y_ptr + offsets, mask=inside, other=0.0)": "tl.load(d_y_ptr + offsets, mask=inside)"
            },
            "holds anything",
        ),
    ),
    reads={"y": 1, "d_y": 1},
)
