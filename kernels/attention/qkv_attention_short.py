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

from ..common._triton import for_architecture, tl, triton
from ..common.indices import expect_countable
from ..common.launch import launch
from ..common.registered import registered
from ..common.strided import block_at, part_of, strided
from .attention_tiles import Masks
from .qkv_norm import load_norm, norm_argument, normed_tile, row_statistics


def _staged(*stages: int) -> list[triton.Config]:
    return [triton.Config({"BLOCK_K_BYTES": 64}, num_warps=8, num_stages=n) for n in stages]


# 8 warps: three accumulators of 64 x 64 are 48 registers a thread. Steps of 128 bytes would spill
# in float32 on sm_80, and so do three stages there. With two a turn would begin with waiting for
# its own copies.
SHORT_CONFIGS = for_architecture(_staged(3, 4), sm_80=_staged(4), amd=_staged(2, 4))
# What fits one tile; below MIN_TIME most of a tile would be padding.
MIN_TIME, MAX_TIME, MAX_D_HEAD = 16, 64, 64

_LN_2 = tl.constexpr(math.log(2))


@triton.jit
def with_bias(product, bias, columns, inside):
    """Add the columns' bias, if there is one."""
    if bias is not None:
        at = bias.ptr + columns * bias.strides[0]
        product += tl.load(at, mask=inside, other=0.0).to(tl.float32)[None, :]
    return product


@triton.autotune(SHORT_CONFIGS, key=["BLOCK_TIME", "BLOCK_D", "d_model"])
@triton.jit
def qkv_attention_short_kernel(
    x,  # [batch, time, d_model]
    weight,  # [d_model, column]
    bias,  # [column] or None
    norm,  # Norm or None
    masks,  # Masks, without documents
    output_ptr,  # [batch, time, head, d_head] contiguous
    lse_ptr,  # float32 [batch, head, time] contiguous
    n_head,
    n_time,
    d_model,
    scale_log2_e,
    eps,
    D_HEAD: tl.constexpr,
    BLOCK_TIME: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K_BYTES: tl.constexpr,
):
    """All of one head of one sequence."""
    BLOCK_K: tl.constexpr = BLOCK_K_BYTES // (x.ptr.dtype.element_ty.primitive_bitwidth // 8)
    batch = (tl.program_id(0) // n_head).to(tl.int64)
    head = (tl.program_id(0) % n_head).to(tl.int64)
    x_rows = part_of(x, batch)  # [time, d_model]
    positions = tl.arange(0, BLOCK_TIME)
    rows = positions.to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    in_step = tl.arange(0, BLOCK_K)
    row_inside, d_inside = positions < n_time, dims < D_HEAD
    query_columns = head * D_HEAD + dims
    key_columns = query_columns + tl.cast(n_head, tl.int64) * D_HEAD
    value_columns = key_columns + tl.cast(n_head, tl.int64) * D_HEAD
    if norm is not None:
        mean, mean_rest, rstd = row_statistics(
            x_rows, rows, row_inside, d_model, eps, BLOCK_TIME, BLOCK_K
        )

    query = tl.zeros([BLOCK_TIME, BLOCK_D], tl.float32)
    key = tl.zeros([BLOCK_TIME, BLOCK_D], tl.float32)
    value = tl.zeros([BLOCK_TIME, BLOCK_D], tl.float32)
    for start in range(0, d_model, BLOCK_K):
        features = start + in_step
        inside = features < d_model
        in_x = row_inside[:, None] & inside[None, :]
        x_tile = tl.load(block_at(x_rows, rows, features), mask=in_x, other=0.0)
        if norm is not None:
            gain, shift = load_norm(norm, features, d_model)
            x_tile = normed_tile(
                x_tile, mean[:, None], mean_rest[:, None], rstd[:, None],
                gain[None, :], shift[None, :],
            )  # fmt: skip
        in_weight = inside[:, None] & d_inside[None, :]
        tile = tl.load(block_at(weight, features, query_columns), mask=in_weight, other=0.0)
        query = tl.dot(x_tile, tile, query, input_precision="ieee")
        tile = tl.load(block_at(weight, features, key_columns), mask=in_weight, other=0.0)
        key = tl.dot(x_tile, tile, key, input_precision="ieee")
        tile = tl.load(block_at(weight, features, value_columns), mask=in_weight, other=0.0)
        value = tl.dot(x_tile, tile, value, input_precision="ieee")

    dtype = x.ptr.dtype.element_ty
    query = with_bias(query, bias, query_columns, d_inside).to(dtype)
    key = with_bias(key, bias, key_columns, d_inside)
    value = with_bias(value, bias, value_columns, d_inside)
    key_inside = row_inside
    if masks.key_start is not None:
        key_inside = key_inside & (positions >= tl.load(masks.key_start + batch))
    # Padding becomes 0, even if it is NaN: a weight of 0 times NaN would be NaN.
    key = tl.where(key_inside[:, None], key, 0.0).to(dtype)
    value = tl.where(key_inside[:, None], value, 0.0).to(dtype)

    scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale_log2_e
    seen = row_inside[:, None] & key_inside[None, :]
    if masks.causal:
        seen = seen & (positions[None, :] <= positions[:, None])
    if masks.window is not None:
        seen = seen & (positions[None, :] > positions[:, None] - masks.window)
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
    masks: Masks,
    *,
    n_head: int,
    eps: float,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the kernel.

    Parameters
    ----------
    x, w_qkv, b_qkv, n_head, eps, scale
        As in `qkv_attention`, checked; as many key heads as query heads, at most MAX_TIME positions
        and MAX_D_HEAD numbers a head.
    norm : (norm_weight, norm_bias) or None
        The layer norm in front.
    masks : Masks
        From `Masks.of`, without documents.

    Returns
    -------
    output : torch.Tensor [batch, head, time, d_head]
        A view of memory that lies as [batch, time, head, d_head].
    lse : torch.Tensor of float32 [batch, head, time]
        Contiguous.
    """
    (batch, time, d_model), d_head = x.shape, w_qkv.shape[1] // (3 * n_head)
    expect_countable("qkv_attention", d_model=d_model)
    output = torch.empty(batch, time, n_head, d_head, dtype=x.dtype, device=x.device)
    lse = torch.empty(batch, n_head, time, dtype=torch.float32, device=x.device)
    launch(
        qkv_attention_short_kernel,
        (batch * n_head if time else 0,),
        *(strided(x), strided(w_qkv), strided(b_qkv), norm_argument(norm)),
        *(masks.argument(MAX_TIME), output, lse, n_head, time, d_model),
        *(scale * math.log2(math.e), eps),
        D_HEAD=d_head,
        BLOCK_TIME=max(triton.next_power_of_2(time), 16),
        BLOCK_D=max(triton.next_power_of_2(d_head), 16),
    )
    return output.transpose(1, 2), lse
