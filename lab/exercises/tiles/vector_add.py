"""vector_add: the sum of two vectors, and a grid of your own.

Two loads, a sum, a store. This time you choose how many programs there are.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def add_kernel(x_ptr, y_ptr, z_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    # hole 1: z = x + y for the elements of this tile that are inside
    inside = offsets < n
    x = tl.load(x_ptr + offsets, mask=inside)
    y = tl.load(y_ptr + offsets, mask=inside)
    tl.store(z_ptr + offsets, x + y, mask=inside)
    # end


def solve(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Add two vectors of one length."""
    z = torch.empty_like(x)
    n = x.numel()
    # hole 2: launch as many programs of 32 elements as it takes
    grid = (triton.cdiv(n, 32),)
    add_kernel[grid](x, y, z, n, BLOCK=32)
    # end
    return z


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Mistake, Wrong

EXERCISE = Exercise(
    level=1,
    draw=lambda n, seeded: {
        name: torch.randn(n, generator=seeded, dtype=torch.float64) for name in "xy"
    },
    cases=(32, 98),
    reference=lambda x, y: x + y,
    results=("z",),
    hints=(
        "The mask is a tile of booleans: offsets < n.",
        "98 elements in tiles of 32 need 4 programs, not 98 // 32 = 3.",
        "triton.cdiv(a, b) divides and rounds up. A grid is a tuple: (n_programs,).",
    ),
    mistakes=(
        Mistake("this is x - y", lambda x, y: x - y),
        Mistake("this is x + x: y is never added", lambda x, y: x + x),
    ),
    wrong=(
        Wrong({"triton.cdiv(n, 32)": "n // 32"}, "count the programs"),
        Wrong({"offsets < n": "offsets <= n"}, "says which lanes are inside"),
        Wrong({"x + y, mask": "x - y, mask"}, "this is x - y"),
        Wrong({"tl.load(y_ptr": "tl.load(x_ptr"}, "this is x + x"),
        Wrong(
            {"add_kernel[grid](x, y, z, n": "add_kernel[grid](x, z, y, n"}, "nothing has written"
        ),
    ),
    reads={"x": 1, "y": 1},
)
