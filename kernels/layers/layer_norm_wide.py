"""Layer norm's kernels for wide rows, which do not fit in one program's registers.

Mathematics, memory and numbers: layer_norm.py, which launches these.

Tiling. A row is walked in blocks, and walked twice: forward's y needs the whole row's statistics,
backward's d_x two means over the row. d_weight and d_bias are sums down the columns instead, and
get a kernel of their own, whose programs stay in one block of columns.

    forward, and backward's d_x               backward's d_weight, d_bias
    one program = one row                     one program = every n-th tile of a block of columns
    ┌───────┬───────┬───────┬──┐              ┌───────┬───────┬───────┬──┐
    │ ──────► its statistics   │ pass 1       │ 0,0   │ 1,0   │ 2,0   │  │  here n = 2: the tiles of
    ├───────┼───────┼───────┼──┤              ├───────┼───────┼───────┼──┤  programs (·, 0) and
    │ ──────► y, or d_x        │ pass 2       │ 0,1   │ 1,1   │ 2,1   │  │  (·, 1) alternate
    └───────┴───────┴───────┴──┘              ├───────┼───────┼───────┼──┤
                                              │ 0,0   │ 1,0   │ 2,0   │  │
                                              └───────┴───────┴───────┴──┘
                                                ▼ partial[1] and so on: a row of partial sums
"""

from ..common._triton import tl, triton
from ..common.rows import load_summed, load_tile, normalise, tile_at

WIDE_CONFIGS = [
    triton.Config({"BLOCK_FEATURES": 4096}, num_warps=8),
    triton.Config({"BLOCK_FEATURES": 4096}, num_warps=16),
]
WIDE_PARAMETERS_CONFIGS = [
    triton.Config({"BLOCK_ROWS": 16, "BLOCK_FEATURES": 128}, num_warps=4),
    triton.Config({"BLOCK_ROWS": 8, "BLOCK_FEATURES": 512}, num_warps=8),
]


@triton.autotune(WIDE_CONFIGS, key=["n_features"])
@triton.jit
def layer_norm_forward_wide_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    summed_ptr,
    mean_ptr,
    mean_rest_ptr,
    rstd_ptr,
    n_rows,
    n_features,
    x_row_stride,
    x_feature_stride,
    residual_row_stride,
    residual_feature_stride,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
):
    """Layer norm of one row in blocks: `row_statistics_tiled`, then a pass that writes."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)  # [1]
    features = tl.arange(0, BLOCK_FEATURES)
    first = load_summed(
        x_ptr, residual_ptr, row, features, (features < n_features)[None, :], x_row_stride,
        x_feature_stride, residual_row_stride, residual_feature_stride, HAS_RESIDUAL,
    )  # fmt: skip
    origin = tl.sum(first, axis=1) / tl.minimum(n_features, BLOCK_FEATURES)  # [1]
    total = tl.zeros([1, BLOCK_FEATURES], tl.float32)  # per lane; summed once at the end
    total_squares = tl.zeros([1, BLOCK_FEATURES], tl.float32)
    for start in range(0, n_features, BLOCK_FEATURES):
        features = start + tl.arange(0, BLOCK_FEATURES)
        inside = (features < n_features)[None, :]
        x = load_summed(
            x_ptr, residual_ptr, row, features, inside, x_row_stride, x_feature_stride,
            residual_row_stride, residual_feature_stride, HAS_RESIDUAL,
        )  # fmt: skip
        distance = tl.where(inside, x - origin[:, None], 0.0)
        total += distance
        total_squares += distance * distance
    shift = tl.sum(total, axis=1) / n_features
    variance = tl.sum(total_squares, axis=1) / n_features - shift * shift
    rstd = 1.0 / tl.sqrt_rn(tl.maximum(variance, 0.0) + eps)
    mean = origin + shift  # [1]
    mean_rest = (origin - mean) + shift  # what the rounding of that sum left over
    tl.store(mean_ptr + row, mean)
    tl.store(mean_rest_ptr + row, mean_rest)
    tl.store(rstd_ptr + row, rstd)

    for start in range(0, n_features, BLOCK_FEATURES):
        features = start + tl.arange(0, BLOCK_FEATURES)
        inside = (features < n_features)[None, :]
        # Added again rather than read back: the stores of other threads need a barrier.
        x = load_summed(
            x_ptr, residual_ptr, row, features, inside, x_row_stride, x_feature_stride,
            residual_row_stride, residual_feature_stride, HAS_RESIDUAL,
        )  # fmt: skip
        if HAS_RESIDUAL:
            tl.store(tile_at(summed_ptr, row, features, n_features, 1), x, mask=inside)
        weight = tl.load(weight_ptr + features[None, :], mask=inside, other=0.0).to(tl.float32)
        bias = tl.load(bias_ptr + features[None, :], mask=inside, other=0.0).to(tl.float32)
        y = normalise(x, mean, mean_rest, rstd) * weight + bias
        tl.store(tile_at(y_ptr, row, features, n_features, 1), y, mask=inside)


@triton.autotune(WIDE_CONFIGS, key=["n_features"])
@triton.jit
def layer_norm_backward_wide_kernel(
    x_ptr,
    weight_ptr,
    mean_ptr,
    mean_rest_ptr,
    rstd_ptr,
    d_y_ptr,
    d_summed_ptr,
    d_x_ptr,
    n_features,
    x_row_stride,
    x_feature_stride,
    d_y_row_stride,
    d_y_feature_stride,
    d_summed_row_stride,
    d_summed_feature_stride,
    HAS_D_SUMMED: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
):
    """d_x of one row in blocks: first the two means that couple it, then d_x."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)  # [1]
    mean = tl.load(mean_ptr + row)  # [1]
    mean_rest = tl.load(mean_rest_ptr + row)
    rstd = tl.load(rstd_ptr + row)
    total_d = tl.zeros([1, BLOCK_FEATURES], tl.float32)  # per lane; summed once at the end
    total_coupling = tl.zeros([1, BLOCK_FEATURES], tl.float32)
    for start in range(0, n_features, BLOCK_FEATURES):
        features = start + tl.arange(0, BLOCK_FEATURES)
        inside = (features < n_features)[None, :]
        x = load_tile(x_ptr, row, features, inside, x_row_stride, x_feature_stride)
        d_y = load_tile(d_y_ptr, row, features, inside, d_y_row_stride, d_y_feature_stride)
        weight = tl.load(weight_ptr + features[None, :], mask=inside, other=0.0).to(tl.float32)
        d_normalised = d_y * weight
        total_d += d_normalised
        total_coupling += d_normalised * normalise(x, mean, mean_rest, rstd)
    mean_d = tl.sum(total_d, axis=1) / n_features  # [1]
    coupling = tl.sum(total_coupling, axis=1) / n_features

    for start in range(0, n_features, BLOCK_FEATURES):
        features = start + tl.arange(0, BLOCK_FEATURES)
        inside = (features < n_features)[None, :]
        x = load_tile(x_ptr, row, features, inside, x_row_stride, x_feature_stride)
        d_y = load_tile(d_y_ptr, row, features, inside, d_y_row_stride, d_y_feature_stride)
        weight = tl.load(weight_ptr + features[None, :], mask=inside, other=0.0).to(tl.float32)
        d_normalised = d_y * weight
        normalised = normalise(x, mean, mean_rest, rstd)
        d_x = (d_normalised - mean_d[:, None] - normalised * coupling[:, None]) * rstd[:, None]
        if HAS_D_SUMMED:
            d_x += load_tile(
                d_summed_ptr, row, features, inside, d_summed_row_stride, d_summed_feature_stride
            )
        tl.store(tile_at(d_x_ptr, row, features, n_features, 1), d_x, mask=inside)


@triton.autotune(WIDE_PARAMETERS_CONFIGS, key=["n_features"])
@triton.jit
def layer_norm_backward_parameters_kernel(
    x_ptr,
    mean_ptr,
    mean_rest_ptr,
    rstd_ptr,
    d_y_ptr,
    partial_ptr,
    n_rows,
    n_features,
    x_row_stride,
    x_feature_stride,
    d_y_row_stride,
    d_y_feature_stride,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
):
    """Sum a block of columns over every n-th tile of rows, for d_weight and d_bias."""
    features = tl.program_id(0) * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
    feature_inside = features < n_features
    d_weight = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    d_bias = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    for tile in range(tl.program_id(1), tl.cdiv(n_rows, BLOCK_ROWS), tl.num_programs(1)):
        rows = tl.cast(tile, tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        inside = (rows < n_rows)[:, None] & feature_inside[None, :]
        x = load_tile(x_ptr, rows, features, inside, x_row_stride, x_feature_stride)
        d_y = load_tile(d_y_ptr, rows, features, inside, d_y_row_stride, d_y_feature_stride)
        mean = tl.load(mean_ptr + rows, mask=rows < n_rows, other=0.0)  # [BLOCK_ROWS]
        mean_rest = tl.load(mean_rest_ptr + rows, mask=rows < n_rows, other=0.0)
        rstd = tl.load(rstd_ptr + rows, mask=rows < n_rows, other=0.0)
        d_weight += d_y * normalise(x, mean, mean_rest, rstd)
        d_bias += d_y

    d_weight_at = partial_ptr + tl.program_id(1).to(tl.int64) * 2 * n_features + features
    tl.store(d_weight_at, tl.sum(d_weight, axis=0), mask=feature_inside)
    tl.store(d_weight_at + n_features, tl.sum(d_bias, axis=0), mask=feature_inside)
