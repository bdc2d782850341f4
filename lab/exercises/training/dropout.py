"""dropout: random numbers that come again when they are needed.

y = x / (1 - p) where the element is kept, 0 where it is dropped. Nothing is stored of what was
dropped: tl.rand(seed, offset) gives the same number for the same seed and offset, so the backward
pass draws it again. Every element needs an offset of its own.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def dropout_kernel(x_ptr, y_ptr, n, p, seed, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < n
    x = tl.load(x_ptr + offsets, mask=inside)
    # hole 1: `kept`: whether each element is kept: with probability 1 - p (tl.rand: in [0, 1))
    kept = tl.rand(seed, offsets) >= p
    # end
    # hole 2: `y`: scaled so that its mean over all draws is x
    y = tl.where(kept, x / (1 - p), 0.0)
    # end
    tl.store(y_ptr + offsets, y, mask=inside)


def solve(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Drop a quarter of x, a vector."""
    y = torch.empty_like(x)
    dropout_kernel[(triton.cdiv(x.numel(), 64),)](x, y, x.numel(), 0.25, seed, BLOCK=64)
    return y


# --- The grader's part: a student does not see it. ---
import numpy as np

from ....core.philox import philox, uniform
from ..exercise import Exercise, Mistake, Wrong


def _random(n: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(uniform(philox(seed, np.arange(n), 0, 0, 0)[0]).astype(np.float64))


EXERCISE = Exercise(
    level=2,
    draw=lambda case, seeded: {
        "x": torch.randn(case[0], generator=seeded, dtype=torch.float64),
        "seed": case[1],
    },
    cases=((64, 3), (150, 4)),
    reference=lambda x, seed: torch.where(_random(len(x), seed) >= 0.25, x / 0.75, 0.0),
    results=("y",),
    hints=(
        "A uniform number is below p with probability p: those are dropped.",
        "What is kept stands for what is dropped, too: divide by the probability of being kept.",
        "`offsets` are the elements' numbers, different in each program; tl.arange alone is not.",
    ),
    mistakes=(
        Mistake(
            "what is kept is not scaled: y is too small on average",
            lambda x, seed: torch.where(_random(len(x), seed) >= 0.25, x, 0.0),
        ),
        Mistake(
            "every program draws the same numbers: offsets, not the lane's place in the tile",
            lambda x, seed: torch.where(
                _random(64, seed).repeat(3)[: len(x)] >= 0.25, x / 0.75, 0.0
            ),
        ),
        Mistake(
            "a quarter is kept, not dropped: the comparison is the wrong way round",
            lambda x, seed: torch.where(_random(len(x), seed) < 0.25, x / 0.75, 0.0),
        ),
        Mistake(
            "scaled by 1 / p, not by 1 / (1 - p)",
            lambda x, seed: torch.where(_random(len(x), seed) >= 0.25, x / 0.25, 0.0),
        ),
    ),
    wrong=(
        Wrong({"kept, x / (1 - p)": "kept, x"}, "is not scaled"),
        Wrong({"tl.rand(seed, offsets)": "tl.rand(seed, tl.arange(0, BLOCK))"}, "the same numbers"),
        Wrong({"offsets) >= p": "offsets) < p"}, "the wrong way round"),
        Wrong({"kept, x / (1 - p)": "kept, x / p"}, "not by 1 / (1 - p)"),
    ),
    reads={"x": 1},
)
