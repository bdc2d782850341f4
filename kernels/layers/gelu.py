"""GELU in Triton, forward and backward, in both forms.

Mathematics (core/layers/gelu.py): gelu(x) = x·g(x) with g = Φ, or its tanh form ½(1 + tanh(u)).
Since ½(1 + tanh(u)) = σ(2u), the tanh form is a logistic function: one exp2 and one division,
without the cancellation that 1 + tanh suffers for negative x.

Tiling: the tensor as one long row, one block a program. Forward reads x and writes the result;
backward reads x and d_result and writes d_x, recomputing g, which is far cheaper than storing it.
Deterministic: nothing crosses an element.

`gate` is a device function: the epilogue of kernels/layers/linear.py calls it too.
"""

import math

import torch

from ...core.layers.gelu import CUBIC, SATURATED, SQRT_2_OVER_PI, check_gelu
from ..common._triton import tl, triton
from ..common.derivative import first_derivative_only
from ..common.launch import launch, runs_on_triton
from ..common.registered import registered
from ..common.rows import bucketed

ELEMENTWISE_CONFIGS = [
    triton.Config({"BLOCK": 1024}, num_warps=4),
    triton.Config({"BLOCK": 4096}, num_warps=8),
]

# Inside a kernel a global must be a compile-time constant.
_SATURATED = tl.constexpr(SATURATED)
_SQRT_2_OVER_PI = tl.constexpr(SQRT_2_OVER_PI)
_CUBIC = tl.constexpr(CUBIC)
_MINUS_2_LOG2_E = tl.constexpr(-2 * math.log2(math.e))
_MINUS_HALF_LOG2_E = tl.constexpr(-0.5 * math.log2(math.e))
_SQRT_HALF = tl.constexpr(math.sqrt(0.5))
_NORMAL_DENSITY_AT_0 = tl.constexpr(1 / math.sqrt(2 * math.pi))


@triton.jit
def gate(x, TANH: tl.constexpr):
    """Return g(x) and g′(x) of a float32 block, x clamped to where they saturate.

    Constants stand on the right of each product: the interpreter needs the tensor first.
    """
    x = tl.clamp(x, -_SATURATED, _SATURATED, propagate_nan=tl.PropagateNan.ALL)
    if TANH:
        u = (x + x * x * x * _CUBIC) * _SQRT_2_OVER_PI
        g = 1.0 / (1.0 + tl.exp2(u * _MINUS_2_LOG2_E))  # σ(2u)
        d_u = (1.0 + x * x * (3.0 * _CUBIC)) * _SQRT_2_OVER_PI
        slope = 2.0 * d_u * g * (1.0 - g)
    else:
        g = 0.5 * (1.0 + tl.erf(x * _SQRT_HALF))
        slope = tl.exp2(x * x * _MINUS_HALF_LOG2_E) * _NORMAL_DENSITY_AT_0
    return g, slope


@triton.jit
def gelu_slope(x, TANH: tl.constexpr):
    """Return the derivative of x·g(x) for a float32 block."""
    g, slope = gate(x, TANH)
    return g + x * slope


@triton.autotune(ELEMENTWISE_CONFIGS, key=["size_bucket"])
@triton.jit
def gelu_forward_kernel(
    x_ptr,
    result_ptr,
    n_elements,
    size_bucket,  # n_elements rounded up to a power of two: tuned once for each
    TANH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Apply GELU to one block."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n_elements
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    g, _ = gate(x, TANH)
    tl.store(result_ptr + at, x * g, mask=inside)


@triton.autotune(ELEMENTWISE_CONFIGS, key=["size_bucket"])
@triton.jit
def gelu_backward_kernel(
    x_ptr,
    d_result_ptr,
    d_x_ptr,
    n_elements,
    size_bucket,
    TANH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Carry the gradient of one block back."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n_elements
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    d_result = tl.load(d_result_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(d_x_ptr + at, d_result * gelu_slope(x, TANH), mask=inside)


@registered
def gelu_forward(x: torch.Tensor, approximate: str) -> torch.Tensor:
    """Launch the forward kernel.

    Parameters
    ----------
    x : torch.Tensor [...]
        Contiguous.
    approximate : str
        As in `gelu`.

    Returns
    -------
    torch.Tensor
        Shaped like `x`.
    """
    result = torch.empty_like(x)
    n = x.numel()
    launch(gelu_forward_kernel, _grid(n), x, result, *bucketed(n), TANH=approximate == "tanh")
    return result


@registered
def gelu_backward(x: torch.Tensor, d_result: torch.Tensor, approximate: str) -> torch.Tensor:
    """Launch the backward kernel.

    Parameters
    ----------
    x, d_result : torch.Tensor [...]
        Contiguous, of one shape.
    approximate : str
        As in `gelu`.

    Returns
    -------
    torch.Tensor
        Gradient with respect to `x`.
    """
    d_x = torch.empty_like(x)
    n = x.numel()
    launch(
        gelu_backward_kernel, _grid(n), x, d_result, d_x, *bucketed(n), TANH=approximate == "tanh"
    )
    return d_x


def _grid(n_elements: int):
    return lambda meta: (triton.cdiv(n_elements, meta["BLOCK"]),)


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, approximate):
        x = x.contiguous()
        ctx.save_for_backward(x)
        ctx.approximate = approximate
        return gelu_forward(x, approximate)

    @staticmethod
    @first_derivative_only("gelu")
    def backward(ctx, d_result):
        (x,) = ctx.saved_tensors
        return gelu_backward(x, d_result.contiguous(), ctx.approximate), None


def gelu(x: torch.Tensor, *, approximate: str = "tanh") -> torch.Tensor:
    """Apply GELU to each element; the twin of `gptwin.core.layers.gelu.gelu`.

    Parameters
    ----------
    x : torch.Tensor [...]
        float32, float16 or bfloat16; any strides (a strided tensor is copied). Computed in
        float32.
    approximate : str
        "tanh" (what the GPTs use) or "erf" (the definition).

    Returns
    -------
    torch.Tensor
        Shaped like `x` and of its dtype.

    Raises
    ------
    ValueError
        If there is no such form, or the dtype is not supported.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_gelu(x, approximate)
    if runs_on_triton("gelu", x=x):
        return _Gelu.apply(x, approximate)
    return gelu_eager(x, approximate=approximate)


def gelu_eager(x: torch.Tensor, *, approximate: str = "tanh") -> torch.Tensor:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick."""
    form = "tanh" if approximate == "tanh" else "none"
    return torch.nn.functional.gelu(x, approximate=form)
