"""softmax_online: rows that are longer than a tile, in two passes.

The first pass keeps a running maximum m and a running sum l of exp(x - m). When a tile brings a
new maximum, what was summed so far was measured from the old one: it has to be rescaled. The
second pass writes. This step is the heart of flash attention.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def softmax_online_kernel(x_ptr, y_ptr, n_columns, BLOCK: tl.constexpr):
    x_ptr += tl.program_id(0) * n_columns
    y_ptr += tl.program_id(0) * n_columns
    largest = -float("inf")
    total = 0.0
    for start in range(0, n_columns, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + columns, mask=columns < n_columns, other=-float("inf")).to(tl.float32)
        # hole 1: bring `largest` and `total` up to date with this tile
        new_largest = tl.maximum(largest, tl.max(x, axis=0))
        total = total * tl.exp(largest - new_largest) + tl.sum(tl.exp(x - new_largest), axis=0)
        largest = new_largest
        # end
    for start in range(0, n_columns, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + columns, mask=columns < n_columns, other=0.0).to(tl.float32)
        # hole 2: store this tile's softmax
        tl.store(y_ptr + columns, tl.exp(x - largest) / total, mask=columns < n_columns)
        # end


def solve(x: torch.Tensor) -> torch.Tensor:
    """Take the softmax of each row of x, [n_rows, n_columns], in tiles of 16."""
    n_rows, n_columns = x.shape
    y = torch.empty_like(x)
    softmax_online_kernel[(n_rows,)](x, y, n_columns, BLOCK=16)
    return y


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[str, int, int], seeded: Any) -> Tensors:
    order, n_rows, n_columns = case
    x = 4 * torch.randn(n_rows, n_columns, generator=seeded, dtype=torch.float64)
    return {"x": {"rising": x.sort(1).values, "falling": x.sort(1, descending=True).values}[order]}


def _tile_by_tile(x: torch.Tensor, factor: Any) -> torch.Tensor:
    """Run the first pass with another factor for what was summed so far."""
    largest = torch.full_like(x[:, :1], -torch.inf)
    total = torch.zeros_like(largest)
    for tile in x.split(16, 1):
        new = torch.maximum(largest, tile.max(1, keepdim=True).values)
        total = total * factor(largest, new) + (tile - new).exp().sum(1, keepdim=True)
        largest = new
    return (x - largest).exp() / total


EXERCISE = Exercise(
    level=3,
    draw=_draw,
    cases=(("falling", 2, 40), ("rising", 2, 16), ("rising", 2, 40)),
    reference=lambda x: torch.softmax(x, 1),
    results=("y",),
    hints=(
        "Write the new maximum into another variable first: the old one is still needed.",
        "exp(x - old) = exp(x - new) * exp(new - old). Which factor turns a sum of the left side "
        "into a sum of exp(x - new)?",
        "total = total * exp(old - new) + sum of this tile's exp(x - new).",
    ),
    mistakes=(
        Mistake(
            "what was summed so far is not rescaled when a tile brings a new maximum",
            lambda x: _tile_by_tile(x, lambda old, new: torch.ones_like(new)),
        ),
        Mistake(
            "the factor is upside down: exp(old - new) shrinks the old sum, exp(new - old) inflates it",
            lambda x: _tile_by_tile(x, lambda old, new: (new - old).exp().nan_to_num(posinf=0.0)),
        ),
        Mistake(
            "only the last tile is summed: add to `total`",
            lambda x: _tile_by_tile(x, lambda old, new: torch.zeros_like(new)),
        ),
    ),
    wrong=(
        Wrong({"total * tl.exp(largest - new_largest) +": "total +"}, "is not rescaled"),
        Wrong({"total = total * tl.exp(largest - new_largest) +": "total ="}, "only the last tile"),
        Wrong({"        largest = new_largest\n": ""}, "wrote it at line"),
        Wrong(
            {
                "tl.exp(x - largest) / total, mask=columns < n_columns": "tl.exp(x - largest) / total"
            },
            "lanes are inside",
        ),
    ),
    reads={"x": 2},
)
