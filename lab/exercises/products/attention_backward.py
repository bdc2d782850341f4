"""attention_backward: three gradients, from what the forward pass kept.

The forward pass kept lse, each row's log of the sum of exp(scores): so p = exp(scores - lse) comes
again without a second online softmax. With d_y given and delta = the sum of d_y * y of each row:
d_v = p^T d_y,  d_s = p * (d_y v^T - delta),  d_q = scale * d_s k,  d_k = scale * d_s^T q.

One program does the whole of a small problem here (n <= BLOCK), so that the mathematics is in view.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def attention_backward_kernel(
    q_ptr, k_ptr, v_ptr, y_ptr, lse_ptr, d_y_ptr, d_q_ptr, d_k_ptr, d_v_ptr,
    n, scale, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    rows = tl.arange(0, BLOCK)
    offsets = rows[:, None] * D + tl.arange(0, D)
    inside = (rows < n)[:, None]
    q = tl.load(q_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    k = tl.load(k_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(v_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    lse = tl.load(lse_ptr + rows, mask=rows < n, other=0.0).to(tl.float32)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    seen = inside & (rows < n)[None, :]
    # hole 1: `p`, [BLOCK queries, BLOCK keys]: the probabilities; 0 where one is not there
    p = tl.where(seen, tl.exp(scores - lse[:, None]), 0.0)
    # end
    # hole 2: `d_v`, and `d_s`: the gradient of the scores
    d_v = tl.dot(tl.trans(p), d_y, input_precision="ieee")
    delta = tl.sum(d_y * y, axis=1)
    d_s = p * (tl.dot(d_y, tl.trans(v), input_precision="ieee") - delta[:, None])
    # end
    # hole 3: `d_q` and `d_k`
    d_q = scale * tl.dot(d_s, k, input_precision="ieee")
    d_k = scale * tl.dot(tl.trans(d_s), q, input_precision="ieee")
    # end
    tl.store(d_q_ptr + offsets, d_q, mask=inside)
    tl.store(d_k_ptr + offsets, d_k, mask=inside)
    tl.store(d_v_ptr + offsets, d_v, mask=inside)


def solve(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, y: torch.Tensor, lse: torch.Tensor,
    d_y: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Give d_q, d_k, d_v; all are [n, 16] without gaps, lse [n]."""
    n, d = q.shape
    d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(q), torch.empty_like(q)
    attention_backward_kernel[(1,)](
        q,
        k,
        v,
        y,
        lse,
        d_y,
        d_q,
        d_k,
        d_v,
        n,
        d**-0.5,
        D=d,
        BLOCK=max(16, triton.next_power_of_2(n)),
    )
    return d_q, d_k, d_v


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(n: int, seeded: Any) -> Tensors:
    q, k, v, d_y = torch.randn(4, n, 16, generator=seeded, dtype=torch.float64)
    scores = q @ k.T / 4
    return {
        "q": q,
        "k": k,
        "v": v,
        "y": torch.softmax(scores, 1) @ v,
        "lse": scores.logsumexp(1),
        "d_y": d_y,
    }


def _backward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, y: torch.Tensor, lse: torch.Tensor, d_y: torch.Tensor,
    *, delta: float = 1.0, q_scale: float = 0.25, k_scale: float = 0.25, with_p: bool = True,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    p = (q @ k.T / 4 - lse[:, None]).exp()
    d_s = (p if with_p else 1.0) * (d_y @ v.T - delta * (d_y * y).sum(1, keepdim=True))
    return q_scale * d_s @ k, k_scale * d_s.T @ q, p.T @ d_y


EXERCISE = Exercise(
    level=5,
    draw=_draw,
    cases=(16, 23),
    reference=_backward,
    results=("d_q", "d_k", "d_v"),
    hints=(
        "exp(scores - lse) is a whole softmax: lse holds the maximum and the log of the sum.",
        "d_s is softmax_backward of d_p = d_y v^T, and the sum of p * d_p is the sum of d_y * y.",
        "scores = scale * q k^T: both q and k are multiplied by scale on the way, so both gradients are.",
    ),
    mistakes=(
        Mistake(
            "delta is missing: this is p * d_p alone, without softmax's sum",
            lambda **t: _backward(**t, delta=0.0),
        ),
        Mistake("d_q lacks the scale", lambda **t: _backward(**t, q_scale=1.0)),
        Mistake("d_k lacks the scale", lambda **t: _backward(**t, k_scale=1.0)),
        Mistake("d_q and d_k lack the scale", lambda **t: _backward(**t, q_scale=1.0, k_scale=1.0)),
        Mistake("d_s lacks the factor p", lambda **t: _backward(**t, with_p=False)),
    ),
    wrong=(
        Wrong({" - delta[:, None]": ""}, "delta is missing"),
        Wrong({"d_q = scale * tl": "d_q = tl"}, "d_q lacks the scale"),
        Wrong({"d_k = scale * tl": "d_k = tl"}, "d_k lacks the scale"),
        Wrong(
            {
                "    d_s = p * (tl": "    d_s = (tl",
                "delta[:, None])\n    # end": "delta[:, None])\n"
                "    d_s = tl.where(seen, d_s, 0.0)\n    # end",
            },
            "lacks the factor p",
        ),
        Wrong({"tl.dot(tl.trans(d_s), q": "tl.dot(d_s, q"}, "wrote it at line"),
    ),
    dtypes=("float32",),
)
