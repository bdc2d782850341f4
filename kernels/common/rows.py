"""Device functions for a tile of rows: where it lies, how it is loaded, how it is normalised.

A tile is [BLOCK_ROWS, BLOCK_FEATURES]; `rows` are int64 [BLOCK_ROWS], `features` [BLOCK_FEATURES].
"""

from ._triton import tl, triton


@triton.jit
def tile_at(ptr, rows, features, row_stride, feature_stride):
    """Point at these rows' features.

    int64: row times stride passes 2^31 long before memory runs out, and so does feature times
    stride in a transposed matrix.
    """
    feature_offsets = features.to(tl.int64) * feature_stride
    return ptr + rows[:, None] * row_stride + feature_offsets[None, :]


@triton.jit
def load_tile(ptr, rows, features, inside, row_stride, feature_stride):
    """Load as float32; 0 outside the tensor."""
    at = tile_at(ptr, rows, features, row_stride, feature_stride)
    return tl.load(at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def load_summed(
    x_ptr,
    residual_ptr,
    rows,
    features,
    inside,
    x_row_stride,
    x_feature_stride,
    residual_row_stride,
    residual_feature_stride,
    HAS_RESIDUAL: tl.constexpr,
):
    """Load x, or x + residual rounded as it is stored, as float32; 0 outside the tensor."""
    x = load_tile(x_ptr, rows, features, inside, x_row_stride, x_feature_stride)
    if HAS_RESIDUAL:
        x += load_tile(
            residual_ptr, rows, features, inside, residual_row_stride, residual_feature_stride
        )
        # Rounded before the statistics: backward, too, sees the sum as it was stored.
        x = x.to(x_ptr.dtype.element_ty).to(tl.float32)
    return x


@triton.jit
def normalise(x, mean, mean_rest, rstd):
    """Shift and scale each row by its statistics, [BLOCK_ROWS] each."""
    return (x - mean[:, None] - mean_rest[:, None]) * rstd[:, None]
