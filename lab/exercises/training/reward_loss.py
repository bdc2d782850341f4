"""reward_loss: which of two answers is better, without overflow.

loss = -log(sigmoid(chosen - rejected)) for each pair. If d = chosen - rejected is -100,
sigmoid(d) is 0 in float32 and its log minus infinity, though the loss is just 100:
-log(sigmoid(d)) = max(-d, 0) + log(1 + exp(-|d|)).
"""

import torch
import triton
import triton.language as tl


@triton.jit
def reward_loss_kernel(chosen_ptr, rejected_ptr, loss_ptr, d_chosen_ptr, n, BLOCK: tl.constexpr):
    pairs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pairs < n
    chosen = tl.load(chosen_ptr + pairs, mask=inside, other=0.0).to(tl.float32)
    rejected = tl.load(rejected_ptr + pairs, mask=inside, other=0.0).to(tl.float32)
    d = chosen - rejected
    # hole 1: `loss` of each pair, for d of any size
    loss = tl.maximum(-d, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(d)))
    # end
    # hole 2: `d_chosen`: the gradient with respect to the chosen answer's reward
    d_chosen = tl.sigmoid(d) - 1.0
    # end
    tl.store(loss_ptr + pairs, loss, mask=inside)
    tl.store(d_chosen_ptr + pairs, d_chosen, mask=inside)


def solve(chosen: torch.Tensor, rejected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give each pair's loss and its gradient with respect to `chosen`; all are [n]."""
    loss, d_chosen = torch.empty_like(chosen), torch.empty_like(chosen)
    n = chosen.numel()
    reward_loss_kernel[(triton.cdiv(n, 32),)](chosen, rejected, loss, d_chosen, n, BLOCK=32)
    return loss, d_chosen


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[str, int], seeded: Any) -> Tensors:
    kind, n = case
    chosen, rejected = torch.randn(2, n, generator=seeded, dtype=torch.float64)
    return {"chosen": chosen - (110 if kind == "far off" else 0), "rejected": rejected}


def _loss(chosen: torch.Tensor, rejected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    d = chosen - rejected
    return torch.nn.functional.softplus(-d), -torch.sigmoid(-d)


EXERCISE = Exercise(
    level=2,
    draw=_draw,
    cases=(("close", 32), ("close", 50), ("far off", 40)),
    reference=_loss,
    results=("loss", "d_chosen"),
    hints=(
        "exp of something positive may overflow, exp of something negative cannot.",
        "log(1 + exp(-d)) for positive d; for negative d it is -d + log(1 + exp(d)).",
        "The derivative of -log(sigmoid(d)) is sigmoid(d) - 1: never positive, since a higher reward "
        "for the chosen answer always helps.",
    ),
    mistakes=(
        Mistake(
            "chosen and rejected are swapped", lambda chosen, rejected: _loss(rejected, chosen)
        ),
        Mistake(
            "the gradient is that of the rejected reward: its sign is turned",
            lambda chosen, rejected: (_loss(chosen, rejected)[0], -_loss(chosen, rejected)[1]),
        ),
        Mistake(
            "infinite where d is far below 0: sigmoid(d) is 0 there, or exp(-d) infinite. Take the "
            "form with the absolute value",
            lambda chosen, rejected: (
                torch.where(rejected - chosen > 88.8, torch.inf, _loss(chosen, rejected)[0]),
                _loss(chosen, rejected)[1],
            ),
        ),
        Mistake(
            "this is (1 - d)^2: regression on a margin, not a comparison",
            lambda chosen, rejected: ((1 - chosen + rejected) ** 2, _loss(chosen, rejected)[1]),
        ),
    ),
    wrong=(
        Wrong({"    d = chosen - rejected": "    d = rejected - chosen"}, "are swapped"),
        Wrong({"tl.sigmoid(d) - 1.0": "1.0 - tl.sigmoid(d)"}, "its sign is turned"),
        Wrong(
            {"tl.maximum(-d, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(d)))": "-tl.log(tl.sigmoid(d))"},
            "form with the absolute value",
        ),
        Wrong(
            {"tl.maximum(-d, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(d)))": "tl.log(1.0 + tl.exp(-d))"},
            "form with the absolute value",
        ),
        Wrong(
            {"tl.maximum(-d, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(d)))": "(1.0 - d) * (1.0 - d)"},
            "regression on a margin",
        ),
    ),
    dtypes=("float32",),
)
