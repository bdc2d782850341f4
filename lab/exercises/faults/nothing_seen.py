"""nothing_seen: one padded row, and the whole model is nan.

y[r] = the softmax of row r over the columns that are seen; a row in which nothing is seen is 0.
Such rows come out as nan, and spread from layer to layer.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def masked_softmax_kernel(x_ptr, seen_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < n_columns
    offsets = row * n_columns + columns
    seen = tl.load(seen_ptr + offsets, mask=inside, other=0) != 0
    x = tl.load(x_ptr + offsets, mask=seen, other=-float("inf")).to(tl.float32)
    largest = tl.max(x, axis=0)
    largest = tl.where(largest == -float("inf"), 0.0, largest)
    exponentials = tl.exp(x - largest)
    total = tl.sum(exponentials, axis=0)
    y = exponentials / tl.where(total == 0, 1.0, total)
    tl.store(y_ptr + offsets, y, mask=inside)


def solve(x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Take the softmax over what is seen; both are [n_rows, n_columns], without gaps."""
    n_rows, n_columns = x.shape
    y = torch.empty_like(x)
    block = triton.next_power_of_2(n_columns)
    masked_softmax_kernel[(n_rows,)](x, seen, y, n_columns, BLOCK=block)
    return y


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[str, int], seeded: Any) -> Tensors:
    kind, n = case
    seen = (torch.rand(3, n, generator=seeded) < 0.6).int()
    seen[:, 0] = 1
    seen[1] *= kind == "all rows see something"
    return {"x": torch.randn(3, n, generator=seeded, dtype=torch.float64), "seen": seen}


def _softmax(x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x.masked_fill(seen == 0, -torch.inf), 1).nan_to_num(0.0)


EXERCISE = Exercise(
    level=3,
    draw=_draw,
    cases=(("all rows see something", 21), ("one row sees nothing", 21)),
    reference=_softmax,
    results=("y",),
    hints=(
        "What is -inf minus -inf?",
        "The maximum of nothing is -inf: subtract something finite instead.",
        "Then the sum is 0, and 0 / 0 is nan, too.",
    ),
    mistakes=(
        Mistake(
            "-inf - (-inf) is nan: where nothing is seen, the maximum needs another value",
            lambda x, seen: torch.softmax(x.masked_fill(seen == 0, -torch.inf), 1),
        ),
        Mistake(
            "a row that sees nothing has been shared out evenly: it should be 0",
            lambda x, seen: torch.where(
                (seen == 0).all(1, keepdim=True),
                1 / triton.next_power_of_2(x.shape[1]),
                _softmax(x, seen),
            ),
        ),
        Mistake("the mask is not looked at", lambda x, seen: torch.softmax(x, 1)),
    ),
    wrong=(
        Wrong(
            {'    largest = tl.where(largest == -float("inf"), 0.0, largest)\n': ""},
            "needs another value",
        ),
        Wrong({"tl.where(total == 0, 1.0, total)": "total"}, "needs another value"),
        Wrong(
            {'mask=seen, other=-float("inf")': 'mask=inside, other=-float("inf")'}, "not looked at"
        ),
        Wrong({'mask=seen, other=-float("inf")': "mask=seen, other=-1e30"}, "shared out evenly"),
    ),
    broken={
        '    largest = tl.where(largest == -float("inf"), 0.0, largest)\n': "",
        "tl.where(total == 0, 1.0, total)": "total",
    },
)
