"""layer_norm: a mean, a variance, and empty lanes that must not count.

y = (x - mean) / sqrt(variance + eps) * weight + bias, with each row's own mean and variance (the
mean of (x - mean)^2, divided by the number of columns).
"""

import torch
import triton
import triton.language as tl


@triton.jit
def layer_norm_kernel(
    x_ptr, weight_ptr, bias_ptr, y_ptr, n_columns, eps, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < n_columns
    x = tl.load(x_ptr + row * n_columns + columns, mask=inside, other=0.0).to(tl.float32)
    # hole 1: `mean` and `variance` of the row: empty lanes count in neither
    mean = tl.sum(x, axis=0) / n_columns
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / n_columns
    # end
    # hole 2: `y`: the row, normalised, scaled by its weights and shifted by its biases
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    y = (x - mean) * tl.rsqrt(variance + eps) * weight + bias
    # end
    tl.store(y_ptr + row * n_columns + columns, y, mask=inside)


def solve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Normalise each row of x, [n_rows, n_columns], without gaps."""
    n_rows, n_columns = x.shape
    y = torch.empty_like(x)
    layer_norm_kernel[(n_rows,)](
        x, weight, bias, y, n_columns, 1e-5, BLOCK=triton.next_power_of_2(n_columns)
    )
    return y


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[str, int, int], seeded: Any) -> Tensors:
    kind, n_rows, n_columns = case
    x = torch.randn(n_rows, n_columns, generator=seeded, dtype=torch.float64)
    w, b = torch.randn(2, n_columns, generator=seeded, dtype=torch.float64)
    moved = {"plain": x, "mean of 500": x + 500, "tiny": x / 300}
    return {"x": moved[kind], "weight": w, "bias": b}


def _norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[1:], weight, bias)


def _with(variance: Any, eps: float = 1e-5, outside: float = 0.0) -> Any:
    def norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        deviation = (variance(x) + eps).sqrt() + outside
        return (x - x.mean(1, keepdim=True)) / deviation * weight + bias

    return norm


def _with_empty_lanes(x: torch.Tensor) -> torch.Tensor:
    """Take each empty lane for a zero, which lies a mean away from the mean."""
    empty = triton.next_power_of_2(x.shape[1]) - x.shape[1]
    return x.var(1, correction=0, keepdim=True) + empty / x.shape[1] * x.mean(1, keepdim=True) ** 2


EXERCISE = Exercise(
    level=3,
    draw=_draw,
    cases=(("plain", 2, 16), ("plain", 3, 21), ("tiny", 2, 21), ("mean of 500", 2, 21)),
    reference=_norm,
    results=("y",),
    hints=(
        "The mean: the sum over n_columns, not over BLOCK.",
        "An empty lane holds 0, and 0 - mean is not 0. tl.where(inside, ..., 0.0) clears it.",
        "E[x^2] - mean^2 is the same number on paper; with a large mean, two large numbers cancel "
        "and take the digits with them.",
    ),
    mistakes=(
        Mistake(
            "the empty lanes count: each holds 0, which lies a mean away from the mean",
            _with(_with_empty_lanes),
        ),
        Mistake(
            "the variance is divided by n - 1",
            _with(lambda x: x.var(1, keepdim=True)),
        ),
        Mistake(
            "eps stands outside of the root",
            _with(lambda x: x.var(1, correction=0, keepdim=True), 0.0, 1e-5),
        ),
        Mistake("eps is missing", _with(lambda x: x.var(1, correction=0, keepdim=True), 0.0)),
        Mistake(
            "weight and bias are not applied",
            lambda x, weight, bias: torch.nn.functional.layer_norm(x, x.shape[1:]),
        ),
    ),
    wrong=(
        Wrong({"tl.where(inside, x - mean, 0.0)": "x - mean"}, "the empty lanes count"),
        Wrong({"axis=0) / n_columns\n    # end": "axis=0) / (n_columns - 1)\n    # end"}, "n - 1"),
        Wrong(
            {"tl.rsqrt(variance + eps)": "(1 / (tl.sqrt(variance) + eps))"}, "outside of the root"
        ),
        Wrong({"tl.rsqrt(variance + eps)": "tl.rsqrt(variance)"}, "eps is missing"),
        Wrong(
            {
                "tl.sum(centred * centred, axis=0) / n_columns": "tl.sum(x * x, axis=0) / n_columns - mean * mean"
            },
            "right, on the other hand",
        ),
        Wrong({" * weight + bias\n    # end": "\n    # end"}, "are not applied"),
    ),
    reads={"x": 1},
)
