"""attention_causal: a mask that is an interval, and tiles that nobody reads.

Query i sees keys 0 to i. Half of the tiles hold nothing that anyone sees: a loop that ends at the
last key that this program's queries see takes half the time. The online softmax is given.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def attention_causal_kernel(
    q_ptr, k_ptr, v_ptr, y_ptr, n, scale, D: tl.constexpr, BLOCK: tl.constexpr
):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    q = tl.load(q_ptr + rows[:, None] * D + d, mask=(rows < n)[:, None], other=0.0)
    m = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    y = tl.zeros([BLOCK, D], tl.float32)
    # hole 1: `end`: one more than the last key that any query of this program sees
    end = tl.minimum((tl.program_id(0) + 1) * BLOCK, n)
    # end
    for start in range(0, end, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        inside = (keys < n)[:, None]
        k = tl.load(k_ptr + keys[:, None] * D + d, mask=inside, other=0.0)
        v = tl.load(v_ptr + keys[:, None] * D + d, mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        # hole 2: `scores`: -inf where a query does not see a key
        scores = tl.where(keys[None, :] <= rows[:, None], scores, -float("inf"))
        # end
        new_m = tl.maximum(m, tl.max(scores, axis=1))
        p = tl.exp(scores - new_m[:, None])
        factor = tl.exp(m - new_m)
        total = total * factor + tl.sum(p, axis=1)
        y = y * factor[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        m = new_m
    tl.store(y_ptr + rows[:, None] * D + d, y / total[:, None], mask=(rows < n)[:, None])


def solve(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attend causally; all are [n, 16], without gaps."""
    n, d = q.shape
    y = torch.empty_like(q)
    attention_causal_kernel[(triton.cdiv(n, 16),)](q, k, v, y, n, d**-0.5, D=d, BLOCK=16)
    return y


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Mistake, Wrong


def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, last: int | None = 0
) -> torch.Tensor:
    """Attend to keys up to one's own place and `last` more."""
    scores = q @ k.T / 4
    if last is not None:
        scores = scores.masked_fill(torch.ones_like(scores).tril(last) == 0, -torch.inf)
    return torch.softmax(scores, 1) @ v


EXERCISE = Exercise(
    level=4,
    draw=lambda n, seeded: {
        name: torch.randn(n, 16, generator=seeded, dtype=torch.float64) for name in "qkv"
    },
    cases=(32, 40),
    reference=_attention,
    results=("y",),
    hints=(
        "The program's last query is (program + 1) * BLOCK - 1, and it sees the key of that number.",
        "The last program's tile may reach beyond n.",
        "keys[None, :] <= rows[:, None] is the triangle, tile by tile.",
    ),
    mistakes=(
        Mistake(
            "every query sees every key: nothing is masked",
            lambda q, k, v: _attention(q, k, v, None),
        ),
        Mistake(
            "a query does not see its own key: it should, < is one too few",
            lambda q, k, v: _attention(q, k, v, -1),
        ),
        Mistake("a query sees the key after its own", lambda q, k, v: _attention(q, k, v, 1)),
    ),
    wrong=(
        Wrong({"keys[None, :] <= rows": "keys[None, :] < rows"}, "its own key"),
        Wrong(
            {
                "keys[None, :] <= rows[:, None]": "(keys[None, :] <= rows[:, None] + 1) & (keys < n)[None, :]",
                "(tl.program_id(0) + 1) * BLOCK": "(tl.program_id(0) + 2) * BLOCK",
            },
            "the key after its own",
        ),
        Wrong(
            {"tl.minimum((tl.program_id(0) + 1) * BLOCK, n)": "tl.program_id(0) * BLOCK"},
            "wrote it at line",
        ),
        Wrong(
            {
                "keys[None, :] <= rows[:, None]": "(keys < n)[None, :]",
                "tl.minimum((tl.program_id(0) + 1) * BLOCK, n)": "n",
            },
            "nothing is masked",
        ),
        Wrong({"tl.minimum((tl.program_id(0) + 1) * BLOCK, n)": "n"}, "is read 3 times over"),
    ),
    # Of 40 keys the three programs read 16, 32 and 40.
    reads={"k": 88 / 40, "v": 88 / 40},
)
