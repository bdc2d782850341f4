"""in_place: a shift that sometimes copies one element into all.

y[i] = x[i - 1], and y[0] = 0. To save memory, someone wrote the result into x itself: with one
program it works.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def shift_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    before = tl.load(x_ptr + offsets - 1, mask=(offsets > 0) & (offsets <= n), other=0.0)
    tl.store(y_ptr + offsets, before, mask=offsets < n)


def solve(x: torch.Tensor) -> torch.Tensor:
    """Shift a vector by one; x itself stays as it is."""
    y = torch.empty_like(x)
    shift_kernel[(triton.cdiv(x.numel(), 32),)](x, y, x.numel(), BLOCK=32)
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Mistake, Wrong

EXERCISE = Exercise(
    level=3,
    draw=lambda n, seeded: {"x": torch.randn(n, generator=seeded, dtype=torch.float64)},
    cases=(80, 32),
    reference=lambda x: torch.nn.functional.pad(x, (1, 0))[:-1],
    results=("y",),
    hints=(
        "Program 1's first lane needs what program 0's last lane is about to overwrite.",
        "Programs run in any order, and nothing makes one wait for another.",
        "A result of its own costs memory, and is the only way here.",
    ),
    mistakes=(
        Mistake("this shifts the other way", lambda x: torch.nn.functional.pad(x, (0, 1))[1:]),
        Mistake("this goes round: y[0] should be 0", lambda x: x.roll(1)),
    ),
    wrong=(
        Wrong({"y = torch.empty_like(x)": "y = x"}, "arguments belong to the caller"),
        Wrong(
            {"y = torch.empty_like(x)": "x = y = x.clone()"}, "none may read what another writes"
        ),
        Wrong({"(offsets > 0) & (offsets <= n)": "offsets <= n"}, "lanes are inside"),
        Wrong(
            {
                "x_ptr + offsets - 1": "x_ptr + offsets + 1",
                "(offsets > 0) & (offsets <= n)": "offsets + 1 < n",
            },
            "the other way",
        ),
    ),
    broken={
        "y = torch.empty_like(x)": "x = y = x.clone()  # saves memory: the clone is the result"
    },
    dtypes=("float32",),
)
