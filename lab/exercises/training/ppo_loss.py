"""ppo_loss: the clipped objective, token by token, and its mean over the tokens that count.

ratio = exp(new - old); loss[t] = -min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A) with
advantage A. The result is the mean over tokens whose mask is 1. One program sums everything here.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def ppo_loss_kernel(
    new_ptr, old_ptr, advantage_ptr, mask_ptr, loss_ptr, n, eps, BLOCK: tl.constexpr
):  # fmt: skip
    total = tl.zeros([BLOCK], tl.float32)
    count = tl.zeros([BLOCK], tl.float32)
    for start in range(0, n, BLOCK):
        tokens = start + tl.arange(0, BLOCK)
        inside = tokens < n
        new = tl.load(new_ptr + tokens, mask=inside, other=0.0)
        old = tl.load(old_ptr + tokens, mask=inside, other=0.0)
        advantage = tl.load(advantage_ptr + tokens, mask=inside, other=0.0)
        counts = tl.load(mask_ptr + tokens, mask=inside, other=0)
        # hole 1: `loss` of each token
        ratio = tl.exp(new - old)
        clipped = tl.minimum(tl.maximum(ratio, 1 - eps), 1 + eps)
        loss = -tl.minimum(ratio * advantage, clipped * advantage)
        # end
        # hole 2: add to `total` and `count` what counts
        total += tl.where(counts != 0, loss, 0.0)
        count += tl.where(counts != 0, 1.0, 0.0)
        # end
    tl.store(loss_ptr, tl.sum(total, axis=0) / tl.sum(count, axis=0))


def solve(
    new: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Give the loss, one number; all are vectors: log-probabilities, advantages, 0 or 1."""
    loss = torch.empty((), dtype=torch.float32)
    ppo_loss_kernel[(1,)](new, old, advantage, mask, loss, new.numel(), 0.2, BLOCK=32)
    return loss


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(n: int, seeded: Any) -> Tensors:
    new, old, advantage = torch.randn(3, n, generator=seeded, dtype=torch.float64)
    mask = (torch.rand(n, generator=seeded) < 0.7).int()
    mask[0] = 1
    return {"new": new / 3 - 2, "old": old / 3 - 2, "advantage": advantage, "mask": mask}


def _losses(new: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
    ratio = (new - old).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)


def _mean(losses: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (losses * mask).sum() / mask.sum()


EXERCISE = Exercise(
    level=4,
    draw=_draw,
    cases=(32, 75),
    reference=lambda new, old, advantage, mask: _mean(_losses(new, old, advantage), mask),
    results=("loss",),
    hints=(
        "The arguments are log-probabilities: their difference is the ratio's log.",
        "min takes the worse of the two, whichever sign the advantage has: clipping only ever removes "
        "a gain.",
        "The mean is over the tokens that count, not over n.",
    ),
    mistakes=(
        Mistake(
            "the mean is over all tokens, those that do not count included in the divisor",
            lambda new, old, advantage, mask: (
                (_losses(new, old, advantage) * mask).sum() / len(mask)
            ),
        ),
        Mistake(
            "tokens that do not count are in the sum",
            lambda new, old, advantage, mask: _losses(new, old, advantage).sum() / mask.sum(),
        ),
        Mistake(
            "the mask is not looked at",
            lambda new, old, advantage, mask: _losses(new, old, advantage).mean(),
        ),
        Mistake(
            "the larger of the two is taken: that rewards leaving the interval",
            lambda new, old, advantage, mask: _mean(
                -torch.maximum(
                    (new - old).exp() * advantage, (new - old).exp().clamp(0.8, 1.2) * advantage
                ),
                mask,
            ),
        ),
        Mistake(
            "the clipped ratio alone: where the ratio has moved the wrong way, nothing pulls it back",
            lambda new, old, advantage, mask: _mean(
                -(new - old).exp().clamp(0.8, 1.2) * advantage, mask
            ),
        ),
        Mistake(
            "this is the objective, which is maximised: the loss is its negative",
            lambda new, old, advantage, mask: -_mean(_losses(new, old, advantage), mask),
        ),
    ),
    wrong=(
        Wrong({"-tl.minimum(ratio": "-tl.maximum(ratio"}, "rewards leaving the interval"),
        Wrong({"tl.where(counts != 0, 1.0, 0.0)": "tl.where(inside, 1.0, 0.0)"}, "in the divisor"),
        Wrong({"tl.where(counts != 0, loss, 0.0)": "loss"}, "are in the sum"),
        Wrong(
            {"-tl.minimum(ratio * advantage, clipped * advantage)": "-clipped * advantage"},
            "the clipped ratio alone",
        ),
        Wrong({"-tl.minimum(ratio": "tl.minimum(ratio"}, "its negative"),
        Wrong({"tl.exp(new - old)": "new / old"}, "wrote it at line"),
    ),
    reads={"new": 1, "old": 1},
    dtypes=("float32",),
)
