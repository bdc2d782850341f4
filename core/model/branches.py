"""The two branches of a decoder block: one gathers from other positions, one works on each alone.

    attention    z → merge(attend(split(z · c_attn))) · attn_proj
    MLP          z → gelu(z · c_fc) · mlp_proj

Columns of c_attn are all heads of the queries, then of the keys, then of the values:

    [batch, time, 3 · n_head · d_head] -> 3 x [batch, head, time, d_head]

Both are nothing but `linear` (with bias, GELU or residual) and `attention`, and so is their
backward pass: theirs, in reverse. Attention is a parameter: training takes `attention_forward`,
generation one that reads a cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..attention.attention import attention_backward
from ..layers.layer_norm import layer_norm_forward
from ..layers.linear import linear_backward, linear_forward

Saved = tuple[Any, ...]
# (query, key, value), each [batch, head, time, d_head] -> ((output, lse), what backward needs)
Attend = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[tuple[np.ndarray, np.ndarray], Any]]


def attention_branch(
    z: np.ndarray,
    c_attn_weight: np.ndarray,
    c_attn_bias: np.ndarray | None,
    attn_proj_weight: np.ndarray,
    attn_proj_bias: np.ndarray | None,
    *,
    attend: Attend,
    n_head: int,
) -> tuple[np.ndarray, Saved]:
    """Project to queries, keys and values, attend, and project back to the stream.

    Parameters
    ----------
    z : numpy.ndarray [batch, time, d_model]
        What the branch reads.
    c_attn_weight, c_attn_bias, attn_proj_weight, attn_proj_bias
        As in `decoder_block`.
    attend : callable
        As in `run_block`.
    n_head : int
        As in `decoder_block`.

    Returns
    -------
    branch : numpy.ndarray [batch, time, d_model]
    saved : tuple
        For `attention_branch_backward`.
    """
    qkv, c_attn_saved = linear_forward(z, c_attn_weight, c_attn_bias)
    (output, _), attend_saved = attend(*split_heads(qkv, n_head))
    branch, proj_saved = linear_forward(merge_heads(output), attn_proj_weight, attn_proj_bias)
    return branch, (c_attn_saved, attend_saved, proj_saved)


def attention_branch_backward(saved: Saved, d_branch: np.ndarray, n_head: int) -> tuple[Any, ...]:
    """Carry the gradient back through `attention_branch`.

    Parameters
    ----------
    saved : tuple
        From `attention_branch`.
    d_branch : numpy.ndarray [batch, time, d_model]
        Gradient with respect to the branch.
    n_head : int
        As in `decoder_block`.

    Returns
    -------
    d_z : numpy.ndarray [batch, time, d_model]
    d_c_attn_weight, d_c_attn_bias, d_attn_proj_weight, d_attn_proj_bias : numpy.ndarray or None
    """
    c_attn_saved, attend_saved, proj_saved = saved
    d_merged, *d_proj = linear_backward(proj_saved, d_branch)[:3]
    batch, time, width = d_merged.shape
    d_output = d_merged.reshape(batch, time, n_head, width // n_head).swapaxes(1, 2)
    d_qkv = np.concatenate(
        [merge_heads(gradient) for gradient in attention_backward(attend_saved, d_output)], axis=-1
    )  # 3 x [batch, head, time, d_head] -> [batch, time, 3 * n_head * d_head]
    d_z, *d_c_attn = linear_backward(c_attn_saved, d_qkv)[:3]
    return d_z, *d_c_attn, *d_proj


def mlp_branch(
    z: np.ndarray,
    c_fc_weight: np.ndarray,
    c_fc_bias: np.ndarray | None,
    mlp_proj_weight: np.ndarray,
    mlp_proj_bias: np.ndarray | None,
    *,
    residual: np.ndarray | None = None,
) -> tuple[np.ndarray, Saved]:
    """Widen, apply GELU, narrow again, and add the residual if there is one.

    Parameters
    ----------
    z : numpy.ndarray [batch, time, d_model]
        What the branch reads.
    c_fc_weight, c_fc_bias, mlp_proj_weight, mlp_proj_bias
        As in `decoder_block`.
    residual : numpy.ndarray [batch, time, d_model], optional
        Added last.

    Returns
    -------
    y : numpy.ndarray [batch, time, d_model]
    saved : tuple
        For `mlp_branch_backward`.
    """
    hidden, c_fc_saved = linear_forward(z, c_fc_weight, c_fc_bias, activation="gelu")
    y, proj_saved = linear_forward(hidden, mlp_proj_weight, mlp_proj_bias, residual=residual)
    return y, (c_fc_saved, proj_saved)


def mlp_branch_backward(saved: Saved, d_y: np.ndarray) -> tuple[Any, ...]:
    """Carry the gradient back through `mlp_branch`; the residual's is `d_y` itself.

    Parameters
    ----------
    saved : tuple
        From `mlp_branch`.
    d_y : numpy.ndarray [batch, time, d_model]
        Gradient with respect to y.

    Returns
    -------
    d_z : numpy.ndarray [batch, time, d_model]
    d_c_fc_weight, d_c_fc_bias, d_mlp_proj_weight, d_mlp_proj_bias : numpy.ndarray or None
    """
    c_fc_saved, proj_saved = saved
    d_hidden, *d_proj = linear_backward(proj_saved, d_y)[:3]
    d_z, *d_c_fc = linear_backward(c_fc_saved, d_hidden)[:3]
    return d_z, *d_c_fc, *d_proj


def norm_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, **options: Any
) -> tuple[Any, Any]:
    """Normalise, with a bias of 0 if there is none.

    Parameters
    ----------
    x, weight, bias
        As in `layer_norm`; `bias` may be None.
    **options
        `residual` and `eps`, as in `layer_norm`.

    Returns
    -------
    result, saved
        As from `layer_norm_forward`.
    """
    return layer_norm_forward(x, weight, np.zeros_like(weight) if bias is None else bias, **options)


def split_heads(qkv: np.ndarray, n_head: int) -> np.ndarray:
    """Show the columns of c_attn as queries, keys and values of each head, without a copy.

    Parameters
    ----------
    qkv : numpy.ndarray [batch, time, 3 * n_head * d_head]
        What c_attn gives.
    n_head : int
        Heads.

    Returns
    -------
    numpy.ndarray [3, batch, head, time, d_head]
        A view.
    """
    batch, time, width = qkv.shape
    heads = qkv.reshape(batch, time, 3, n_head, width // (3 * n_head))
    return heads.transpose(2, 0, 3, 1, 4)


def merge_heads(x: np.ndarray) -> np.ndarray:
    """Lay the heads side by side.

    Parameters
    ----------
    x : numpy.ndarray [batch, head, time, d_head]
        Any array of heads.

    Returns
    -------
    numpy.ndarray [batch, time, head * d_head]
    """
    batch, n_head, time, d_head = x.shape
    return x.swapaxes(1, 2).reshape(batch, time, n_head * d_head)
