"""attention: softmax(q k^T / sqrt(d)) v in one pass over the keys, the scores never stored.

One program has BLOCK queries. It walks over the keys, tile by tile, with the online softmax of
softmax_online: maximum m and running total of each row, and beside them what has been summed of the values,
which must be rescaled by the same factor.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def attention_kernel(
    q_ptr, k_ptr, v_ptr, y_ptr, n_queries, n_keys, scale, D: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    q = tl.load(q_ptr + rows[:, None] * D + d, mask=(rows < n_queries)[:, None], other=0.0)
    m = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    y = tl.zeros([BLOCK, D], tl.float32)
    for start in range(0, n_keys, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        inside = (keys < n_keys)[:, None]
        k = tl.load(k_ptr + keys[:, None] * D + d, mask=inside, other=0.0)
        v = tl.load(v_ptr + keys[:, None] * D + d, mask=inside, other=0.0)
        # hole 1: `scores`, [BLOCK queries, BLOCK keys]: scaled, and -inf where there is no key
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where((keys < n_keys)[None, :], scores, -float("inf"))
        # end
        # hole 2: bring m, total and y up to date
        new_m = tl.maximum(m, tl.max(scores, axis=1))
        p = tl.exp(scores - new_m[:, None])
        factor = tl.exp(m - new_m)
        total = total * factor + tl.sum(p, axis=1)
        y = y * factor[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        m = new_m
        # end
    # hole 3: `y`: divided once, at the end
    y = y / total[:, None]
    # end
    tl.store(y_ptr + rows[:, None] * D + d, y, mask=(rows < n_queries)[:, None])


def solve(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attend from q, [n_queries, 16], to k and v, [n_keys, 16], without gaps."""
    n_queries, d = q.shape
    y = torch.empty_like(q)
    grid = (triton.cdiv(n_queries, 16),)
    attention_kernel[grid](q, k, v, y, n_queries, k.shape[0], d**-0.5, D=d, BLOCK=16)
    return y


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(shape: tuple[int, int], seeded: Any) -> Tensors:
    n_queries, n_keys = shape
    q = 2 * torch.randn(n_queries, 16, generator=seeded, dtype=torch.float64)
    k = torch.randn(n_keys, 16, generator=seeded, dtype=torch.float64)
    # Later keys are longer: every tile brings some query a new maximum.
    k *= torch.linspace(0.2, 3, n_keys, dtype=torch.float64)[:, None]
    return {"q": q, "k": k, "v": torch.randn(n_keys, 16, generator=seeded, dtype=torch.float64)}


def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float = 0.25
) -> torch.Tensor:
    return torch.softmax(q @ k.T * scale, 1) @ v


def _to_whole_tiles(keys: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(keys, (0, 0, 0, -len(keys) % 16))


def _pieces(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, sums: bool, values: bool
) -> torch.Tensor:
    """Run the loop with one of its rescales left out."""
    m = torch.full_like(q[:, :1], -torch.inf)
    total, y = torch.zeros_like(m), torch.zeros_like(q)
    for some_k, some_v in zip(k.split(16), v.split(16), strict=True):
        scores = q @ some_k.T * 0.25
        new = torch.maximum(m, scores.max(1, keepdim=True).values)
        p, factor = (scores - new).exp(), (m - new).exp()
        total = (total * factor if sums else total) + p.sum(1, keepdim=True)
        y = (y * factor if values else y) + p @ some_v
        m = new
    return y / total


EXERCISE = Exercise(
    level=4,
    draw=_draw,
    cases=((16, 32), (20, 40)),
    reference=_attention,
    results=("y",),
    hints=(
        "A key that is not there has score -inf: its exponential is 0. A score of 0 is a real score.",
        "m and total as in softmax_online, one of each row. factor = exp(m - new_m).",
        "y is a sum of exp(score - m) * value: it was measured from the old maximum, too.",
    ),
    mistakes=(
        Mistake(
            "the scores are not scaled by 1 / sqrt(d)", lambda q, k, v: _attention(q, k, v, 1.0)
        ),
        Mistake(
            "total is not rescaled when a tile brings a new maximum",
            lambda q, k, v: _pieces(q, k, v, sums=False, values=True),
        ),
        Mistake(
            "y is not rescaled when a tile brings a new maximum",
            lambda q, k, v: _pieces(q, k, v, sums=True, values=False),
        ),
        Mistake(
            "keys that are not there take part with a score of 0",
            lambda q, k, v: _attention(q, _to_whole_tiles(k), _to_whole_tiles(v)),
        ),
        Mistake(
            "the sum is never divided by total",
            lambda q, k, v: (q @ k.T / 4 - (q @ k.T / 4).max(1, keepdim=True).values).exp() @ v,
        ),
    ),
    wrong=(
        Wrong({'input_precision="ieee") * scale': 'input_precision="ieee")'}, "are not scaled"),
        Wrong({"total = total * factor +": "total = total +"}, "total is not rescaled"),
        Wrong({"y = y * factor[:, None] +": "y = y +"}, "y is not rescaled"),
        Wrong(
            {'        scores = tl.where((keys < n_keys)[None, :], scores, -float("inf"))\n': ""},
            "with a score of 0",
        ),
        Wrong({"    y = y / total[:, None]\n": "    y = y\n"}, "never divided"),
    ),
)
