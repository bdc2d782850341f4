"""bounds: it works in every test that someone tried, and crashes at a customer's.

y = 2 x. The tests had vectors of 128 and 256 elements. Find the fault and mend it.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def double_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < n
    x = tl.load(x_ptr + offsets, mask=inside)
    tl.store(y_ptr + offsets, 2 * x, mask=inside)


def solve(x: torch.Tensor) -> torch.Tensor:
    """Double a vector."""
    y = torch.empty_like(x)
    double_kernel[(triton.cdiv(x.numel(), 64),)](x, y, x.numel(), BLOCK=64)
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Wrong

EXERCISE = Exercise(
    level=1,
    draw=lambda n, seeded: {"x": torch.randn(n, generator=seeded, dtype=torch.float64)},
    cases=(128, 100),
    reference=lambda x: 2 * x,
    results=("y",),
    hints=(
        "What is special about 128 and 256?",
        "How many lanes does the last program have for 100 elements, and how many of them are inside?",
        "A mask that is true for n itself lets one lane too many through.",
    ),
    mistakes=(),
    wrong=(
        Wrong({"offsets < n": "offsets <= n"}, "says which lanes are inside"),
        Wrong({"offsets < n": "offsets < n - 1"}, "count the programs"),
        Wrong({"offsets < n": "offsets < BLOCK"}, "count the programs"),
    ),
    broken={"offsets < n": "offsets <= n"},
)
