"""Layer norm in Triton: the residual added, the row normalised, each byte moved once.

Mathematics (core/layers/layer_norm.py): y = x̂·weight + bias with x̂ = (x − μ)·r, r = 1/√(variance
+ ε); backward, with g = d_y·weight: d_x = r·(g − mean(g) − x̂·mean(g·x̂)) + d_summed, and d_weight
and d_bias are sums over all rows of d_y·x̂ and d_y.

Tiling. A program holds whole rows in registers, from load to store, if they have at most MAX_BLOCK
features. Wider rows take the kernels of layer_norm_wide.py, which walk along them in blocks; the
width alone decides.

    forward                          backward
    one program = BLOCK_ROWS rows    each of n programs takes ⌈tiles / n⌉ in turn (here n = 2)
    ┌────────────────────────┐       ┌────────────────────────┐
    │ program 0              │ y     │ tile 0    program 0    │ d_x
    ├────────────────────────┤       ├────────────────────────┤
    │ program 1              │ y     │ tile 1    program 0    │ d_x
    ├────────────────────────┤       ├────────────────────────┤
    │ program 2              │ y     │ tile 2    program 1    │ d_x
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
from torch.nn import functional

from ...core.layers.layer_norm import check_layer_norm
from ..common._triton import for_architecture, tl, triton
from ..common.column_sum import column_sum
from ..common.derivative import first_derivative_only
from ..common.finite import may_be_read
from ..common.indices import expect_countable
from ..common.launch import expect_same_dtype, launch, runs_on_triton
from ..common.registered import registered
from ..common.rows import (
    SMALL,
    Statistics,
    contiguous,
    is_too_large,
    load_statistics,
    load_summed,
    load_tile,
    multiprocessors,
    normalise,
    reciprocal_root,
    reciprocal_root_of_small,
)
from ..common.strided import block_at, strided
from ..common.widened import HALF
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
# STAGES > 1 copies the next tiles to shared memory while this one is computed: with 2, NVIDIA's
# chips would wait for a tile once it is asked for. A third spills on sm_90 with 16, sm_100 with 8.
NARROW_BACKWARD_CONFIGS = [
    triton.Config({"TILE": 2048, "STAGES": 1}, num_warps=8),
    triton.Config({"TILE": 2048, "STAGES": for_architecture(3, sm_100=2, amd=2)}, num_warps=8),
    triton.Config({"TILE": 4096, "STAGES": for_architecture(3, sm_90=2, amd=2)}, num_warps=16),
]
# Rows that a program sums before it writes a partial sum, at the least.
WIDE_ROWS_PER_PARTIAL = 32


@triton.autotune(NARROW_CONFIGS, key=["BLOCK_FEATURES"])
@triton.jit
def layer_norm_forward_kernel(
    x,  # Strided [row, feature], like the next
    residual,  # or None
    weight_ptr,  # [feature] contiguous, like all that follow
    bias_ptr,
    y_ptr,  # [row, feature], written
    summed_ptr,  # x + residual, written; None if there is no residual
    statistics,  # Statistics, written
    n_rows,
    n_features,
    eps,
    BLOCK_FEATURES: tl.constexpr,
    TILE: tl.constexpr,
):
    """Layer norm of BLOCK_ROWS whole rows, which stay in registers from load to store."""
    BLOCK_ROWS: tl.constexpr = (TILE + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    features = tl.arange(0, BLOCK_FEATURES)
    inside = (rows < n_rows)[:, None] & (features < n_features)[None, :]
    x_tile = load_summed(x, residual, rows, features, inside)
    if residual is not None:
        tl.store(block_at(contiguous(summed_ptr, n_features), rows, features), x_tile, mask=inside)

    mean = tl.sum(x_tile, axis=1) / n_features  # [BLOCK_ROWS]
    distance = tl.where(inside, x_tile - mean[:, None], 0.0)
    # What the rounding of the mean left over: about 0, and it corrects both statistics.
    mean_rest = tl.sum(distance, axis=1) / n_features
    variance = tl.sum(distance * distance, axis=1) / n_features - mean_rest * mean_rest
    # Without a branch: a tile that waits for it would take registers from every other row.
    small, small_rest = distance * SMALL, mean_rest * SMALL
    small_variance = tl.sum(small * small, axis=1) / n_features - small_rest * small_rest
    rstd = tl.where(
        is_too_large(variance),
        reciprocal_root_of_small(small_variance),
        reciprocal_root(variance, eps),
    )
    found = Statistics(mean, mean_rest, rstd)

    weight = tl.load(weight_ptr + features, mask=features < n_features, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + features, mask=features < n_features, other=0.0).to(tl.float32)
    normed = normalise(x_tile, found) * weight[None, :] + bias[None, :]
    tl.store(block_at(contiguous(y_ptr, n_features), rows, features), normed, mask=inside)
    tl.store(statistics.mean + rows, mean, mask=rows < n_rows)
    tl.store(statistics.mean_rest + rows, mean_rest, mask=rows < n_rows)
    tl.store(statistics.rstd + rows, found.rstd, mask=rows < n_rows)


@triton.autotune(NARROW_BACKWARD_CONFIGS, key=["BLOCK_FEATURES"])
@triton.jit
def layer_norm_backward_kernel(
    x,  # Strided [row, feature]: what was normalised, x or the sum; like the next two
    d_y,
    d_summed,  # or None
    weight_ptr,  # [feature] contiguous, like all that follow
    statistics,  # Statistics
    d_x_ptr,  # [row, feature], written
    partial_ptr,  # float32 [program, 2 · n_features]: d_weight's half, then d_bias's; or None
    n_rows,
    n_features,
    BLOCK_FEATURES: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
):
    """d_x of neighbouring tiles of whole rows, and what they add to d_weight and d_bias."""
    BLOCK_ROWS: tl.constexpr = (TILE + BLOCK_FEATURES - 1) // BLOCK_FEATURES
    features = tl.arange(0, BLOCK_FEATURES)
    feature_inside = features < n_features
    weight = tl.load(weight_ptr + features, mask=feature_inside, other=0.0).to(tl.float32)
    # Each element has its sum; a tile's rows are added once, at the end.
    d_weight = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    d_bias = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    n_tiles = tl.cdiv(n_rows, BLOCK_ROWS)
    # A third stage of rows of 32 kB is more shared memory than sm_80 has.
    BITS: tl.constexpr = BLOCK_ROWS * BLOCK_FEATURES * x.ptr.dtype.element_ty.primitive_bitwidth
    FITTING: tl.constexpr = min(STAGES, 3 if BITS < 8 * 32768 else 2)
    n_own = tl.cdiv(n_tiles, tl.num_programs(0))
    first = tl.program_id(0).to(tl.int64) * n_own
    for tile in tl.range(first, tl.minimum(first + n_own, n_tiles), num_stages=FITTING):
        rows = tl.cast(tile, tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        inside = (rows < n_rows)[:, None] & feature_inside[None, :]
        x_tile = load_tile(x, rows, features, inside)
        d_y_tile = load_tile(d_y, rows, features, inside)
        found = load_statistics(statistics, rows, rows < n_rows)

        normalised = normalise(x_tile, found)
        d_normalised = d_y_tile * weight[None, :]  # 0 outside, like d_y
        # The coupling comes first: after mean_d, ptxas would spill a few bytes on sm_80 and sm_100.
        coupling = tl.sum(d_normalised * normalised, axis=1) / n_features
        mean_d = tl.sum(d_normalised, axis=1) / n_features
        d_x_tile = d_normalised - mean_d[:, None] - normalised * coupling[:, None]
        d_x_tile = d_x_tile * found.rstd[:, None]
        if d_summed is not None:
            d_x_tile += load_tile(d_summed, rows, features, inside)
        tl.store(block_at(contiguous(d_x_ptr, n_features), rows, features), d_x_tile, mask=inside)
        if partial_ptr is not None:
            d_weight += d_y_tile * normalised
            d_bias += d_y_tile

    if partial_ptr is not None:
        # A program without a tile writes zeros: every program's row is added up.
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
    expect_countable("layer_norm", rows=n_rows, features=n_features)
    statistics = torch.empty(3, n_rows, dtype=torch.float32, device=x.device)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    summed = None if residual is None else torch.empty_like(y)
    args = (
        strided(x_rows),
        strided(None if residual is None else residual.reshape(-1, n_features)),
        *(weight.contiguous(), bias.contiguous(), y, summed, Statistics(*statistics)),
        *(n_rows, n_features, eps),
    )
    if n_features <= MAX_BLOCK:
        block = triton.next_power_of_2(n_features)
        launch(
            layer_norm_forward_kernel,
            lambda meta: (triton.cdiv(n_rows, triton.cdiv(meta["TILE"], block)),),
            *args,
            BLOCK_FEATURES=block,
        )
    else:
        launch(layer_norm_forward_wide_kernel, (n_rows,), *args)
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

    x_rows, d_y_rows = (strided(tensor.reshape(-1, n_features)) for tensor in (x, d_y))
    d_summed_rows = strided(None if d_summed is None else d_summed.reshape(-1, n_features))
    known = Statistics(*statistics)
    tensors = (x_rows, d_y_rows, d_summed_rows, weight.contiguous(), known, d_x)
    n_programs = _partial_sums(x, n_rows, n_features)
    partial = None
    if parameter_gradients:
        partial = torch.empty(n_programs, 2 * n_features, dtype=torch.float32, device=x.device)
    if n_features <= MAX_BLOCK:
        launch(
            layer_norm_backward_kernel,
            (n_programs,),
            *(*tensors, partial, n_rows, n_features),
            BLOCK_FEATURES=triton.next_power_of_2(n_features),
        )
    else:
        launch(
            layer_norm_backward_wide_kernel,
            (n_rows,),
            *(*tensors, n_features),
        )
        if partial is not None:
            launch(
                layer_norm_backward_parameters_kernel,
                lambda meta: (triton.cdiv(n_features, meta["BLOCK_FEATURES"]), n_programs),
                *(x_rows, d_y_rows, known, partial, n_rows, n_features),
            )
    if partial is None:
        return d_x, None, None

    # We detach them, since autograd refuses some changes in place to views that it knows.
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
    @first_derivative_only("layer_norm")
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
    """
    summed = x if residual is None else x + residual
    rows = summed
    if summed.is_cpu and summed.dtype in HALF:
        # There PyTorch sums the gradients of weight and bias in half precision.
        rows, weight = summed.float(), weight.float()
        bias = None if bias is None else bias.float()
    shape = (x.shape[-1],)
    y, _, rstd = torch.native_layer_norm(rows, shape, weight, bias, float(eps))
    if may_be_read(rows) and not (rstd.detach() > 0).all():
        # Squares beyond float32 make 0 of it, or NaN; those of NaN stay what they are.
        wide_bias = None if bias is None else bias.double()
        y = functional.layer_norm(rows.double(), shape, weight.double(), wide_bias, float(eps))
    y = y.to(summed.dtype)
    return y if residual is None else (y, summed)
