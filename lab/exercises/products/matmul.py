"""matmul: a product of matrices, tile by tile.

c = a b, with a of [n_rows, n_inner], b of [n_inner, n_columns], none with gaps. Each program owns
one tile of c. It walks along the inner direction, multiplies a tile of a by a tile of b, and adds
up.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, c_ptr, n_rows, n_columns, n_inner,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_INNER: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    # hole 1: `total`, [BLOCK_ROWS, BLOCK_COLUMNS]: what the sum begins with, and its precision
    total = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], dtype=tl.float32)
    # end
    for start in range(0, n_inner, BLOCK_INNER):
        inner = start + tl.arange(0, BLOCK_INNER)
        # hole 2: load a tile of a and one of b, with masks in both directions; add their product
        # (tl.dot(a, b, total, input_precision="ieee"))
        a_inside = (rows < n_rows)[:, None] & (inner < n_inner)[None, :]
        b_inside = (inner < n_inner)[:, None] & (columns < n_columns)[None, :]
        a = tl.load(a_ptr + rows[:, None] * n_inner + inner[None, :], mask=a_inside, other=0.0)
        b = tl.load(b_ptr + inner[:, None] * n_columns + columns[None, :], mask=b_inside, other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
        # end
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    tl.store(c_ptr + rows[:, None] * n_columns + columns[None, :], total, mask=inside)


def solve(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply a by b."""
    (n_rows, n_inner), n_columns = a.shape, b.shape[1]
    c = torch.empty(n_rows, n_columns, dtype=a.dtype)
    grid = (triton.cdiv(n_rows, 16), triton.cdiv(n_columns, 16))
    matmul_kernel[grid](
        a, b, c, n_rows, n_columns, n_inner, BLOCK_ROWS=16, BLOCK_COLUMNS=16, BLOCK_INNER=16
    )
    return c


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(shape: tuple[int, int, int], seeded: Any) -> Tensors:
    n_rows, n_columns, n_inner = shape
    return {
        "a": torch.randn(n_rows, n_inner, generator=seeded, dtype=torch.float64),
        "b": torch.randn(n_inner, n_columns, generator=seeded, dtype=torch.float64),
    }


EXERCISE = Exercise(
    level=3,
    draw=_draw,
    cases=((16, 16, 32), (20, 24, 40)),
    reference=lambda a, b: a @ b,
    results=("c",),
    hints=(
        "Both tiles move along the inner direction: a's to the right, b's downwards.",
        "A masked lane of the inner direction must add nothing: other=0.0 on both sides, since "
        "0 times anything is only 0 if that thing is a number.",
        "tl.dot(a, b, total) gives total + a b, in float32.",
    ),
    mistakes=(
        Mistake(
            "only the last tiles of the inner direction are in the result: add to `total`",
            lambda a, b: a[:, -((a.shape[1] - 1) % 16 + 1) :] @ b[-((a.shape[1] - 1) % 16 + 1) :],
        ),
        Mistake(
            "the first tiles of the inner direction are added again and again: `inner` moves on",
            lambda a, b: -(-a.shape[1] // 16) * (a[:, :16] @ b[:16]),
        ),
    ),
    wrong=(
        Wrong({"total = tl.dot(a, b, total, ": "total = tl.dot(a, b, "}, "only the last tiles"),
        Wrong({"inner = start + tl": "inner = tl"}, "added again and again"),
        Wrong({", mask=b_inside, other=0.0": ", mask=b_inside"}, "holds anything"),
        Wrong({" & (inner < n_inner)[None, :]": ""}, "lanes are inside"),
        Wrong(
            {"rows[:, None] * n_inner + inner": "rows[:, None] * n_columns + inner"},
            "wrote it at line",
        ),
        Wrong(
            {
                'total = tl.dot(a, b, total, input_precision="ieee")': 'total += tl.dot(a, b, input_precision="ieee").to(tl.float16)'
            },
            "wrote it at line",
        ),
    ),
)
