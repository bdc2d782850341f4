"""first_copy: a first load and a first store.

A launch starts many programs of one kernel. Each does the same to its own part of the data, its
tile: here BLOCK neighbouring elements of a vector. `tl.program_id(0)` tells a program which one it
is. The last tile may reach beyond the vector's end: a mask says which lanes are inside.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def copy_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    # hole 1: `offsets`: which BLOCK elements belong to this program
    program = tl.program_id(0)
    offsets = program * BLOCK + tl.arange(0, BLOCK)
    # end
    inside = offsets < n
    # hole 2: load them from x and store them to y, both under the mask `inside`
    x = tl.load(x_ptr + offsets, mask=inside)
    tl.store(y_ptr + offsets, x, mask=inside)
    # end


def solve(x: torch.Tensor) -> torch.Tensor:
    """Copy a vector."""
    y = torch.empty_like(x)
    grid = (triton.cdiv(x.numel(), 64),)
    copy_kernel[grid](x, y, x.numel(), BLOCK=64)
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Wrong

EXERCISE = Exercise(
    level=1,
    draw=lambda n, seeded: {"x": torch.randn(n, generator=seeded, dtype=torch.float64)},
    cases=(64, 100, 200),
    reference=lambda x: x,
    results=("y",),
    hints=(
        "Program 0 has elements 0 to 63, program 1 has 64 to 127. Where does program p begin?",
        "tl.arange(0, BLOCK) is the numbers 0 to BLOCK - 1: add where the tile begins.",
        "tl.load(pointers, mask=...) gives a tile; tl.store(pointers, tile, mask=...) takes one. "
        "x_ptr + offsets is a tile of pointers.",
    ),
    mistakes=(),
    wrong=(
        Wrong({"x_ptr + offsets, mask=inside": "x_ptr + offsets"}, "says which lanes are inside"),
        Wrong({"offsets, x, mask=inside": "offsets, x"}, "says which lanes are inside"),
        Wrong(
            {"program * BLOCK + tl": "tl"}, "every element of the result belongs to some program"
        ),
        Wrong({"program * BLOCK +": "program +"}, "no two may write one address"),
        Wrong({"tl.store(y_ptr": "tl.store(x_ptr"}, "arguments belong to the caller"),
    ),
    reads={"x": 1},
)
