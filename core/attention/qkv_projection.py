"""QKV projection: from the residual stream to the queries, keys and values, head by head.

    packed[h, b, t] = (norm(x[b, t]) · w_qkv + b_qkv)[h · d_head : (h + 1) · d_head]

The columns of w_qkv are GPT-2's c_attn: d_head columns for each query head, then for each key head,
then for each value head. In the result a head's positions lie together, [head, batch, time,
d_head], because attention walks along one head at a time; the layer norm in front is optional.

Backward: d_qkv is packed in the same way, and with n = norm(x), row by row,

    d_n = d_qkv w_qkvᵀ      d_w = nᵀ d_qkv      d_b = Σ_rows d_qkv

then d_n goes back through the norm (core/layers/layer_norm.py).
"""

from typing import Any

import numpy as np

from ..checks import expect_floats, expect_positive, expect_shape, refuse, whole
from ..layers.layer_norm import layer_norm_backward, layer_norm_forward
from ..layers.linear import linear_backward, linear_forward
from ..operation import at_least_float32, value_of

Saved = tuple[Any, ...]


@at_least_float32
def qkv_projection_forward(
    x: np.ndarray,
    w_qkv: np.ndarray,
    b_qkv: np.ndarray | None = None,
    norm_weight: np.ndarray | None = None,
    norm_bias: np.ndarray | None = None,
    *,
    n_head: int,
    n_kv_head: int | None = None,
    eps: float = 1e-5,
) -> tuple[np.ndarray, Saved]:
    """Normalise, project, and split into heads.

    Parameters
    ----------
    x : numpy.ndarray [batch, time, d_model]
        The residual stream.
    w_qkv : numpy.ndarray [d_model, (n_head + 2 * n_kv_head) * d_head]
        Columns of all query heads, then all key heads, then all value heads.
    b_qkv : numpy.ndarray [(n_head + 2 * n_kv_head) * d_head], optional
        Added to the product.
    norm_weight, norm_bias : numpy.ndarray [d_model], optional
        Scale and shift of a layer norm in front; both or neither.
    n_head, n_kv_head : int
        Heads of queries, and of keys and values; as many as of queries if not given.
    eps : float
        Of the layer norm.

    Returns
    -------
    packed : numpy.ndarray [n_head + 2 * n_kv_head, batch, time, d_head]
        Query heads first, then key heads, then value heads.
    saved : tuple
        For `qkv_projection_backward`: what the norm and the product saved.

    Raises
    ------
    ValueError
        If shapes or head counts do not fit.
    """
    n_heads = check_qkv_projection(x, w_qkv, b_qkv, norm_weight, norm_bias, n_head, n_kv_head, eps)
    norm_saved = None
    normed = x
    if norm_weight is not None and norm_bias is not None:
        result, norm_saved = layer_norm_forward(x, norm_weight, norm_bias, eps=eps)
        assert isinstance(result, np.ndarray)  # It is a pair only with a residual.
        normed = result
    y, linear_saved = linear_forward(normed, w_qkv, b_qkv)
    # [batch, time, n_heads * d_head] -> [n_heads, batch, time, d_head]
    packed = y.reshape(*x.shape[:2], n_heads, w_qkv.shape[1] // n_heads).transpose(2, 0, 1, 3)
    return packed, (norm_saved, linear_saved)


qkv_projection = value_of(qkv_projection_forward)


@at_least_float32
def qkv_projection_backward(
    saved: Saved, d_packed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Carry the gradient from the heads back to the inputs.

    Parameters
    ----------
    saved : tuple
        From `qkv_projection_forward`.
    d_packed : numpy.ndarray [n_head + 2 * n_kv_head, batch, time, d_head]
        Gradient of the loss with respect to the result.

    Returns
    -------
    d_x : numpy.ndarray [batch, time, d_model]
    d_w_qkv : numpy.ndarray
    d_b_qkv, d_norm_weight, d_norm_bias : numpy.ndarray or None
        None where there was no such input.
    """
    norm_saved, linear_saved = saved
    n_heads, batch, time, d_head = d_packed.shape
    # [n_heads, batch, time, d_head] -> [batch, time, n_heads * d_head]
    d_y = d_packed.transpose(1, 2, 0, 3).reshape(batch, time, n_heads * d_head)
    d_x, d_w_qkv, d_b_qkv, _ = linear_backward(linear_saved, d_y)
    if norm_saved is None:
        return d_x, d_w_qkv, d_b_qkv, None, None
    d_x, d_norm_weight, d_norm_bias, _ = layer_norm_backward(norm_saved, d_x)
    return d_x, d_w_qkv, d_b_qkv, d_norm_weight, d_norm_bias


def check_qkv_projection(
    x: Any,
    w_qkv: Any,
    b_qkv: Any,
    norm_weight: Any,
    norm_bias: Any,
    n_head: int,
    n_kv_head: int | None,
    eps: float,
) -> int:
    """Refuse arguments that do not fit together; return n_head + 2 * n_kv_head."""
    expect_floats(x=x, w_qkv=w_qkv, b_qkv=b_qkv, norm_weight=norm_weight, norm_bias=norm_bias)
    if len(x.shape) != 3:
        refuse("x", "shape [batch, time, d_model]", f"shape {tuple(x.shape)}")
    n_head = whole("n_head", n_head)
    n_kv_head = n_head if n_kv_head is None else whole("n_kv_head", n_kv_head)
    if n_head < 1 or n_kv_head < 1 or n_head % n_kv_head:
        refuse("n_kv_head", f"a divisor of n_head = {n_head}, at least 1", repr(n_kv_head))
    if len(w_qkv.shape) != 2:
        refuse("w_qkv", "2 dimensions [d_model, 3 * d_model]", f"shape {tuple(w_qkv.shape)}")
    n_heads, (d_in, d_out) = n_head + 2 * n_kv_head, w_qkv.shape
    if d_in != x.shape[-1]:
        transposed = "a torch.nn.Linear weight, which is [d_out, d_in]: pass weight.T"
        refuse(
            "w_qkv",
            f"shape ({x.shape[-1]}, d_out) to match the last axis of x",
            f"shape {tuple(w_qkv.shape)}",
            transposed if d_out == x.shape[-1] else "",
        )
    if d_out < 1 or d_out % n_heads:
        refuse(
            "w_qkv",
            f"columns for {n_head} query and 2 x {n_kv_head} key and value heads",
            f"{d_out} columns",
        )
    if b_qkv is not None:
        expect_shape("b_qkv", b_qkv, (d_out,), "one number for each column of w_qkv")
    if (norm_weight is None) != (norm_bias is None):
        refuse("norm_bias", "norm_weight and norm_bias, or neither of them", "one of them")
    for name, parameter in (("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        if parameter is not None:
            expect_shape(name, parameter, (d_in,), "d_model of x")
    if norm_weight is not None and d_in < 1:
        refuse("x", "d_model of at least 1 for the layer norm", f"shape {tuple(x.shape)}")
    expect_positive("eps", eps)
    return n_heads
