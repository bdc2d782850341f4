"""gelu_backward: the derivative of a function of each element, by the chain rule.

gelu(x) = x / 2 * (1 + tanh(u)) with u = sqrt(2 / pi) * (x + 0.044715 x^3), as in GPT-2. Given d_y,
d_x = d_y * gelu'(x). Triton's tl has no tanh: tanh(u) = 2 * sigmoid(2 u) - 1.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def gelu_backward_kernel(x_ptr, d_y_ptr, d_x_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < n
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    d_y = tl.load(d_y_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    u = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    tanh = 2 * tl.sigmoid(2 * u) - 1
    # hole 1: `slope`: gelu'(x). Both factors of the product depend on x
    d_u = 0.7978845608028654 * (1 + 3 * 0.044715 * x * x)
    slope = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * d_u
    # end
    tl.store(d_x_ptr + offsets, d_y * slope, mask=inside)


def solve(x: torch.Tensor, d_y: torch.Tensor) -> torch.Tensor:
    """Give the gradient with respect to x, a vector."""
    d_x = torch.empty_like(x)
    n = x.numel()
    gelu_backward_kernel[(triton.cdiv(n, 64),)](x, d_y, d_x, n, BLOCK=64)
    return d_x


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Mistake, Wrong

_ROOT = (2 / torch.pi) ** 0.5


def _slope(
    x: torch.Tensor, *, first: float = 1.0, d_u: bool = True, square: bool = True
) -> torch.Tensor:
    tanh = torch.tanh(_ROOT * (x + 0.044715 * x**3))
    inner = _ROOT * (1 + 3 * 0.044715 * x * x) if d_u else torch.ones_like(x)
    return first * 0.5 * (1 + tanh) + 0.5 * x * (1 - (tanh * tanh if square else tanh)) * inner


EXERCISE = Exercise(
    level=2,
    draw=lambda n, seeded: {
        "x": 2 * torch.randn(n, generator=seeded, dtype=torch.float64),
        "d_y": torch.randn(n, generator=seeded, dtype=torch.float64),
    },
    cases=(64, 150),
    reference=lambda x, d_y: d_y * _slope(x),
    results=("d_x",),
    hints=(
        "A product of two factors has two terms in its derivative.",
        "tanh'(u) = 1 - tanh(u)^2, times u' = sqrt(2 / pi) * (1 + 3 * 0.044715 x^2).",
        "At x = 0 the slope is 1/2; far to the right it is 1, far to the left 0.",
    ),
    mistakes=(
        Mistake(
            "u depends on x, too: its derivative is missing",
            lambda x, d_y: d_y * _slope(x, d_u=False),
        ),
        Mistake("tanh' is 1 - tanh^2, not 1 - tanh", lambda x, d_y: d_y * _slope(x, square=False)),
        Mistake(
            "the first factor's term is missing: x / 2 has a derivative, too",
            lambda x, d_y: d_y * _slope(x, first=0.0),
        ),
        Mistake("this is the slope alone: multiply by d_y", lambda x, d_y: _slope(x)),
    ),
    wrong=(
        Wrong({" * d_u": ""}, "its derivative is missing"),
        Wrong({"1 - tanh * tanh": "1 - tanh"}, "not 1 - tanh"),
        Wrong({"0.5 * (1 + tanh) + ": ""}, "first factor's term is missing"),
        Wrong({"d_y * slope": "slope"}, "multiply by d_y"),
        Wrong({"3 * 0.044715": "0.044715"}, "wrote it at line"),
    ),
    reads={"x": 1, "d_y": 1},
)
