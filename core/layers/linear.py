"""Linear: a matrix product with everything that usually follows it.

    u = x W + b,    y = residual + gelu(u)

with bias, GELU (tanh form) and residual each optional: the decoder block's four projections are
all of this shape. W is [d_in, d_out], as GPT-2's checkpoints store it, so that x W reads as it is
written; `torch.nn.Linear` stores the transpose.

Backward, with d_u = d_y · gelu′(u) (or d_y without activation):

    d_x = d_u Wᵀ      d_W = xᵀ d_u      d_b = Σ_rows d_u      d_residual = d_y
"""

import math
from typing import Any

import numpy as np

from ..checks import expect_floats, expect_ndim, expect_shape, refuse
from ..operation import at_least_float32, value_of
from .gelu import gelu_backward, gelu_forward

Saved = tuple[np.ndarray, np.ndarray, bool, bool, Any]

ACTIVATIONS = (None, "gelu")


@at_least_float32
def linear_forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    activation: str | None = None,
    residual: np.ndarray | None = None,
) -> tuple[np.ndarray, Saved]:
    """Project the last axis of `x`, then activate, then add the residual.

    Parameters
    ----------
    x : numpy.ndarray [..., d_in]
        The input rows.
    weight : numpy.ndarray [d_in, d_out]
        As GPT-2 stores it: not transposed.
    bias : numpy.ndarray [d_out], optional
        Added to the product.
    activation : None or "gelu"
        Applied after the bias; GELU in its tanh form.
    residual : numpy.ndarray [..., d_out], optional
        Added last.

    Returns
    -------
    y : numpy.ndarray [..., d_out]
    saved : tuple
        For `linear_backward`: x, weight, and what GELU saved (its input u).

    Raises
    ------
    ValueError
        If shapes do not fit or there is no such activation.
    """
    check_linear(x, weight, bias, activation, residual)
    # [..., d_in] -> [row, d_in] -> [row, d_out] -> [..., d_out]: one product of all rows
    y = (as_rows(x) @ weight).reshape(*x.shape[:-1], weight.shape[1])
    if bias is not None:
        y = y + bias
    gelu_saved = None
    if activation == "gelu":
        y, gelu_saved = gelu_forward(y, approximate="tanh")
    if residual is not None:
        y = y + residual
    return y, (x, weight, bias is not None, residual is not None, gelu_saved)


linear = value_of(linear_forward)


@at_least_float32
def linear_backward(
    saved: Saved, d_y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Carry the gradient back to the input, the weight, the bias and the residual.

    Parameters
    ----------
    saved : tuple
        From `linear_forward`.
    d_y : numpy.ndarray [..., d_out]
        Gradient of the loss with respect to y.

    Returns
    -------
    d_x : numpy.ndarray [..., d_in]
    d_weight : numpy.ndarray [d_in, d_out]
    d_bias : numpy.ndarray [d_out] or None
    d_residual : numpy.ndarray [..., d_out] or None
        None where there was no such input.

    Raises
    ------
    ValueError
        If `d_y` is not shaped like y.
    """
    x, weight, has_bias, has_residual, gelu_saved = saved
    expect_shape("d_y", d_y, (*x.shape[:-1], weight.shape[1]))
    d_u = as_rows(d_y if gelu_saved is None else gelu_backward(gelu_saved, d_y))  # [row, d_out]
    d_x = (d_u @ weight.T).reshape(x.shape)
    d_weight = as_rows(x).T @ d_u
    d_bias = d_u.sum(axis=0) if has_bias else None
    return d_x, d_weight, d_bias, d_y if has_residual else None


def as_rows(x: np.ndarray) -> np.ndarray:
    """Lay all leading axes out as one: [..., d] -> [row, d]."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def check_linear(x: Any, weight: Any, bias: Any, activation: Any, residual: Any) -> None:
    """Refuse arguments that do not fit together."""
    expect_floats(x=x, weight=weight, bias=bias, residual=residual)
    expect_ndim("x", x, 1, "[..., d_in]")
    if len(weight.shape) != 2:
        refuse("weight", "2 dimensions [d_in, d_out]", f"shape {tuple(weight.shape)}")
    d_in, d_out = weight.shape
    if x.shape[-1] != d_in:
        transposed = "a torch.nn.Linear weight, which is [d_out, d_in]: pass weight.T"
        refuse(
            "weight",
            f"shape ({x.shape[-1]}, d_out) to match the last axis of x",
            f"shape {tuple(weight.shape)}",
            transposed if x.shape[-1] == d_out else "",
        )
    if bias is not None:
        expect_shape("bias", bias, (d_out,), "[d_out] of weight")
    if activation not in ACTIVATIONS:
        refuse("activation", "None or 'gelu'", repr(activation))
    if residual is not None:
        expect_shape(
            "residual", residual, (*x.shape[:-1], d_out), "a residual from before the projection"
        )
