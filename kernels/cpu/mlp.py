"""The MLP of a decoder block on the CPU, as one function: what training keeps, it also uses up.

    u = x·W_fc + b_fc            h = gelu(u)             y = h·W_proj + b_proj (+ residual)

Left to autograd, a step writes four matrices [token, 4·d_model] to fresh memory, and fresh memory
is slow (spare_memory.py). Here there are two, and the next step takes them over. Forward, GELU's
slope is written over u. Backward, the gradient of u is written over h, which has done its work when
the gradient of W_proj is there. (A graph that is kept for another backward pass keeps both.)

GELU, in its tanh form, is computed in its sigmoid's terms, where its value also gives its slope:

    h = u·s                      s = sigmoid(v), v = u·(a + b·u²)
    slope = s + h·w·(1 − s)      w = dv/du = a + 3·b·u²
                                 a = 2·sqrt(2/π), b = 0.044715·a

A strip at a time stays in the cache, so that several simple passes cost less than the hyperbolic
tangent, computed twice. Under torch.compile the formula alone is written out: Inductor fuses the
passes itself, and is faster at a sigmoid than at the hyperbolic tangent of its own GELU.
"""

import math
from collections.abc import Iterable

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..layers.linear import linear_eager
from .spare_memory import SpareMemory

# Numbers in a strip, for each thread: 256 KB in float32.
STRIP = 2**16
# So many strips are left in one.
WHOLE = 4

_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _LINEAR
# a and 1 as tensors, which is what these operators take.
_CONSTANTS = {
    dtype: torch.tensor([_LINEAR, 1.0], dtype=dtype, device="cpu").unbind()
    for dtype in (torch.float32, torch.float64)
}
_SPARE = SpareMemory()


def _value_in_strips(u: torch.Tensor, bias: torch.Tensor | None) -> None:
    for (strip,) in _strips(u):
        gelu_in_place(strip if bias is None else strip.add_(bias))


def _both_in_strips(u: torch.Tensor, h: torch.Tensor, bias: torch.Tensor | None) -> None:
    a, one = _CONSTANTS[u.dtype]
    for u_strip, h_strip in _strips(u, h):
        if bias is not None:
            u_strip.add_(bias)
        s = torch.addcmul(a, u_strip, u_strip, value=_CUBIC).mul_(u_strip).sigmoid_()
        torch.mul(u_strip, s, out=h_strip)
        torch.addcmul(a, u_strip, u_strip, value=3 * _CUBIC, out=u_strip).mul_(h_strip)  # h·w
        torch.lerp(s, one, u_strip, out=u_strip)  # the slope: s + h·w·(1 − s)


def gelu_formula(x: torch.Tensor) -> torch.Tensor:
    """Write GELU out for a compiler.

    Parameters
    ----------
    x : torch.Tensor

    Returns
    -------
    torch.Tensor
    """
    return x * torch.sigmoid(x * (_LINEAR + _CUBIC * x * x))


def mlp_eager(
    x: torch.Tensor,
    fc_weight: torch.Tensor,
    fc_bias: torch.Tensor | None,
    proj_weight: torch.Tensor,
    proj_bias: torch.Tensor | None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the MLP by what is fastest on a CPU.

    Parameters
    ----------
    x : torch.Tensor [..., d_model]
    fc_weight, fc_bias : torch.Tensor [d_model, d_mlp] and [d_mlp], or None
    proj_weight, proj_bias : torch.Tensor [d_mlp, d_model] and [d_model], or None
    residual : torch.Tensor [..., d_model], optional
        Added to the result.

    Returns
    -------
    torch.Tensor [..., d_model]
    """
    if x.dtype not in _CONSTANTS or not x.is_cpu or torch.is_autocast_enabled("cpu"):
        hidden = linear_eager(x, fc_weight, fc_bias, activation="gelu")
        return linear_eager(hidden, proj_weight, proj_bias, residual=residual)
    if torch.compiler.is_compiling():
        hidden = gelu_formula(linear_eager(x, fc_weight, fc_bias))
        return linear_eager(hidden, proj_weight, proj_bias, residual=residual)
    rows = x.reshape(-1, x.shape[-1])  # [..., d_model] -> [row, d_model]
    stream = None if residual is None else residual.reshape(-1, residual.shape[-1])
    arguments = (rows, fc_weight, fc_bias, proj_weight, proj_bias, stream)
    # Asked first of x: it is the answer in training, all but always.
    if torch.is_grad_enabled() and (
        x.requires_grad or any(a is not None and a.requires_grad for a in arguments)
    ):
        return _MLP.apply(*arguments).view(x.shape)
    h = rows @ fc_weight  # [row, d_mlp]
    _value_in_strips(h, fc_bias)
    return _project(h, proj_weight, proj_bias, stream).view(x.shape)


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, fc_weight, fc_bias, proj_weight, proj_bias, residual):
        shape = (x.shape[0], fc_weight.shape[1])
        u, h = (_SPARE.take(*shape, x.dtype) for _ in range(2))  # [row, d_mlp]
        torch.mm(x, fc_weight, out=u)
        _both_in_strips(u, h, fc_bias)  # the slope is in u now
        ctx.save_for_backward(x, fc_weight, proj_weight, u, h)
        return _project(h, proj_weight, proj_bias, residual)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        x, fc_weight, proj_weight, slope, h = ctx.saved_tensors
        of_x, of_fc_weight, of_fc_bias, of_proj_weight, of_proj_bias, of_residual = (
            ctx.needs_input_grad
        )
        d_proj_weight = torch.mm(h.t(), d_y) if of_proj_weight else None
        kept = torch._C._autograd._get_current_graph_task_keep_graph()
        d_u = torch.mm(d_y, proj_weight.t(), out=None if kept else h).mul_(slope)
        gradients = (
            torch.mm(d_u, fc_weight.t()) if of_x else None,
            torch.mm(x.t(), d_u) if of_fc_weight else None,
            d_u.sum(0) if of_fc_bias else None,
            d_proj_weight,
            d_y.sum(0) if of_proj_bias else None,
            d_y if of_residual else None,
        )
        if not kept:
            _SPARE.give(slope, h)
        return gradients


def _project(
    h: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
) -> torch.Tensor:
    """Return h·W + b + residual."""
    y = torch.mm(h, weight) if bias is None else torch.addmm(bias, h, weight)
    return y if residual is None else y.add_(residual)


def _strips(*matrices: torch.Tensor) -> Iterable[tuple[torch.Tensor, ...]]:
    """Cut matrices [row, d_mlp] into as many rows at a time as the cache holds."""
    numbers = STRIP * torch.get_num_threads()
    # A few strips are left in one piece: more calls would cost more than the cache saves.
    if matrices[0].numel() <= WHOLE * numbers:
        return (matrices,)
    n_rows = max(1, numbers // matrices[0].shape[1])
    return zip(*(matrix.split(n_rows) for matrix in matrices), strict=True)


def gelu_in_place(u: torch.Tensor) -> torch.Tensor:
    """Replace numbers by GELU of them, where float32 or float64 lies on the CPU.

    Parameters
    ----------
    u : torch.Tensor
        Any shape; of another dtype it stays as it is.

    Returns
    -------
    torch.Tensor
        GELU of `u`: itself, or a new tensor.
    """
    if u.dtype not in _CONSTANTS:
        return functional.gelu(u, approximate="tanh")
    a, _ = _CONSTANTS[u.dtype]
    return u.mul_(torch.addcmul(a, u, u, value=_CUBIC).mul_(u).sigmoid_())
