"""Layer norm's kernels for wide rows, which do not fit in one program's registers.

Mathematics, memory and numbers: layer_norm.py, which launches these.

Tiling. A row is walked in blocks, and walked twice: forward's y needs the whole row's statistics,
backward's d_x two means over the row. d_weight and d_bias are sums down the columns instead, and
get a kernel of their own, whose programs stay in one block of columns.

    forward, and backward's d_x               backward's d_weight, d_bias
    one program = one row                     one program = ⌈tiles / n⌉ of a block of columns
    ┌───────┬───────┬───────┬──┐              ┌───────┬───────┬───────┬──┐
    │ ──────► its statistics   │ pass 1       │ 0,0   │ 1,0   │ 2,0   │  │  n = 2: programs (·, 0)
    ├───────┼───────┼───────┼──┤              ├───────┼───────┼───────┼──┤  have the first tiles,
    │ ──────► y, or d_x        │ pass 2       │ 0,0   │ 1,0   │ 2,0   │  │  (·, 1) the rest
    └───────┴───────┴───────┴──┘              ├───────┼───────┼───────┼──┤
                                              │ 0,1   │ 1,1   │ 2,1   │  │
                                              └───────┴───────┴───────┴──┘
                                                ▼ partial[1] and so on: a row of partial sums
"""

from ..common._triton import tl, triton
from ..common.rows import (
    SMALL,
    Statistics,
    contiguous,
    is_too_large,
    load_statistics,
    load_summed,
    load_tile,
    normalise,
    reciprocal_root,
    reciprocal_root_of_small,
)
from ..common.strided import block_at

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
    x,  # all as in layer_norm_forward_kernel
    residual,
    weight_ptr,
    bias_ptr,
    y_ptr,
    summed_ptr,
    statistics,
    n_rows,
    n_features,
    eps,
    BLOCK_FEATURES: tl.constexpr,
):
    """Layer norm of one row in blocks: `row_statistics_tiled`, then a pass that writes."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)  # [1]
    features = tl.arange(0, BLOCK_FEATURES)
    first = load_summed(x, residual, row, features, (features < n_features)[None, :])
    origin = tl.sum(first, axis=1) / tl.minimum(n_features, BLOCK_FEATURES)  # [1]
    total = tl.zeros([1, BLOCK_FEATURES], tl.float32)  # per lane; summed once at the end
    total_squares = tl.zeros([1, BLOCK_FEATURES], tl.float32)
    for start in range(0, n_features, BLOCK_FEATURES):
        features = start + tl.arange(0, BLOCK_FEATURES)
        inside = (features < n_features)[None, :]
        x_tile = load_summed(x, residual, row, features, inside)
        distance = tl.where(inside, x_tile - origin[:, None], 0.0)
        total += distance
        total_squares += distance * distance
    shift = tl.sum(total, axis=1) / n_features
    variance = tl.sum(total_squares, axis=1) / n_features - shift * shift
    rstd = reciprocal_root(variance, eps)
    too_large = is_too_large(variance)
    if tl.max(too_large.to(tl.int32), axis=0) > 0:
        total_squares = tl.zeros([1, BLOCK_FEATURES], tl.float32)
        for start in range(0, n_features, BLOCK_FEATURES):
            features = start + tl.arange(0, BLOCK_FEATURES)
            inside = (features < n_features)[None, :]
            x_tile = load_summed(x, residual, row, features, inside)
            small = tl.where(inside, x_tile - origin[:, None], 0.0) * SMALL
            total_squares += small * small
        small_shift = shift * SMALL
        variance = tl.sum(total_squares, axis=1) / n_features - small_shift * small_shift
        rstd = reciprocal_root_of_small(variance)
    mean = origin + shift  # [1]
    mean_rest = (origin - mean) + shift  # what the rounding of that sum left over
    found = Statistics(mean, mean_rest, rstd)
    tl.store(statistics.mean + row, mean)
    tl.store(statistics.mean_rest + row, mean_rest)
    tl.store(statistics.rstd + row, rstd)

    for start in range(0, n_features, BLOCK_FEATURES):
        features = start + tl.arange(0, BLOCK_FEATURES)
        inside = (features < n_features)[None, :]
        # We add again: to read what other threads stored would need a barrier.
        x_tile = load_summed(x, residual, row, features, inside)
        if residual is not None:
            summed_at = block_at(contiguous(summed_ptr, n_features), row, features)
            tl.store(summed_at, x_tile, mask=inside)
        weight = tl.load(weight_ptr + features[None, :], mask=inside, other=0.0).to(tl.float32)
        bias = tl.load(bias_ptr + features[None, :], mask=inside, other=0.0).to(tl.float32)
        normed = normalise(x_tile, found) * weight + bias
        tl.store(block_at(contiguous(y_ptr, n_features), row, features), normed, mask=inside)


@triton.autotune(WIDE_CONFIGS, key=["n_features"])
@triton.jit
def layer_norm_backward_wide_kernel(
    x,  # all as in layer_norm_backward_kernel
    d_y,
    d_summed,
    weight_ptr,
    statistics,
    d_x_ptr,
    n_features,
    BLOCK_FEATURES: tl.constexpr,
):
    """d_x of one row in blocks: first the two means that couple it, then d_x."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)  # [1]
    mean = tl.load(statistics.mean + row)  # [1]
    mean_rest = tl.load(statistics.mean_rest + row)
    found = Statistics(mean, mean_rest, tl.load(statistics.rstd + row))
    total_d = tl.zeros([1, BLOCK_FEATURES], tl.float32)  # per lane; summed once at the end
    total_coupling = tl.zeros([1, BLOCK_FEATURES], tl.float32)
    for start in range(0, n_features, BLOCK_FEATURES):
        features = start + tl.arange(0, BLOCK_FEATURES)
        inside = (features < n_features)[None, :]
        x_tile = load_tile(x, row, features, inside)
        d_y_tile = load_tile(d_y, row, features, inside)
        weight = tl.load(weight_ptr + features[None, :], mask=inside, other=0.0).to(tl.float32)
        d_normalised = d_y_tile * weight
        total_d += d_normalised
        total_coupling += d_normalised * normalise(x_tile, found)
    mean_d = tl.sum(total_d, axis=1) / n_features  # [1]
    coupling = tl.sum(total_coupling, axis=1) / n_features

    for start in range(0, n_features, BLOCK_FEATURES):
        features = start + tl.arange(0, BLOCK_FEATURES)
        inside = (features < n_features)[None, :]
        x_tile = load_tile(x, row, features, inside)
        d_y_tile = load_tile(d_y, row, features, inside)
        weight = tl.load(weight_ptr + features[None, :], mask=inside, other=0.0).to(tl.float32)
        d_normalised = d_y_tile * weight
        normalised = normalise(x_tile, found)
        d_x_tile = d_normalised - mean_d[:, None] - normalised * coupling[:, None]
        d_x_tile = d_x_tile * found.rstd[:, None]
        if d_summed is not None:
            d_x_tile += load_tile(d_summed, row, features, inside)
        tl.store(block_at(contiguous(d_x_ptr, n_features), row, features), d_x_tile, mask=inside)


@triton.autotune(WIDE_PARAMETERS_CONFIGS, key=["n_features"])
@triton.jit
def layer_norm_backward_parameters_kernel(
    x,
    d_y,
    statistics,
    partial_ptr,
    n_rows,
    n_features,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
):
    """Sum a block of columns over neighbouring tiles of rows, for d_weight and d_bias."""
    features = tl.program_id(0) * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
    feature_inside = features < n_features
    d_weight = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    d_bias = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    n_tiles = tl.cdiv(n_rows, BLOCK_ROWS)
    n_own = tl.cdiv(n_tiles, tl.num_programs(1))
    first = tl.program_id(1).to(tl.int64) * n_own
    for tile in range(first, tl.minimum(first + n_own, n_tiles)):
        rows = tl.cast(tile, tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        inside = (rows < n_rows)[:, None] & feature_inside[None, :]
        x_tile = load_tile(x, rows, features, inside)
        d_y_tile = load_tile(d_y, rows, features, inside)
        found = load_statistics(statistics, rows, rows < n_rows)
        d_weight += d_y_tile * normalise(x_tile, found)
        d_bias += d_y_tile

    d_weight_at = partial_ptr + tl.program_id(1).to(tl.int64) * 2 * n_features + features
    tl.store(d_weight_at, tl.sum(d_weight, axis=0), mask=feature_inside)
    tl.store(d_weight_at + n_features, tl.sum(d_bias, axis=0), mask=feature_inside)
