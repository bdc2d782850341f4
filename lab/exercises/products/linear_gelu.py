"""linear_gelu: an epilogue. What is done to a tile while it is still at hand costs nothing.

y = gelu(x w + bias), with gelu(z) = z * sigmoid(1.702 z), GPT-2's other approximation. The
product is given; bias and gelu come before the store, not in a kernel of their own, which would
read and write the whole of y once more.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def linear_gelu_kernel(
    x_ptr, w_ptr, bias_ptr, y_ptr, n_rows, n_columns, n_inner, BLOCK: tl.constexpr
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK, BLOCK], dtype=tl.float32)
    for start in range(0, n_inner, BLOCK):
        inner = start + tl.arange(0, BLOCK)
        x_inside = (rows < n_rows)[:, None] & (inner < n_inner)[None, :]
        w_inside = (inner < n_inner)[:, None] & (columns < n_columns)[None, :]
        x = tl.load(x_ptr + rows[:, None] * n_inner + inner[None, :], mask=x_inside, other=0.0)
        w = tl.load(w_ptr + inner[:, None] * n_columns + columns[None, :], mask=w_inside, other=0.0)
        total = tl.dot(x, w, total, input_precision="ieee")
    # hole 1: `y`: the tile with bias and gelu. The bias belongs to columns: [BLOCK]
    bias = tl.load(bias_ptr + columns, mask=columns < n_columns, other=0.0)
    z = total + bias[None, :]
    y = z * tl.sigmoid(1.702 * z)
    # end
    inside = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    tl.store(y_ptr + rows[:, None] * n_columns + columns[None, :], y, mask=inside)


def solve(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Give gelu(x w + bias); x is [n_rows, n_inner], w [n_inner, n_columns]."""
    (n_rows, n_inner), n_columns = x.shape, w.shape[1]
    y = torch.empty(n_rows, n_columns, dtype=x.dtype)
    grid = (triton.cdiv(n_rows, 16), triton.cdiv(n_columns, 16))
    linear_gelu_kernel[grid](x, w, bias, y, n_rows, n_columns, n_inner, BLOCK=16)
    return y


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(shape: tuple[int, int, int], seeded: Any) -> Tensors:
    n_rows, n_columns, n_inner = shape
    return {
        "x": torch.randn(n_rows, n_inner, generator=seeded, dtype=torch.float64),
        "w": torch.randn(n_inner, n_columns, generator=seeded, dtype=torch.float64),
        "bias": torch.randn(n_columns, generator=seeded, dtype=torch.float64),
    }


def _gelu(z: torch.Tensor) -> torch.Tensor:
    return z * torch.sigmoid(1.702 * z)


EXERCISE = Exercise(
    level=3,
    draw=_draw,
    cases=((16, 16, 16), (20, 20, 40)),
    reference=lambda x, w, bias: _gelu(x @ w + bias),
    results=("y",),
    hints=(
        "The hole stands behind the loop: a bias that is added in it is added once for each tile.",
        "bias[None, :] is a row that stands beside every row of the tile.",
        "gelu comes last: it is not linear, so it cannot be moved into the sum.",
    ),
    mistakes=(
        Mistake("the bias is missing", lambda x, w, bias: _gelu(x @ w)),
        Mistake("the bias is added after gelu", lambda x, w, bias: _gelu(x @ w) + bias),
        Mistake("gelu is missing", lambda x, w, bias: x @ w + bias),
        Mistake(
            "the bias goes along rows: bias[None, :] is a row, bias[:, None] a column",
            lambda x, w, bias: _gelu(x @ w + bias[: x.shape[0], None]),
        ),
    ),
    wrong=(
        Wrong({"z = total + bias[None, :]": "z = total"}, "the bias is missing"),
        Wrong(
            {
                "bias[None, :]\n    y = z * tl.sigmoid(1.702 * z)": "0.0\n    y = z * tl.sigmoid(1.702 * z) + bias[None, :]"
            },
            "added after gelu",
        ),
        Wrong({"y = z * tl.sigmoid(1.702 * z)": "y = z"}, "gelu is missing"),
        Wrong({"bias[None, :]": "bias[:, None]"}, "wrote it at line"),
    ),
)
