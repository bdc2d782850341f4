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

    `z` and the result are [batch, time, d_model]. The parameters are those of `decoder_block`.
    """
    qkv, c_attn_saved = linear_forward(z, c_attn_weight, c_attn_bias)
    (output, _), attend_saved = attend(*split_heads(qkv, n_head))
    branch, proj_saved = linear_forward(merge_heads(output), attn_proj_weight, attn_proj_bias)
    return branch, (c_attn_saved, attend_saved, proj_saved)


def attention_branch_backward(saved: Saved, d_branch: np.ndarray, n_head: int) -> tuple[Any, ...]:
    """Carry the gradient back to z and the branch's four parameters."""
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
    """Widen, apply GELU, narrow again, and add the residual if there is one."""
    hidden, c_fc_saved = linear_forward(z, c_fc_weight, c_fc_bias, activation="gelu")
    y, proj_saved = linear_forward(hidden, mlp_proj_weight, mlp_proj_bias, residual=residual)
    return y, (c_fc_saved, proj_saved)


def mlp_branch_backward(saved: Saved, d_y: np.ndarray) -> tuple[Any, ...]:
    """Carry the gradient back to z and the branch's four parameters; the residual's is `d_y`."""
    c_fc_saved, proj_saved = saved
    d_hidden, *d_proj = linear_backward(proj_saved, d_y)[:3]
    d_z, *d_c_fc = linear_backward(c_fc_saved, d_hidden)[:3]
    return d_z, *d_c_fc, *d_proj


def norm_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, **options: Any
) -> tuple[Any, Any]:
    """Normalise as `layer_norm_forward` does, with a bias of 0 if there is none."""
    return layer_norm_forward(x, weight, np.zeros_like(weight) if bias is None else bias, **options)


def split_heads(qkv: np.ndarray, n_head: int) -> np.ndarray:
    """Show the columns of c_attn as queries, keys and values of each head, without a copy.

    [batch, time, 3 * n_head * d_head] -> [3, batch, head, time, d_head]
    """
    batch, time, width = qkv.shape
    heads = qkv.reshape(batch, time, 3, n_head, width // (3 * n_head))
    return heads.transpose(2, 0, 3, 1, 4)


def merge_heads(x: np.ndarray) -> np.ndarray:
    """Lay the heads side by side: [batch, head, time, d_head] -> [batch, time, head * d_head]."""
    batch, n_head, time, d_head = x.shape
    return x.swapaxes(1, 2).reshape(batch, time, n_head * d_head)
