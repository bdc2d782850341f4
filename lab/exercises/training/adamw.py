"""adamw: an optimizer's step in one pass, in place.

m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2, p = p - lr * (m / (1 - b1^t) / (sqrt(v / (1 -
b2^t)) + eps) + decay * p). Three tensors are read and written, one is read: written as PyTorch
operations, the same costs a dozen passes over memory.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def adamw_kernel(
    p_ptr, g_ptr, m_ptr, v_ptr, n, lr, b1, b2, eps, decay, correction1, correction2,
    BLOCK: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < n
    p = tl.load(p_ptr + offsets, mask=inside)
    g = tl.load(g_ptr + offsets, mask=inside)
    # hole 1: load m and v, and bring them up to date
    m = b1 * tl.load(m_ptr + offsets, mask=inside) + (1 - b1) * g
    v = b2 * tl.load(v_ptr + offsets, mask=inside) + (1 - b2) * g * g
    # end
    # hole 2: `p`: the parameters after the step; correction1 is 1 - b1^t, correction2 1 - b2^t
    p -= lr * ((m / correction1) / (tl.sqrt(v / correction2) + eps) + decay * p)
    # end
    tl.store(p_ptr + offsets, p, mask=inside)
    tl.store(m_ptr + offsets, m, mask=inside)
    tl.store(v_ptr + offsets, v, mask=inside)


def solve(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take step `step`, from 1 on: p, m and v, vectors, are updated in place and returned."""
    n, b1, b2 = p.numel(), 0.9, 0.95
    adamw_kernel[(triton.cdiv(n, 64),)](
        p, g, m, v, n, 0.1, b1, b2, 1e-4, 0.1, 1 - b1**step, 1 - b2**step, BLOCK=64
    )
    return p, m, v


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[int, int], seeded: Any) -> Tensors:
    n, step = case
    p, g, m = torch.randn(3, n, generator=seeded, dtype=torch.float64)
    v = torch.rand(n, generator=seeded, dtype=torch.float64) / 100
    if step == 1:
        m, v = torch.zeros_like(m), torch.zeros_like(v)
    g[::3] /= 3000  # so that eps and its place matter
    return {"p": p, "g": g, "m": m, "v": v, "step": step}


def _step(
    p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor, step: int,
    *, corrected: bool = True, coupled: bool = False, inside: bool = False, eps: float = 1e-4,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    g = g + 0.1 * p if coupled else g
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
    m_hat = m / (1 - 0.9**step) if corrected else m
    v_hat = v / (1 - 0.95**step) if corrected else v
    root = (v_hat + eps).sqrt() if inside else v_hat.sqrt() + eps
    return p - 0.1 * (m_hat / root + (0 if coupled else 0.1 * p)), m, v


EXERCISE = Exercise(
    level=2,
    draw=_draw,
    cases=((64, 1), (100, 7)),
    reference=_step,
    results=("p", "m", "v"),
    hints=(
        "m and v are moving averages of g and of g^2: what is new has weight 1 - b.",
        "They begin at 0, so early averages are too small: that is what the corrections mend.",
        "Decay acts on p itself, beside the step, not inside of g: that is the W in AdamW.",
    ),
    mistakes=(
        Mistake(
            "the moving averages are not corrected for their start at 0",
            lambda **t: _step(**t, corrected=False),
        ),
        Mistake(
            "the decay has been added to the gradient: that is Adam with L2, not AdamW",
            lambda **t: _step(**t, coupled=True),
        ),
        Mistake("eps stands inside of the root", lambda **t: _step(**t, inside=True)),
        Mistake("eps is missing", lambda **t: _step(**t, eps=0.0)),
    ),
    wrong=(
        Wrong(
            {"(m / correction1) / (tl.sqrt(v / correction2) + eps)": "m / (tl.sqrt(v) + eps)"},
            "not corrected",
        ),
        Wrong(
            {
                "g = tl.load(g_ptr + offsets, mask=inside)": "g = tl.load(g_ptr + offsets, mask=inside) + decay * p",
                " + decay * p)\n    # end": ")\n    # end",
            },
            "Adam with L2",
        ),
        Wrong(
            {"(tl.sqrt(v / correction2) + eps)": "tl.sqrt(v / correction2 + eps)"},
            "inside of the root",
        ),
        Wrong({"(tl.sqrt(v / correction2) + eps)": "tl.sqrt(v / correction2)"}, "eps is missing"),
        Wrong({"(1 - b2) * g * g": "(1 - b2) * g"}, "wrote it at line"),
    ),
    reads={"p": 1, "g": 1, "m": 1, "v": 1},
    updates=("p", "m", "v"),
    dtypes=("float32",),
)
