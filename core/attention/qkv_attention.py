"""QKV attention: from the residual stream to the attended heads, side by side.

    packed = qkv_projection(x)               layer norm (optional), one product for all heads
    output[b, h, t] = attention(query h, key h // group, value h // group)
    result[b, t] = the heads' outputs, one after another

This is the first half of a decoder block, everything before its output projection. Here it is the
composition of its two parts; what the kernel adds is where the numbers lie: nothing is split,
transposed or merged by a copy, and for a short context the queries, keys and values are in no
memory at all.

Edge semantics are those of core/attention/attention.py: a position that sees nothing gives 0, and
what stands there is never used, not even NaN, nor in the gradients of weights.
"""

import dataclasses
from typing import Any

import numpy as np

from ..checks import expect_shape, whole
from ..operation import at_least_float32, value_of
from .attention import attention_backward, attention_forward
from .key_intervals import check_attention, key_intervals
from .qkv_projection import (
    check_qkv_projection,
    qkv_projection_backward,
    qkv_projection_forward,
)

Saved = tuple[Any, ...]
Heads = tuple[np.ndarray, np.ndarray, np.ndarray]


@at_least_float32
def qkv_attention_forward(
    x: np.ndarray,
    w_qkv: np.ndarray,
    b_qkv: np.ndarray | None = None,
    norm_weight: np.ndarray | None = None,
    norm_bias: np.ndarray | None = None,
    *,
    n_head: int,
    n_kv_head: int | None = None,
    eps: float = 1e-5,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    key_start: np.ndarray | None = None,
    cu_seqlens: np.ndarray | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, Saved]:
    """Project to queries, keys and values, attend, and put the heads side by side.

    Parameters
    ----------
    x, w_qkv, b_qkv, norm_weight, norm_bias, n_head, n_kv_head, eps
        As in `qkv_projection`.
    scale, causal, window, key_start, cu_seqlens, dropout, seed
        As in `attention`; causal unless said otherwise.

    Returns
    -------
    result : numpy.ndarray [batch, time, n_head * d_head]
        What the output projection takes.
    saved : tuple
        For `qkv_attention_backward`: what both parts saved.

    Raises
    ------
    ValueError
        If shapes, head counts or masks do not fit.
    """
    masks: dict[str, Any] = {
        "causal": causal, "window": window, "key_start": key_start, "cu_seqlens": cu_seqlens
    }  # fmt: skip
    check_qkv_attention(x, w_qkv, n_head, n_kv_head, scale, **masks, dropout=dropout, seed=seed)
    check_qkv_projection(x, w_qkv, b_qkv, norm_weight, norm_bias, n_head, n_kv_head, eps)
    batch, time, _ = x.shape
    low, high = key_intervals(batch, time, time, **masks)
    used = np.where((low < high)[..., None], x, 0)  # The others' rows would be NaN in d_w_qkv.
    packed, projection_saved = qkv_projection_forward(
        used, w_qkv, b_qkv, norm_weight, norm_bias, n_head=n_head, n_kv_head=n_kv_head, eps=eps
    )
    query, key, value = split_packed(packed, n_head)
    (output, _), attention_saved = attention_forward(
        query, key, value, scale=scale, **masks, dropout=dropout, seed=seed
    )
    # [batch, head, time, d_head] -> [batch, time, head * d_head]
    result = output.swapaxes(1, 2).reshape(*x.shape[:2], n_head * packed.shape[-1])
    return result, (projection_saved, attention_saved, output.shape)


qkv_attention = value_of(qkv_attention_forward)


@at_least_float32
def qkv_attention_backward(
    saved: Saved, d_result: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Carry the gradient back through attention, then through the projection.

    Parameters
    ----------
    saved : tuple
        From `qkv_attention_forward`.
    d_result : numpy.ndarray [batch, time, n_head * d_head]
        Gradient of the loss with respect to the result.

    Returns
    -------
    d_x, d_w_qkv : numpy.ndarray
    d_b_qkv, d_norm_weight, d_norm_bias : numpy.ndarray or None
        None where there was no such input.

    Raises
    ------
    ValueError
        If `d_result` is not shaped like the result.
    """
    projection_saved, attention_saved, (batch, n_head, time, d_head) = saved
    expect_shape("d_result", d_result, (batch, time, n_head * d_head))
    d_output = d_result.reshape(batch, time, n_head, d_head).swapaxes(1, 2)
    d_heads = attention_backward(attention_saved, d_output)
    # 3 x [batch, heads, time, d_head] -> [n_heads, batch, time, d_head]
    d_packed = np.concatenate([d.swapaxes(0, 1) for d in d_heads])
    return qkv_projection_backward(projection_saved, d_packed)


def split_packed(packed: np.ndarray, n_head: int) -> Heads:
    """View a packed projection as the query, key and value that attention takes, without copies.

    [n_head + 2 * n_kv_head, batch, time, d_head] -> [batch, n_head or n_kv_head, time, d_head] each
    """
    n_kv_head = (packed.shape[0] - n_head) // 2
    by_batch = packed.swapaxes(0, 1)  # [batch, n_heads, time, d_head]
    return (
        by_batch[:, :n_head],
        by_batch[:, n_head : n_head + n_kv_head],
        by_batch[:, n_head + n_kv_head :],
    )


def check_qkv_attention(
    x: Any,
    w_qkv: Any,
    n_head: int,
    n_kv_head: int | None,
    scale: float | None = None,
    *,
    causal: bool = True,
    window: int | None = None,
    key_start: Any = None,
    cu_seqlens: Any = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> None:
    """Refuse masks and numbers that attention has no meaning for, before anything is computed.

    What `check_qkv_projection` refuses passes here.
    """
    n_head = whole("n_head", n_head)
    n_kv_head = n_head if n_kv_head is None else whole("n_kv_head", n_kv_head)
    if len(x.shape) != 3 or len(w_qkv.shape) != 2 or n_head + 2 * n_kv_head < 1:
        return
    batch, time, _ = x.shape
    d_head = w_qkv.shape[1] // (n_head + 2 * n_kv_head)
    query = _Shaped((batch, n_head, time, d_head))
    key = _Shaped((batch, n_kv_head, time, d_head))
    check_attention(query, key, key, scale, causal, window, key_start, cu_seqlens, dropout, seed)


@dataclasses.dataclass(frozen=True)
class _Shaped:
    """Stands for queries or keys that are not computed yet."""

    shape: tuple[int, ...]
