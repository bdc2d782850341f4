"""The QKV projection's backward pass in Triton: two products that read d_qkv as it lies, packed.

Mathematics, packing and the kernels' index map: kernels/attention/qkv_projection.py. The gradient
of the norm is that of kernels/layers/layer_norm.py: it needs whole rows of d_n, which is stored
once, in float32.

d_b takes no launch: the programs of the first row of d_w's tiles sum their panel of d_qkv, which
they have just read.

Deterministic: a tile, and with it each number of d_b, is summed by one program in one order.
"""

from typing import Any

import torch

from ..common._triton import tl, triton
from ..common.launch import launch
from ..common.registered import registered
from ..common.rows import load_statistics
from ..common.strided import block_at, strided, transposed
from ..layers.layer_norm import layer_norm_backward
from ..layers.linear import grouped_tile
from .qkv_norm import load_norm, norm_argument, normed_tile

# As in linear.py, but steps of 128 bytes would spill at 128 x 128 in float32: the norm and the walk
# from head to head take registers too.
PROJECTION_CONFIGS = [
    triton.Config(
        {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K_BYTES": 64, "GROUP_M": 8},
        num_warps=8,
        num_stages=4,
    ),
    triton.Config(
        {"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_K_BYTES": 64, "GROUP_M": 8},
        num_warps=4,
        num_stages=3,
    ),
]
TUNING_KEY = ["n_columns", "d_model", "row_bucket"]


@triton.jit
def packed_offsets(rows, columns, n_rows, D_HEAD: tl.constexpr):
    """Say where number (row, column) of the product lies in the packed buffer; all int64."""
    head, number = columns // D_HEAD, columns % D_HEAD
    return head * n_rows * D_HEAD + number + rows * D_HEAD


@triton.autotune(PROJECTION_CONFIGS, key=TUNING_KEY)
@triton.jit
def qkv_projection_d_rows_kernel(
    d_packed_ptr,  # [head, row, d_head] contiguous
    weight,  # [d_model, column]
    d_rows_ptr,  # [row, d_model] contiguous
    n_rows,
    n_columns,
    d_model,
    row_bucket,
    D_HEAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K_BYTES: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of d_qkv · wᵀ, walking along the columns of w from head to head."""
    BLOCK_K: tl.constexpr = BLOCK_K_BYTES // (weight.ptr.dtype.element_ty.primitive_bitwidth // 8)
    tile_row, tile_feature = grouped_tile(
        tl.program_id(0), n_rows, d_model, BLOCK_M, BLOCK_N, GROUP_M
    )
    rows = tile_row.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    features = tile_feature.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_inside, feature_inside = rows < n_rows, features < d_model
    step = tl.full([], BLOCK_K, tl.int64)
    columns = tl.arange(0, BLOCK_K).to(tl.int64)
    weight_at = block_at(transposed(weight), columns, features)

    accumulator = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for _ in range(0, n_columns, BLOCK_K):
        inside = columns < n_columns
        at = packed_offsets(rows[:, None], columns[None, :], n_rows, D_HEAD)
        d_qkv = tl.load(d_packed_ptr + at, mask=row_inside[:, None] & inside[None, :], other=0.0)
        weight_tile = tl.load(weight_at, mask=inside[:, None] & feature_inside[None, :], other=0.0)
        accumulator = tl.dot(d_qkv, weight_tile, accumulator, input_precision="ieee")
        columns += step
        weight_at += step * weight.strides[1]

    d_rows_at = d_rows_ptr + rows[:, None] * d_model + features[None, :]
    tl.store(d_rows_at, accumulator, mask=row_inside[:, None] & feature_inside[None, :])


@triton.autotune(PROJECTION_CONFIGS, key=TUNING_KEY)
@triton.jit
def qkv_projection_d_weight_kernel(
    x,  # [row, d_model]
    d_packed_ptr,  # [head, row, d_head] contiguous
    norm,  # Norm or None
    d_weight_ptr,  # [d_model, column] contiguous
    d_bias_ptr,  # [column]
    n_rows,
    n_columns,
    d_model,
    row_bucket,
    D_HEAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K_BYTES: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of norm(x)ᵀ · d_qkv; in the first row of tiles, also Σ_rows d_qkv."""
    BLOCK_K: tl.constexpr = BLOCK_K_BYTES // (x.ptr.dtype.element_ty.primitive_bitwidth // 8)
    tile_feature, tile_column = grouped_tile(
        tl.program_id(0), d_model, n_columns, BLOCK_M, BLOCK_N, GROUP_M
    )
    features = tile_feature.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_column.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    feature_inside, column_inside = features < d_model, columns < n_columns
    step = tl.full([], BLOCK_K, tl.int64)
    rows = tl.arange(0, BLOCK_K).to(tl.int64)
    x_at = block_at(transposed(x), features, rows)
    d_qkv_at = d_packed_ptr + packed_offsets(rows[:, None], columns[None, :], n_rows, D_HEAD)

    accumulator = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if norm is not None:
        gain, shift = load_norm(norm, features, d_model)
    for _ in range(0, n_rows, BLOCK_K):
        row_inside = rows < n_rows
        x_tile = tl.load(x_at, mask=feature_inside[:, None] & row_inside[None, :], other=0.0)
        d_qkv = tl.load(d_qkv_at, mask=row_inside[:, None] & column_inside[None, :], other=0.0)
        if norm is not None:
            mean, mean_rest, rstd = load_statistics(norm, rows, row_inside)
            x_tile = normed_tile(
                x_tile, mean[None, :], mean_rest[None, :], rstd[None, :],
                gain[:, None], shift[:, None],
            )  # fmt: skip
        accumulator = tl.dot(x_tile, d_qkv, accumulator, input_precision="ieee")
        rows += step
        x_at += step * x.strides[0]
        d_qkv_at += step * D_HEAD

    at = features[:, None] * n_columns + columns[None, :]
    tl.store(d_weight_ptr + at, accumulator, mask=feature_inside[:, None] & column_inside[None, :])
    if tile_feature == 0:
        # The bias has its own loop: in the loop above, its sums would make every program spill.
        sums = tl.zeros([BLOCK_K, BLOCK_N], tl.float32)
        rows = tl.arange(0, BLOCK_K).to(tl.int64)
        d_qkv_at = d_packed_ptr + packed_offsets(rows[:, None], columns[None, :], n_rows, D_HEAD)
        for _ in range(0, n_rows, BLOCK_K):
            inside = (rows < n_rows)[:, None] & column_inside[None, :]
            sums += tl.load(d_qkv_at, mask=inside, other=0.0).to(tl.float32)
            rows += step
            d_qkv_at += step * D_HEAD
        tl.store(d_bias_ptr + columns, tl.sum(sums, axis=0), mask=column_inside)


def tile_grid(n_rows: int, n_columns: int) -> Any:
    """Make the grid of a product.

    Parameters
    ----------
    n_rows, n_columns : int
        Of its result.

    Returns
    -------
    callable
        From an autotune configuration to the number of programs.
    """

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (triton.cdiv(n_rows, meta["BLOCK_M"]) * triton.cdiv(n_columns, meta["BLOCK_N"]),)

    return grid


@registered
def qkv_projection_backward(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    norm: tuple[torch.Tensor, torch.Tensor] | None,
    statistics: torch.Tensor | None,
    d_packed: torch.Tensor,
    *,
    wants_rows: bool = True,
    wants_weight: bool = True,
) -> tuple[
    torch.Tensor | None,
    torch.Tensor | None,
    torch.Tensor | None,
    torch.Tensor | None,
    torch.Tensor | None,
]:
    """Launch the two products that read the packed gradient, and the norm's backward kernel.

    Parameters
    ----------
    x, w_qkv, norm
        As for `qkv_projection_forward`.
    statistics : torch.Tensor or None
        From `qkv_projection_forward`.
    d_packed : torch.Tensor [n_heads, batch, time, d_head]
        Contiguous.
    wants_rows, wants_weight : bool
        Whether the gradients of x and the norm, and those of w_qkv and b_qkv, are needed.

    Returns
    -------
    d_x, d_w_qkv, d_b_qkv, d_norm_weight, d_norm_bias : torch.Tensor or None
        None where not wanted, or without a norm.
    """
    d_head = d_packed.shape[-1]
    d_model, n_columns = w_qkv.shape
    n_rows = d_packed.shape[1] * d_packed.shape[2]  # batch · time
    x_rows = x.reshape(n_rows, d_model)
    like: dict[str, Any] = {"dtype": x.dtype, "device": x.device}
    sizes = (n_rows, n_columns, d_model, triton.next_power_of_2(n_rows))
    d_x = d_weight = d_bias = d_norm_weight = d_norm_bias = None
    if wants_weight:
        d_weight, d_bias = torch.empty(d_model, n_columns, **like), torch.empty(n_columns, **like)
        if d_model == 0:  # no tile of d_weight, so no program that sums for the bias
            d_bias = d_packed.sum(dim=(1, 2)).reshape(n_columns)
        launch(
            qkv_projection_d_weight_kernel,
            tile_grid(d_model, n_columns),
            *(strided(x_rows), d_packed, norm_argument(norm, statistics), d_weight, d_bias),
            *sizes,
            D_HEAD=d_head,
        )
    if wants_rows:
        # Before a norm it is float32: d_norm_bias sums d_n, and its rounding errors, over all rows.
        d_x = torch.empty(x.shape, **(like if norm is None else like | {"dtype": torch.float32}))
        launch(
            qkv_projection_d_rows_kernel,
            tile_grid(n_rows, d_model),
            *(d_packed, strided(w_qkv), d_x, *sizes),
            D_HEAD=d_head,
        )
        if norm is not None and statistics is not None:
            d_x, d_norm_weight, d_norm_bias = layer_norm_backward(x, norm[0], statistics, d_x)
    return d_x, d_weight, d_bias, d_norm_weight, d_norm_bias
