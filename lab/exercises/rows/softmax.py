"""softmax: exp of a row over its sum, without overflow.

y[r, c] = exp(x[r, c] - m) / sum of exp(x[r, :] - m), where m is the row's maximum. In exact
numbers m cancels out; in float32, exp(89) is infinite, and infinite over infinite is not a
number.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def softmax_kernel(x_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < n_columns
    # hole 1: load the row, so that an empty lane is never the maximum and adds nothing to the sum
    x = tl.load(x_ptr + row * n_columns + columns, mask=inside, other=-float("inf"))
    # end
    x = x.to(tl.float32)
    # hole 2: `y`: the row's softmax
    exponentials = tl.exp(x - tl.max(x, axis=0))
    y = exponentials / tl.sum(exponentials, axis=0)
    # end
    tl.store(y_ptr + row * n_columns + columns, y, mask=inside)


def solve(x: torch.Tensor) -> torch.Tensor:
    """Take the softmax of each row of x, [n_rows, n_columns], without gaps."""
    n_rows, n_columns = x.shape
    y = torch.empty_like(x)
    softmax_kernel[(n_rows,)](x, y, n_columns, BLOCK=triton.next_power_of_2(n_columns))
    return y


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[str, int, int], seeded: Any) -> Tensors:
    kind, n_rows, n_columns = case
    x = torch.randn(n_rows, n_columns, generator=seeded, dtype=torch.float64)
    return {"x": {"small": x, "about 200": x + 200, "about -200": x - 200}[kind]}


def _with_empty_lanes(x: torch.Tensor) -> torch.Tensor:
    """Count empty lanes as zeros."""
    empty = triton.next_power_of_2(x.shape[1]) - x.shape[1]
    return torch.softmax(torch.nn.functional.pad(x, (0, empty)), 1)[:, : x.shape[1]]


EXERCISE = Exercise(
    level=2,
    draw=_draw,
    cases=(("small", 3, 16), ("small", 3, 21), ("about 200", 2, 21), ("about -200", 2, 21)),
    reference=lambda x: torch.softmax(x, 1),
    results=("y",),
    hints=(
        "exp(-inf) is 0: a lane of -inf adds nothing to the sum, and is never the maximum.",
        "tl.max(x, axis=0) is the row's maximum; subtract it before tl.exp.",
        "Two reductions: a maximum, then a sum of exponentials. One division.",
    ),
    mistakes=(
        Mistake(
            "empty lanes take part as zeros: exp(0 - m) is not 0. What should other= be, so that its "
            "exponential is?",
            _with_empty_lanes,
        ),
        Mistake(
            "exp has overflowed or vanished: subtract the row's maximum first",
            lambda x: (x.float().exp() / x.float().exp().sum(1, keepdim=True)).to(x.dtype),
        ),
        Mistake("this is log softmax", lambda x: torch.log_softmax(x, 1)),
        Mistake(
            "the exponentials are not divided by their sum",
            lambda x: (x - x.max(1, keepdim=True).values).exp(),
        ),
    ),
    wrong=(
        Wrong({', other=-float("inf")': ""}, "holds anything"),
        Wrong({'other=-float("inf")': "other=0.0"}, "take part as zeros"),
        Wrong({"tl.exp(x - tl.max(x, axis=0))": "tl.exp(x)"}, "subtract the row's maximum"),
        Wrong({"exponentials / tl.sum(exponentials, axis=0)": "exponentials"}, "not divided"),
        Wrong(
            {
                "tl.exp(x - tl.max(x, axis=0))": "tl.exp(x - tl.max(x, axis=0)); x = tl.load("
                "x_ptr + row * n_columns + columns, mask=inside, other=0.0)"
            },
            "read 2 times over",
        ),
    ),
    reads={"x": 1},
)
