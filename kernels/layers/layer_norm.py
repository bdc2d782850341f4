"""Layer norm in Triton: the residual added, the row normalised, each byte moved once.

Mathematics (core/layers/layer_norm.py): y = x̂·weight + bias with x̂ = (x − μ)·r, r = 1/√(variance
+ ε); backward, with g = d_y·weight: d_x = r·(g − mean(g) − x̂·mean(g·x̂)) + d_summed, and d_weight
and d_bias are sums over all rows of d_y·x̂ and d_y.

Tiling. A program holds whole rows in registers, from load to store, if they have at most MAX_BLOCK
features. Wider rows take the kernels of layer_norm_wide.py, which walk along them in blocks; the
width alone decides.

    forward                          backward
    one program = BLOCK_ROWS rows    program p of n takes tiles p, p + n, … (here n = 2)
    ┌────────────────────────┐       ┌────────────────────────┐
    │ program 0              │ y     │ tile 0    program 0    │ d_x
    ├────────────────────────┤       ├────────────────────────┤
    │ program 1              │ y     │ tile 1    program 1    │ d_x
    ├────────────────────────┤       ├────────────────────────┤
    │ program 2              │ y     │ tile 2    program 0    │ d_x
    └────────────────────────┘       └────────────────────────┘
                                       ▼ and a row of float32 partial sums for each program
                                     ┌────────────┬───────────┐
                                     │ d_weight   │ d_bias    │ partial[0]
                                     ├────────────┼───────────┤
                                     │ d_weight   │ d_bias    │ partial[1]
                                     └────────────┴───────────┘
                                       ▼ column_sum.py adds the rows up

Memory, with n elements in x. Forward, narrow: reads x (and the residual), writes y (and the sum):
2n elements, 4n fused: the fewest there can be. Backward, narrow: reads x and d_y (and d_summed),
writes d_x: 3n, 4n fused, again the fewest; the partial sums add 2·d_model float32 for each of the
one or two programs per multiprocessor. Wide: a row is read twice, the second time from the L2
cache unless it is longer than that holds; and backward reads x and d_y once more for d_weight and
d_bias. x̂ is recomputed from x and the row's statistics, which forward stored (12 bytes a row).

Numbers. Statistics and sums are float32. The variance is never E[x²] − E[x]²: a row's rounded mean
is subtracted first, and the small mean that is left then corrects both (the corrected two-pass
algorithm of Chan, Golub & LeVeque 1983). So a row of equal numbers, however large, gives the bias.
The mean is kept as two numbers, `mean + mean_rest`: at mean 10⁴ one float32 is off by 5·10⁻⁴, and
x̂ with it.

Deterministic: each element is written by one program, and the sums over rows have a fixed order:
no atomics. (Another autotune configuration or GPU may sum in another order.)
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ...core.layers.layer_norm import check_layer_norm
from ..common._triton import tl, triton
from ..common.column_sum import column_sum
from ..common.launch import expect_same_dtype, launch, multiprocessors, runs_on_triton
from ..common.registered import registered
from ..common.rows import load_summed, load_tile, normalise, tile_at
from .layer_norm_wide import (
    layer_norm_backward_parameters_kernel,
    layer_norm_backward_wide_kernel,
    layer_norm_forward_wide_kernel,
)

# Beyond this a row no longer stays in one program's registers.
MAX_BLOCK = 8192
# Elements in flight per program: a thread holds TILE / (32 · num_warps) of them, 16 or 32.
NARROW_CONFIGS = [
    triton.Config({"TILE": 2048}, num_warps=4),
    triton.Config({"TILE": 4096}, num_warps=8),
    triton.Config({"TILE": 8192}, num_warps=16),
]
# Backward holds x, d_y, weight and two running sums per element: more warps for the same tile.
# STAGES > 1 copies the next tile to shared memory while this one is computed.
NARROW_BACKWARD_CONFIGS = [
    triton.Config({"TILE": 2048, "STAGES": 1}, num_warps=8),
    triton.Config({"TILE": 2048, "STAGES": 2}, num_warps=8),
    triton.Config({"TILE": 4096, "STAGES": 2}, num_warps=16),
]
# Rows that a program sums before it writes a partial sum, at the least.
WIDE_ROWS_PER_PARTIAL = 32


@triton.autotune(NARROW_CONFIGS, key=["BLOCK_FEATURES"])
@triton.jit
def layer_norm_forward_kernel(
    x_ptr,
    residual_ptr,  # or x_ptr if there is none
    weight_ptr,  # contiguous
    bias_ptr,  # contiguous
    y_ptr,  # contiguous
    summed_ptr,  # contiguous, or y_ptr if there is no residual
    mean_ptr,  # float32 [row]
    mean_rest_ptr,  # float32 [row]
    rstd_ptr,  # float32 [row]
    n_rows,
    n_features,
    x_row_stride,
    x_feature_stride,
    residual_row_stride,
    residual_feature_stride,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    TILE: tl.constexpr,
):
    """Layer norm of BLOCK_ROWS whole rows, which stay in registers from load to store."""
    BLOCK_ROWS: tl.constexpr = (TILE + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    features = tl.arange(0, BLOCK_FEATURES)
    inside = (rows < n_rows)[:, None] & (features < n_features)[None, :]
    x = load_summed(
        x_ptr, residual_ptr, rows, features, inside, x_row_stride, x_feature_stride,
        residual_row_stride, residual_feature_stride, HAS_RESIDUAL,
    )  # fmt: skip
    if HAS_RESIDUAL:
        tl.store(tile_at(summed_ptr, rows, features, n_features, 1), x, mask=inside)

    mean = tl.sum(x, axis=1) / n_features  # [BLOCK_ROWS]
    distance = tl.where(inside, x - mean[:, None], 0.0)
    # What the rounding of the mean left over: about 0, and it corrects both statistics.
    mean_rest = tl.sum(distance, axis=1) / n_features
    variance = tl.sum(distance * distance, axis=1) / n_features - mean_rest * mean_rest
    rstd = 1.0 / tl.sqrt_rn(tl.maximum(variance, 0.0) + eps)

    weight = tl.load(weight_ptr + features, mask=features < n_features, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + features, mask=features < n_features, other=0.0).to(tl.float32)
    y = normalise(x, mean, mean_rest, rstd) * weight[None, :] + bias[None, :]
    tl.store(tile_at(y_ptr, rows, features, n_features, 1), y, mask=inside)
    tl.store(mean_ptr + rows, mean, mask=rows < n_rows)
    tl.store(mean_rest_ptr + rows, mean_rest, mask=rows < n_rows)
    tl.store(rstd_ptr + rows, rstd, mask=rows < n_rows)


@triton.autotune(NARROW_BACKWARD_CONFIGS, key=["BLOCK_FEATURES"])
@triton.jit
def layer_norm_backward_kernel(
    x_ptr,  # what was normalised: x, or the sum
    weight_ptr,  # contiguous
    mean_ptr,  # float32 [row]
    mean_rest_ptr,  # float32 [row]
    rstd_ptr,  # float32 [row]
    d_y_ptr,
    d_summed_ptr,  # or d_y_ptr if there is none
    d_x_ptr,  # contiguous
    partial_ptr,  # float32 [program, 2 * n_features]: d_weight's half, then d_bias's
    n_rows,
    n_features,
    x_row_stride,
    x_feature_stride,
    d_y_row_stride,
    d_y_feature_stride,
    d_summed_row_stride,
    d_summed_feature_stride,
    HAS_D_SUMMED: tl.constexpr,
    PARAMETER_GRADIENTS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
):
    """d_x of every n-th tile of whole rows, and this program's share of d_weight and d_bias."""
    BLOCK_ROWS: tl.constexpr = (TILE + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    features = tl.arange(0, BLOCK_FEATURES)
    feature_inside = features < n_features
    weight = tl.load(weight_ptr + features, mask=feature_inside, other=0.0).to(tl.float32)
    # Per element, and summed over the tile's rows once at the end.
    d_weight = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    d_bias = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    n_tiles = tl.cdiv(n_rows, BLOCK_ROWS)
    for tile in tl.range(tl.program_id(0), n_tiles, tl.num_programs(0), num_stages=STAGES):
        rows = tl.cast(tile, tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        inside = (rows < n_rows)[:, None] & feature_inside[None, :]
        x = load_tile(x_ptr, rows, features, inside, x_row_stride, x_feature_stride)
        d_y = load_tile(d_y_ptr, rows, features, inside, d_y_row_stride, d_y_feature_stride)
        mean = tl.load(mean_ptr + rows, mask=rows < n_rows, other=0.0)  # [BLOCK_ROWS]
        mean_rest = tl.load(mean_rest_ptr + rows, mask=rows < n_rows, other=0.0)
        rstd = tl.load(rstd_ptr + rows, mask=rows < n_rows, other=0.0)

        normalised = normalise(x, mean, mean_rest, rstd)
        d_normalised = d_y * weight[None, :]  # 0 outside, like d_y
        # In this order: mean_d first, and ptxas spills a few bytes on sm_80 and sm_100.
        coupling = tl.sum(d_normalised * normalised, axis=1) / n_features
        mean_d = tl.sum(d_normalised, axis=1) / n_features
        d_x = (d_normalised - mean_d[:, None] - normalised * coupling[:, None]) * rstd[:, None]
        if HAS_D_SUMMED:
            d_x += load_tile(
                d_summed_ptr, rows, features, inside, d_summed_row_stride, d_summed_feature_stride
            )
        tl.store(tile_at(d_x_ptr, rows, features, n_features, 1), d_x, mask=inside)
        if PARAMETER_GRADIENTS:
            d_weight += d_y * normalised
            d_bias += d_y

    if PARAMETER_GRADIENTS:
        # Also where there was no tile: every program's row is added up.
        d_weight_at = partial_ptr + tl.program_id(0).to(tl.int64) * 2 * n_features + features
        tl.store(d_weight_at, tl.sum(d_weight, axis=0), mask=feature_inside)
        tl.store(d_weight_at + n_features, tl.sum(d_bias, axis=0), mask=feature_inside)


@registered
def layer_norm_forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Launch the forward kernel for checked arguments.

    Parameters
    ----------
    x, weight, bias, residual, eps
        As in `layer_norm`.

    Returns
    -------
    y : torch.Tensor
        Shaped like `x`, contiguous.
    summed : torch.Tensor or None
        x + residual, contiguous; None without a residual.
    statistics : torch.Tensor of float32 [3, row]
        For `layer_norm_backward`: each row's mean, what its rounding left over, 1/√(variance + ε).
    """
    n_features = x.shape[-1]
    x_rows = x.reshape(-1, n_features)  # [..., d_model] -> [row, d_model]: a view if strides allow
    n_rows = x_rows.shape[0]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    summed = None if residual is None else torch.empty_like(y)
    statistics = torch.empty(3, n_rows, dtype=torch.float32, device=x.device)
    residual_rows = x_rows if residual is None else residual.reshape(-1, n_features)
    args = (
        x_rows,
        residual_rows,
        weight.contiguous(),
        bias.contiguous(),
        y,
        y if summed is None else summed,
        *statistics,
        n_rows,
        n_features,
        *x_rows.stride(),
        *residual_rows.stride(),
        eps,
    )
    has_residual = residual is not None
    if n_features <= MAX_BLOCK:
        block = triton.next_power_of_2(n_features)
        launch(
            layer_norm_forward_kernel,
            lambda meta: (triton.cdiv(n_rows, triton.cdiv(meta["TILE"], block)),),
            *args,
            HAS_RESIDUAL=has_residual,
            BLOCK_FEATURES=block,
        )
    else:
        launch(layer_norm_forward_wide_kernel, (n_rows,), *args, HAS_RESIDUAL=has_residual)
    return y, summed, statistics


@registered
def layer_norm_backward(
    x: torch.Tensor,
    weight: torch.Tensor,
    statistics: torch.Tensor,
    d_y: torch.Tensor,
    d_summed: torch.Tensor | None = None,
    *,
    parameter_gradients: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Launch the backward kernels.

    Parameters
    ----------
    x : torch.Tensor [..., d_model]
        What was normalised: x without a residual, else the sum. Any strides.
    weight : torch.Tensor [d_model]
        As in `layer_norm`.
    statistics : torch.Tensor of float32 [3, row]
        From `layer_norm_forward`.
    d_y : torch.Tensor [..., d_model]
        Gradient of y, with any strides.
    d_summed : torch.Tensor [..., d_model], optional
        Gradient of the sum, with any strides; None is 0.
    parameter_gradients : bool
        Whether d_weight and d_bias are wanted.

    Returns
    -------
    d_x : torch.Tensor [..., d_model]
        Gradient of x, and of the residual as well; contiguous.
    d_weight, d_bias : torch.Tensor [d_model] or None
        The halves of one tensor; None if not wanted.
    """
    n_features = x.shape[-1]
    n_rows = statistics.shape[1]
    d_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if n_rows == 0:  # column_sum gives zeros as well, but would be autotuned on no rows
        zeros = torch.zeros_like(weight) if parameter_gradients else None
        return d_x, zeros, None if zeros is None else zeros.clone()

    x_rows, d_y_rows = x.reshape(-1, n_features), d_y.reshape(-1, n_features)
    d_summed_rows = d_y_rows if d_summed is None else d_summed.reshape(-1, n_features)
    strides = (*x_rows.stride(), *d_y_rows.stride())
    has_d_summed = d_summed is not None
    tensors = (x_rows, weight.contiguous(), *statistics, d_y_rows, d_summed_rows, d_x)
    n_programs = _partial_sums(x, n_rows, n_features)
    partial = torch.empty(
        n_programs if parameter_gradients else 0,
        2 * n_features,
        dtype=torch.float32,
        device=x.device,
    )
    if n_features <= MAX_BLOCK:
        launch(
            layer_norm_backward_kernel,
            (n_programs,),
            *(*tensors, partial, n_rows, n_features, *strides, *d_summed_rows.stride()),
            HAS_D_SUMMED=has_d_summed,
            PARAMETER_GRADIENTS=parameter_gradients,
            BLOCK_FEATURES=triton.next_power_of_2(n_features),
        )
    else:
        launch(
            layer_norm_backward_wide_kernel,
            (n_rows,),
            *(*tensors, n_features, *strides, *d_summed_rows.stride()),
            HAS_D_SUMMED=has_d_summed,
        )
        if parameter_gradients:
            launch(
                layer_norm_backward_parameters_kernel,
                lambda meta: (triton.cdiv(n_features, meta["BLOCK_FEATURES"]), n_programs),
                *(x_rows, *statistics, d_y_rows, partial, n_rows, n_features, *strides),
            )
    if not parameter_gradients:
        return d_x, None, None

    # Detached: autograd refuses some changes in place to what it knows to be a view.
    d_weight, d_bias = (half.detach() for half in column_sum(partial, weight.dtype).chunk(2))
    return d_x, d_weight, d_bias


def _partial_sums(x: torch.Tensor, n_rows: int, n_features: int) -> int:
    """Return how many programs share out the rows, each with its own partial sums."""
    if n_features > MAX_BLOCK:
        return min(2 * multiprocessors(x), triton.cdiv(n_rows, WIDE_ROWS_PER_PARTIAL))
    # Two programs of 8 warps fill a multiprocessor's registers, or one with rows of 32 KB.
    block = triton.next_power_of_2(n_features)
    resident = multiprocessors(x) * (2 if block <= MAX_BLOCK // 2 else 1)
    smallest_tile = min(config.kwargs["TILE"] for config in NARROW_BACKWARD_CONFIGS)
    return min(resident, triton.cdiv(n_rows, triton.cdiv(smallest_tile, block)))


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, eps):
        y, summed, statistics = layer_norm_forward(x, weight, bias, residual, eps)
        ctx.save_for_backward(x if summed is None else summed, weight, statistics)
        ctx.set_materialize_grads(False)  # a result that the loss does not use costs no zeros
        return y if summed is None else (y, summed)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y, d_summed=None):
        x, weight, statistics = ctx.saved_tensors
        if d_y is None:
            d_y = torch.zeros((), dtype=x.dtype, device=x.device).expand(x.shape)
        x_needed, weight_needed, bias_needed, residual_needed, _ = ctx.needs_input_grad
        d_x, d_weight, d_bias = layer_norm_backward(
            x, weight, statistics, d_y, d_summed, parameter_gradients=weight_needed or bias_needed
        )
        return (
            d_x if x_needed else None,
            d_weight if weight_needed else None,
            d_bias if bias_needed else None,
            d_x if residual_needed else None,
            None,
        )


def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    """Normalise each row of `x`, or of `x + residual`; the twin of `gptwin.core.layers.layer_norm`.

    Parameters
    ----------
    x : torch.Tensor [..., d_model]
        The rows: float32, float16 or bfloat16, any strides. Computed in float32.
    weight, bias : torch.Tensor [d_model]
        Scale and shift of each feature, of the dtype of `x`.
    residual : torch.Tensor [..., d_model], optional
        Added to `x` first; shaped exactly like it and of its dtype, any strides.
    eps : float
        Added to the variance; finite and above 0.

    Returns
    -------
    y : torch.Tensor [..., d_model]
        The normalised rows, of the dtype of `x`.
    summed : torch.Tensor [..., d_model]
        x + residual, rounded to the dtype; only if `residual` is given. y is normalised from the
        rounded sum.

    Raises
    ------
    ValueError
        If a shape, dtype, device or `eps` is wrong.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_layer_norm(x, weight, bias, residual, eps)
    expect_same_dtype(x=x, weight=weight, bias=bias, residual=residual)
    if runs_on_triton("layer_norm", x=x, weight=weight, bias=bias, residual=residual):
        return _LayerNorm.apply(x, weight, bias, residual, float(eps))
    return layer_norm_eager(x, weight, bias, residual=residual, eps=eps)


def layer_norm_eager(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick.

    Parameters
    ----------
    x, weight, bias, residual, eps
        As in `layer_norm`; here `bias` may be None.

    Returns
    -------
    torch.Tensor or tuple
        As in `layer_norm`.
    """
    summed = x if residual is None else x + residual
    y = functional.layer_norm(summed, (x.shape[-1],), weight, bias, float(eps))
    return y if residual is None else (y, summed)
