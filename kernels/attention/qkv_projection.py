"""The QKV projection in Triton: the norm in the prologue, head-major packing in the epilogue.

Mathematics (core/attention/qkv_projection.py): packed[h, row] = (n · w + b)[h's columns], n =
norm(x); backward d_n = d_qkv wᵀ, d_w = nᵀ d_qkv, d_b = Σ_rows d_qkv.

The packed buffer is [head, row, d_head], row = batch · time: a head's positions are one contiguous
piece, as attention reads them. Column c of the product is number c % d_head of head c // d_head, so

    packed_at(row, c) = (c // d_head) · n_rows · d_head + row · d_head + c % d_head

which is no multiple of c: a stride cannot say it, and so these are kernels of their own and not
linear's. d_head is a compile-time constant, so the division is a multiplication, done once a tile
(forward, d_w) or once a step (d_n, which walks along c).

    kernel       A [row]        · B [inner, column]     inner     reads the packed buffer as
    forward      norm(x)        · w                     d_model   result
    d_n          d_qkv          · wᵀ                    c         A: walks from head to head
    d_w, d_b     norm(x)ᵀ       · d_qkv                 row       B: a panel of columns

Tiles and the order of programs are those of kernels/layers/linear.py.

The norm is fused: one kernel reads x for each row's mean and 1/√(variance + ε); the product's
prologue then normalises each tile of x as it is loaded, forward and again for d_w. norm(x) is never
stored. Only d_n is, once, for the norm's own backward kernel (kernels/layers/layer_norm.py), which
needs whole rows of it.

The backward pass is in qkv_projection_backward.py. Deterministic: a tile is summed by one program
in one order.
"""

from typing import Any

import torch

from ...core.attention.qkv_projection import check_qkv_projection
from ..common._triton import tl, triton
from ..common.derivative import first_derivative_only
from ..common.indices import expect_countable
from ..common.launch import expect_same_dtype, launch, runs_on_triton
from ..common.registered import registered
from ..common.rows import load_statistics
from ..common.strided import block_at, strided
from ..layers.layer_norm import layer_norm_eager
from ..layers.linear import grouped_tile
from .qkv_norm import load_norm, norm_argument, norm_statistics, normed_tile
from .qkv_projection_backward import (
    PROJECTION_CONFIGS,
    TUNING_KEY,
    packed_offsets,
    qkv_projection_backward,
    tile_grid,
)


@triton.autotune(PROJECTION_CONFIGS, key=TUNING_KEY)
@triton.jit
def qkv_projection_kernel(
    x,  # [row, d_model]
    weight,  # [d_model, column]
    bias,  # [column] or None
    norm,  # Norm or None
    packed_ptr,  # [head, row, d_head] contiguous
    n_rows,
    n_columns,
    d_model,
    row_bucket,  # n_rows rounded up to a power of two: tuned once for each
    D_HEAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K_BYTES: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of norm(x) · w + b, written head by head."""
    BLOCK_K: tl.constexpr = BLOCK_K_BYTES // (x.ptr.dtype.element_ty.primitive_bitwidth // 8)
    tile_row, tile_column = grouped_tile(
        tl.program_id(0), n_rows, n_columns, BLOCK_M, BLOCK_N, GROUP_M
    )
    rows = tile_row.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_column.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_inside, column_inside = rows < n_rows, columns < n_columns
    in_step = tl.arange(0, BLOCK_K)
    step = tl.full([], BLOCK_K, tl.int64)
    x_at, weight_at = block_at(x, rows, in_step), block_at(weight, in_step, columns)
    if norm is not None:
        mean, mean_rest, rstd = load_statistics(norm, rows, row_inside)

    accumulator = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, d_model, BLOCK_K):
        inside = in_step < d_model - start
        x_tile = tl.load(x_at, mask=row_inside[:, None] & inside[None, :], other=0.0)
        weight_tile = tl.load(weight_at, mask=inside[:, None] & column_inside[None, :], other=0.0)
        if norm is not None:
            gain, shift = load_norm(norm, start + in_step, d_model)
            x_tile = normed_tile(
                x_tile, mean[:, None], mean_rest[:, None], rstd[:, None],
                gain[None, :], shift[None, :],
            )  # fmt: skip
        accumulator = tl.dot(x_tile, weight_tile, accumulator, input_precision="ieee")
        x_at += step * x.strides[1]
        weight_at += step * weight.strides[0]

    if bias is not None:
        bias_at = bias.ptr + columns * bias.strides[0]
        bias_tile = tl.load(bias_at, mask=column_inside, other=0.0)
        accumulator += bias_tile.to(tl.float32)[None, :]
    at = packed_offsets(rows[:, None], columns[None, :], n_rows, D_HEAD)
    tl.store(packed_ptr + at, accumulator, mask=row_inside[:, None] & column_inside[None, :])


@registered
def qkv_projection_forward(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    b_qkv: torch.Tensor | None,
    norm: tuple[torch.Tensor, torch.Tensor] | None,
    n_heads: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Launch the product, after the norm's statistics if there is one.

    Parameters
    ----------
    x, w_qkv, b_qkv, eps
        As in `qkv_projection`.
    norm : (norm_weight, norm_bias) or None
        The layer norm in front.
    n_heads : int
        Of queries, keys and values together.

    Returns
    -------
    packed : torch.Tensor [n_heads, batch, time, d_head]
        Contiguous.
    statistics : torch.Tensor of float32 [3, row] or None
        For `qkv_projection_backward`.
    """
    (batch, time, d_model), n_columns = x.shape, w_qkv.shape[1]
    n_rows, d_head = batch * time, n_columns // n_heads
    expect_countable("qkv_projection", rows=n_rows, columns=n_columns, d_model=d_model)
    x_rows = x.reshape(n_rows, d_model)
    statistics = None if norm is None else norm_statistics(x_rows, eps)
    packed = torch.empty(n_heads, batch, time, d_head, dtype=x.dtype, device=x.device)
    launch(
        qkv_projection_kernel,
        tile_grid(n_rows, n_columns),
        *(strided(x_rows), strided(w_qkv), strided(b_qkv), norm_argument(norm, statistics)),
        *(packed, n_rows, n_columns, d_model, triton.next_power_of_2(n_rows)),
        D_HEAD=d_head,
    )
    return packed, statistics


class _QKVProjection(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w_qkv, b_qkv, norm_weight, norm_bias, n_heads, eps):
        norm = None if norm_weight is None else (norm_weight, norm_bias)
        packed, statistics = qkv_projection_forward(x, w_qkv, b_qkv, norm, n_heads, eps)
        ctx.save_for_backward(x, w_qkv, norm_weight, norm_bias, statistics)
        return packed

    @staticmethod
    @first_derivative_only("qkv_projection")
    def backward(ctx, d_packed):
        x, w_qkv, norm_weight, norm_bias, statistics = ctx.saved_tensors
        wants = ctx.needs_input_grad
        gradients = qkv_projection_backward(
            x,
            w_qkv,
            None if norm_weight is None else (norm_weight, norm_bias),
            statistics,
            d_packed.contiguous(),
            wants_rows=wants[0] or wants[3] or wants[4],
            wants_weight=wants[1] or wants[2],
        )
        wanted = (d if wants[i] else None for i, d in enumerate(gradients))
        return *wanted, None, None


def qkv_projection(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    b_qkv: torch.Tensor | None = None,
    norm_weight: torch.Tensor | None = None,
    norm_bias: torch.Tensor | None = None,
    *,
    n_head: int,
    n_kv_head: int | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Normalise, project, split; the twin of `gptwin.core.attention.qkv_projection.qkv_projection`.

    Parameters
    ----------
    x : torch.Tensor [batch, time, d_model]
        float32, float16 or bfloat16, any strides.
    w_qkv : torch.Tensor [d_model, (n_head + 2 * n_kv_head) * d_head]
        GPT-2's c_attn: columns of all query heads, then all key heads, then all value heads.
    b_qkv : torch.Tensor [(n_head + 2 * n_kv_head) * d_head], optional
        Added to the product.
    norm_weight, norm_bias : torch.Tensor [d_model], optional
        Scale and shift of a layer norm in front; both or neither.
    n_head, n_kv_head : int
        Heads of queries, and of keys and values; as many as of queries if not given.
    eps : float
        Of the layer norm.

    Returns
    -------
    torch.Tensor [n_head + 2 * n_kv_head, batch, time, d_head]
        Contiguous: query heads, then key heads, then value heads.

    Raises
    ------
    ValueError
        If shapes, dtypes, devices or head counts do not fit.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    n_heads = check_qkv_projection(x, w_qkv, b_qkv, norm_weight, norm_bias, n_head, n_kv_head, eps)
    given: dict[str, Any] = {
        "x": x, "w_qkv": w_qkv, "b_qkv": b_qkv, "norm_weight": norm_weight, "norm_bias": norm_bias,
    }  # fmt: skip
    expect_same_dtype(**given)
    if runs_on_triton("qkv_projection", **given):
        return _QKVProjection.apply(*given.values(), n_heads, eps)
    return qkv_projection_eager(**given, n_head=n_head, n_kv_head=n_kv_head, eps=eps)


def qkv_projection_eager(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    b_qkv: torch.Tensor | None = None,
    norm_weight: torch.Tensor | None = None,
    norm_bias: torch.Tensor | None = None,
    *,
    n_head: int,
    n_kv_head: int | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick.

    Returns
    -------
    torch.Tensor
        As in `qkv_projection`; a view of the product.
    """
    if norm_weight is not None:
        x = layer_norm_eager(x, norm_weight, norm_bias, eps=eps)
    y = x @ w_qkv
    if b_qkv is not None:
        y = y + b_qkv
    n_heads = n_head + 2 * (n_head if n_kv_head is None else n_kv_head)
    # [batch, time, n_heads * d_head] -> [n_heads, batch, time, d_head]
    return y.unflatten(-1, (n_heads, -1)).permute(2, 0, 1, 3)
