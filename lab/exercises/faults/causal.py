"""causal: the model predicts perfectly, and talks nonsense.

y[i] = the mean of x[0] to x[i]. In training, with position i, something of position i + 1 is
seen: a leak from the future, which no loss complains of.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def running_mean_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    end = tl.minimum((tl.program_id(0) + 1) * BLOCK, n)
    for start in range(0, end, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + columns, mask=columns < n, other=0.0).to(tl.float32)
        total += tl.sum(tl.where(columns[None, :] <= rows[:, None], x[None, :], 0.0), axis=1)
    tl.store(y_ptr + rows, total / (rows + 1), mask=rows < n)


def solve(x: torch.Tensor) -> torch.Tensor:
    """Give the mean of all elements up to each; x is a vector."""
    y = torch.empty_like(x)
    running_mean_kernel[(triton.cdiv(x.numel(), 16),)](x, y, x.numel(), BLOCK=16)
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Mistake, Wrong


def _means(x: torch.Tensor, ahead: int = 0) -> torch.Tensor:
    """Sum up to `ahead` elements further, but not beyond the tile, which is all that is loaded."""
    i = torch.arange(len(x))
    last = torch.minimum(i + ahead, (i // 16 + 1) * 16 - 1)
    return (x * (i[None, :] <= last[:, None])).sum(1) / (i + 1)


EXERCISE = Exercise(
    level=2,
    draw=lambda n, seeded: {"x": torch.randn(n, generator=seeded, dtype=torch.float64)},
    cases=(16, 40),
    reference=_means,
    results=("y",),
    hints=(
        "Which elements may y[0] depend on? Change x[1] and see whether it moves.",
        "The triangle is made by one comparison.",
        "<= lets one's own element in; one more lets the next one in.",
    ),
    mistakes=(
        Mistake("each element sees the one after it", lambda x: _means(x, 1)),
        Mistake("each element does not see itself", lambda x: _means(x, -1)),
        Mistake("each element sees the whole of its tile", lambda x: _means(x, 16)),
    ),
    wrong=(
        Wrong({"<= rows[:, None]": "<= rows[:, None] + 1"}, "the one after it"),
        Wrong({"<= rows[:, None]": "< rows[:, None]"}, "does not see itself"),
        Wrong(
            {"columns[None, :] <= rows[:, None]": "(columns < n)[None, :] & (rows < n)[:, None]"},
            "whole of its tile",
        ),
        Wrong({"(tl.program_id(0) + 1) * BLOCK": "tl.program_id(0) * BLOCK"}, "wrote it at line"),
    ),
    broken={"<= rows[:, None]": "<= rows[:, None] + 1"},
)
