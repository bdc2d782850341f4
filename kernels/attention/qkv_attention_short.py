"""QKV attention of a short context in one launch: queries, keys and values reach no memory.

One program does all of one head of one sequence. Its tiles of q, k and v, BLOCK_TIME x BLOCK_D, are
the accumulators of three products over d_model that share each tile of x as it is loaded; then the
whole context's scores are one tile too, so that attention needs no loop and no running maximum:

    x [time, d_model]  ─┬─► q [time, d_head] ─┐
    (normalised on the  ├─► k [time, d_head] ─┴─► scores [time, time] ─► p ─┬─► output
    way, if asked for)  └─► v [time, d_head] ───────────────────────────────┘

The norm's statistics are those of the program's own rows: two passes over x before the product.

Memory: x and w are read, output and lse written. Every head reads all of its sequence's x, and
every sequence all of w, mostly from the L2 cache. The arithmetic is that of the packed path, with
q, k, v and p rounded to x's dtype in the same places.

Deterministic: each program writes what is its own, summed in one order.
"""

import math

import torch

from ..common._triton import tl, triton
from ..common.launch import launch
from ..common.registered import registered
from .qkv_norm import load_norm, normed_tile, row_statistics

# 8 warps: three accumulators of 64 x 64 are 48 registers a thread. Steps of 128 bytes would spill
# in float32 on sm_80.
SHORT_CONFIGS = [
    triton.Config({"BLOCK_K_BYTES": 64}, num_warps=8, num_stages=2),
    triton.Config({"BLOCK_K_BYTES": 64}, num_warps=8, num_stages=4),
]
# What fits one tile; below MIN_TIME most of a tile would be padding.
MIN_TIME, MAX_TIME, MAX_D_HEAD = 16, 64, 64

_LN_2 = tl.constexpr(math.log(2))


@triton.jit
def load_weight(weight_ptr, inner, columns, inside, weight_row_stride, weight_column_stride):
    """Load a tile of w; `inner` and `columns` are int64."""
    at = weight_ptr + inner[:, None] * weight_row_stride + columns[None, :] * weight_column_stride
    return tl.load(at, mask=inside, other=0.0)


@triton.jit
def with_bias(product, bias_ptr, columns, inside, bias_stride, HAS_BIAS: tl.constexpr):
    """Add the columns' bias."""
    if HAS_BIAS:
        bias = tl.load(bias_ptr + columns * bias_stride, mask=inside, other=0.0)
        product += bias.to(tl.float32)[None, :]
    return product


@triton.autotune(SHORT_CONFIGS, key=["BLOCK_TIME", "BLOCK_D", "d_model"])
@triton.jit
def qkv_attention_short_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,  # or x_ptr if there is none; likewise the next three
    norm_weight_ptr,
    norm_bias_ptr,
    key_start_ptr,  # int [batch]
    output_ptr,  # [batch, time, head, d_head] contiguous
    lse_ptr,  # float32 [batch, head, time] contiguous
    n_head,
    n_time,
    d_model,
    window,
    scale_log2_e,
    eps,
    x_batch_stride,
    x_row_stride,
    x_feature_stride,
    weight_row_stride,
    weight_column_stride,
    bias_stride,
    HAS_BIAS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_KEY_START: tl.constexpr,
    D_HEAD: tl.constexpr,
    BLOCK_TIME: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K_BYTES: tl.constexpr,
):
    """All of one head of one sequence."""
    BLOCK_K: tl.constexpr = BLOCK_K_BYTES // (x_ptr.dtype.element_ty.primitive_bitwidth // 8)
    batch = (tl.program_id(0) // n_head).to(tl.int64)
    head = (tl.program_id(0) % n_head).to(tl.int64)
    x_ptr += batch * x_batch_stride
    positions = tl.arange(0, BLOCK_TIME)
    rows = positions.to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    in_step = tl.arange(0, BLOCK_K)
    row_inside, d_inside = positions < n_time, dims < D_HEAD
    query_columns = head * D_HEAD + dims
    key_columns = query_columns + tl.cast(n_head, tl.int64) * D_HEAD
    value_columns = key_columns + tl.cast(n_head, tl.int64) * D_HEAD
    if HAS_NORM:
        mean, mean_rest, rstd = row_statistics(
            x_ptr, rows, row_inside, d_model, x_row_stride, x_feature_stride, eps,
            BLOCK_TIME, BLOCK_K,
        )  # fmt: skip

    query = tl.zeros([BLOCK_TIME, BLOCK_D], tl.float32)
    key = tl.zeros([BLOCK_TIME, BLOCK_D], tl.float32)
    value = tl.zeros([BLOCK_TIME, BLOCK_D], tl.float32)
    for start in range(0, d_model, BLOCK_K):
        features = start + in_step
        wide = features.to(tl.int64)
        inside = features < d_model
        x_at = x_ptr + rows[:, None] * x_row_stride + wide[None, :] * x_feature_stride
        x = tl.load(x_at, mask=row_inside[:, None] & inside[None, :], other=0.0)
        if HAS_NORM:
            gain, shift = load_norm(norm_weight_ptr, norm_bias_ptr, features, d_model)
            x = normed_tile(
                x, mean[:, None], mean_rest[:, None], rstd[:, None], gain[None, :], shift[None, :]
            )
        in_weight = inside[:, None] & d_inside[None, :]
        weight = load_weight(
            weight_ptr, wide, query_columns, in_weight, weight_row_stride, weight_column_stride
        )
        query = tl.dot(x, weight, query, input_precision="ieee")
        weight = load_weight(
            weight_ptr, wide, key_columns, in_weight, weight_row_stride, weight_column_stride
        )
        key = tl.dot(x, weight, key, input_precision="ieee")
        weight = load_weight(
            weight_ptr, wide, value_columns, in_weight, weight_row_stride, weight_column_stride
        )
        value = tl.dot(x, weight, value, input_precision="ieee")

    dtype = x_ptr.dtype.element_ty
    query = with_bias(query, bias_ptr, query_columns, d_inside, bias_stride, HAS_BIAS).to(dtype)
    key = with_bias(key, bias_ptr, key_columns, d_inside, bias_stride, HAS_BIAS)
    value = with_bias(value, bias_ptr, value_columns, d_inside, bias_stride, HAS_BIAS)
    key_inside = row_inside
    if HAS_KEY_START:
        key_inside = key_inside & (positions >= tl.load(key_start_ptr + batch))
    # 0, even instead of NaN, where padding is: a weight of 0 times NaN would be NaN.
    key = tl.where(key_inside[:, None], key, 0.0).to(dtype)
    value = tl.where(key_inside[:, None], value, 0.0).to(dtype)

    scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale_log2_e
    seen = row_inside[:, None] & key_inside[None, :]
    if CAUSAL:
        seen = seen & (positions[None, :] <= positions[:, None])
    if HAS_WINDOW:
        seen = seen & (positions[None, :] > positions[:, None] - window)
    scores = tl.where(seen, scores, -float("inf"))  # [query, key]
    largest = tl.max(scores, axis=1)
    origin = tl.where(largest == -float("inf"), 0.0, largest)
    exponents = tl.exp2(scores - origin[:, None])
    total = tl.sum(exponents, axis=1)
    unseen = total == 0.0
    total = tl.where(unseen, 1.0, total)
    output = tl.dot(exponents.to(dtype), value, input_precision="ieee") / total[:, None]
    lse = tl.where(unseen, -float("inf"), (origin + tl.log2(total)) * _LN_2)

    output_at = output_ptr + ((batch * n_time + rows) * n_head + head)[:, None] * D_HEAD
    tl.store(output_at + dims[None, :], output, mask=row_inside[:, None] & d_inside[None, :])
    tl.store(lse_ptr + (batch * n_head + head) * n_time + rows, lse, mask=row_inside)


@registered
def short_attention(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    b_qkv: torch.Tensor | None,
    norm: tuple[torch.Tensor, torch.Tensor] | None,
    *,
    n_head: int,
    eps: float,
    scale: float,
    causal: bool,
    window: int | None,
    key_start: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the kernel.

    Parameters
    ----------
    x, w_qkv, b_qkv, n_head, eps, scale, causal, window, key_start
        As in `qkv_attention`, checked; as many key heads as query heads, at most MAX_TIME positions
        and MAX_D_HEAD numbers a head.
    norm : (norm_weight, norm_bias) or None
        The layer norm in front.

    Returns
    -------
    output : torch.Tensor [batch, head, time, d_head]
        A view of memory that lies as [batch, time, head, d_head].
    lse : torch.Tensor of float32 [batch, head, time]
        Contiguous.
    """
    (batch, time, d_model), d_head = x.shape, w_qkv.shape[1] // (3 * n_head)
    output = torch.empty(batch, time, n_head, d_head, dtype=x.dtype, device=x.device)
    lse = torch.empty(batch, n_head, time, dtype=torch.float32, device=x.device)
    norm_weight, norm_bias = (x, x) if norm is None else (p.contiguous() for p in norm)
    launch(
        qkv_attention_short_kernel,
        (batch * n_head if time else 0,),
        *(x, w_qkv, x if b_qkv is None else b_qkv, norm_weight, norm_bias),
        x if key_start is None else key_start.contiguous(),
        *(output, lse, n_head, time, d_model, window or 0, scale * math.log2(math.e), eps),
        *(*x.stride(), *w_qkv.stride(), 0 if b_qkv is None else b_qkv.stride(0)),
        HAS_BIAS=b_qkv is not None,
        HAS_NORM=norm is not None,
        CAUSAL=causal,
        HAS_WINDOW=window is not None,
        HAS_KEY_START=key_start is not None,
        D_HEAD=d_head,
        BLOCK_TIME=max(triton.next_power_of_2(time), 16),
        BLOCK_D=max(triton.next_power_of_2(d_head), 16),
    )
    return output.transpose(1, 2), lse
