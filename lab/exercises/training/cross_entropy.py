"""cross_entropy: a loss and its gradient in one kernel.

loss[r] = logsumexp(x[r]) - x[r, target[r]], and d_x[r, c] = softmax(x[r])[c] - (1 if c is the
target). The row is read once: both come from the same exponentials.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def cross_entropy_kernel(x_ptr, target_ptr, loss_ptr, d_x_ptr, n_columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < n_columns
    offsets = row * n_columns + columns
    x = tl.load(x_ptr + offsets, mask=inside, other=-float("inf")).to(tl.float32)
    target = tl.load(target_ptr + row)
    # hole 1: `loss`, one number. The target's logit is in the tile: no second load
    largest = tl.max(x, axis=0)
    exponentials = tl.exp(x - largest)
    total = tl.sum(exponentials, axis=0)
    at_target = tl.sum(tl.where(columns == target, x, 0.0), axis=0)
    loss = tl.log(total) + largest - at_target
    # end
    # hole 2: `d_x`, the row's gradient
    d_x = exponentials / total - tl.where(columns == target, 1.0, 0.0)
    # end
    tl.store(loss_ptr + row, loss)
    tl.store(d_x_ptr + offsets, d_x, mask=inside)


def solve(x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the loss of each row, [n_rows], and its gradient, [n_rows, n_columns]."""
    n_rows, n_columns = x.shape
    loss, d_x = torch.empty(n_rows, dtype=torch.float32), torch.empty_like(x)
    cross_entropy_kernel[(n_rows,)](
        x, target, loss, d_x, n_columns, BLOCK=triton.next_power_of_2(n_columns)
    )
    return loss, d_x


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[str, int, int], seeded: Any) -> Tensors:
    kind, n_rows, n_columns = case
    x = 3 * torch.randn(n_rows, n_columns, generator=seeded, dtype=torch.float64)
    return {
        "x": x + 300 if kind == "about 300" else x,
        "target": torch.randint(n_columns, (n_rows,), generator=seeded),
    }


def _loss(x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    one = torch.nn.functional.one_hot(target, x.shape[1])
    return x.logsumexp(1) - (x * one).sum(1), torch.softmax(x, 1) - one


EXERCISE = Exercise(
    level=3,
    draw=_draw,
    cases=(("plain", 3, 16), ("plain", 3, 21), ("about 300", 2, 21)),
    reference=_loss,
    results=("loss", "d_x"),
    hints=(
        "logsumexp(x) = m + log(sum of exp(x - m)), with m the maximum.",
        "columns == target is true in one lane; a sum over tl.where picks that lane's logit.",
        "The gradient of logsumexp is the softmax; the gradient of - x[target] is - 1 at the target.",
    ),
    mistakes=(
        Mistake(
            "the loss lacks the maximum: log(sum of exp(x - m)) is logsumexp(x) - m",
            lambda x, target: (_loss(x, target)[0] - x.max(1).values, _loss(x, target)[1]),
        ),
        Mistake(
            "d_x is the softmax alone: the target's 1 is not subtracted",
            lambda x, target: (_loss(x, target)[0], torch.softmax(x, 1)),
        ),
        Mistake(
            "d_x has the sign of a reward: the loss falls when the target's logit rises",
            lambda x, target: (_loss(x, target)[0], -_loss(x, target)[1]),
        ),
        Mistake(
            "exp has overflowed: subtract the row's maximum first",
            lambda x, target: (
                torch.where(x.max(1).values > 88, torch.inf, _loss(x, target)[0]),
                torch.where(x.max(1, keepdim=True).values > 88, torch.nan, _loss(x, target)[1]),
            ),
        ),
    ),
    wrong=(
        Wrong({"tl.log(total) + largest - at": "tl.log(total) - at"}, "lacks the maximum"),
        Wrong({" - tl.where(columns == target, 1.0, 0.0)": ""}, "the softmax alone"),
        Wrong(
            {
                "exponentials / total - tl.where(columns == target, 1.0, 0.0)": "tl.where(columns == target, 1.0, 0.0) - exponentials / total"
            },
            "sign of a reward",
        ),
        Wrong(
            {
                "tl.exp(x - largest)": "tl.exp(x)",
                "tl.log(total) + largest - at": "tl.log(total) - at",
            },
            "exp has overflowed",
        ),
        Wrong(
            {
                "tl.sum(tl.where(columns == target, x, 0.0), axis=0)": "tl.load(x_ptr + row * n_columns + target)"
            },
            "times over",
        ),
    ),
    reads={"x": 1},
)
