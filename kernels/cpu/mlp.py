"""GELU in its sigmoid's terms, and the MLP of a decoder block that a compiler gets by it.

    gelu(u) = u·sigmoid(v)       v = u·(a + b·u²),  a = 2·sqrt(2/π),  b = 0.044715·a

This is the tanh form: tanh(v / 2) = 2·sigmoid(v) − 1. A decoding step computes it in place, in four
passes; Inductor, which fuses the passes itself, is faster at a sigmoid than at the hyperbolic
tangent of its own GELU.
"""

import math

import torch
from torch.nn import functional

from ..layers.linear import linear_eager

_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _LINEAR
# addcmul takes the factor as a tensor.
_CONSTANTS = {
    dtype: torch.tensor(_LINEAR, dtype=dtype, device="cpu")
    for dtype in (torch.float32, torch.float64)
}


def mlp_eager(
    x: torch.Tensor,
    fc_weight: torch.Tensor,
    fc_bias: torch.Tensor | None,
    proj_weight: torch.Tensor,
    proj_bias: torch.Tensor | None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the MLP as `EAGER.mlp` does; under torch.compile, with GELU written out.

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
    exact = x.dtype in _CONSTANTS and x.is_cpu and not torch.is_autocast_enabled("cpu")
    if exact and torch.compiler.is_compiling():
        u = linear_eager(x, fc_weight, fc_bias)  # [..., d_mlp]
        hidden = u * torch.sigmoid(u * (_LINEAR + _CUBIC * u * u))
    else:
        hidden = linear_eager(x, fc_weight, fc_bias, activation="gelu")
    return linear_eager(hidden, proj_weight, proj_bias, residual=residual)


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
    return u.mul_(torch.addcmul(_CONSTANTS[u.dtype], u, u, value=_CUBIC).mul_(u).sigmoid_())
