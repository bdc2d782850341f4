"""rescale: the loss is right on sorted rows.

y[r] = log of the sum of exp(x[r]), tile by tile. It is right where the row's maximum lies in its
first tile, and too large or infinite elsewhere.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def logsumexp_kernel(x_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    largest = -float("inf")
    total = 0.0
    for start in range(0, n_columns, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < n_columns
        x = tl.load(x_ptr + row * n_columns + columns, mask=inside, other=-float("inf"))
        x = x.to(tl.float32)
        new_largest = tl.maximum(largest, tl.max(x, axis=0))
        total = total * tl.exp(largest - new_largest) + tl.sum(tl.exp(x - new_largest), axis=0)
        largest = new_largest
    tl.store(y_ptr + row, tl.log(total) + largest)


def solve(x: torch.Tensor) -> torch.Tensor:
    """Give each row's logsumexp; x is [n_rows, n_columns], without gaps."""
    n_rows, n_columns = x.shape
    y = torch.empty(n_rows, dtype=torch.float32)
    logsumexp_kernel[(n_rows,)](x, y, n_columns, BLOCK=16)
    return y


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[str, int], seeded: Any) -> Tensors:
    order, n = case
    x = 5 * torch.randn(2, n, generator=seeded, dtype=torch.float64)
    return {"x": x.sort(1, descending=order == "falling").values}


def _without_rescale(x: torch.Tensor) -> torch.Tensor:
    largest = torch.full_like(x[:, 0], -torch.inf)
    total = torch.zeros_like(largest)
    for tile in x.split(16, 1):
        largest = torch.maximum(largest, tile.max(1).values)
        total = total + (tile - largest[:, None]).exp().sum(1)
    return total.log() + largest


EXERCISE = Exercise(
    level=3,
    draw=_draw,
    cases=(("falling", 40), ("rising", 40)),
    reference=lambda x: x.logsumexp(1),
    results=("y",),
    hints=(
        "What does `total` mean after the first tile? And after the maximum has changed?",
        "It is a sum of exp(x - largest), and largest is no longer what it was.",
        "exp(old - new) turns the old sum into what the new maximum measures.",
    ),
    mistakes=(
        Mistake(
            "what was summed so far is not rescaled when a tile brings a new maximum",
            _without_rescale,
        ),
        Mistake("the maximum is not added back", lambda x: x.logsumexp(1) - x.max(1).values),
    ),
    wrong=(
        Wrong({"total * tl.exp(largest - new_largest) +": "total +"}, "is not rescaled"),
        Wrong({"tl.log(total) + largest": "tl.log(total)"}, "not added back"),
        Wrong({"        largest = new_largest\n": ""}, "wrote it at line"),
    ),
    broken={"total * tl.exp(largest - new_largest) +": "total +"},
)
