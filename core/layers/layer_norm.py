"""Layer norm: every row shifted to mean 0, scaled to variance 1, then to a learned scale and shift.

    y = (x − μ) · r · weight + bias,   μ = mean(x),   r = 1/√(variance + ε)

with mean and *biased* variance (divided by d_model) over the last axis (Ba, Kiros & Hinton 2016,
arXiv 1607.06450, equation 4). A transformer block adds a branch to the residual stream and
normalises the sum; given `residual`, this operation does both and returns (y, summed), because the
sum itself goes on along the stream.

Backward. With x̂ = (x − μ)·r and g = d_y · weight, each element reaches the loss through itself,
the mean and the variance:

    d_x = r · (g − mean(g) − x̂ · mean(g · x̂)),   d_weight = Σ_rows d_y · x̂,   d_bias = Σ_rows d_y

so two numbers per row couple its elements, and d_x has mean 0 and no component along x̂: moving a
row along either direction leaves y as it is (up to ε).

The file climbs: `row_statistics` is the definition, in two passes: the mean, then the squares of
what is left. E[x²] − E[x]² needs only one, but subtracts two large numbers: at mean 10⁴ float32
has no digit left. `row_statistics_tiled` is sound in one pass, as the kernel needs for long rows:
it measures from an origin close to the mean.

Edge semantics, the same in both twins: an empty batch gives an empty result and zero gradients of
weight and bias; a constant row has variance 0 and gives y = bias; a NaN or an infinity makes its
row NaN; a row whose squares are beyond float32, such as one of 1e30, is normalised like any other
(but for eager's under torch.compile); d_model = 0 is refused, for a mean of nothing does not exist.
"""

from typing import Any

import numpy as np

from ..checks import expect_floats, expect_ndim, expect_positive, expect_shape, refuse
from ..operation import at_least_float32, value_of

Saved = tuple[np.ndarray, np.ndarray, np.ndarray, bool]


@at_least_float32
def layer_norm_forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    *,
    residual: np.ndarray | None = None,
    eps: float = 1e-5,
) -> tuple[np.ndarray | tuple[np.ndarray, np.ndarray], Saved]:
    """Normalise each row of `x`, or of `x + residual`: the definition.

    Parameters
    ----------
    x : numpy.ndarray [..., d_model]
        The rows; d_model at least 1.
    weight, bias : numpy.ndarray [d_model]
        Scale and shift of each feature.
    residual : numpy.ndarray [..., d_model], optional
        Added to `x` first; shaped exactly like it.
    eps : float
        Added to the variance; finite and above 0.

    Returns
    -------
    y : numpy.ndarray [..., d_model]
        The normalised rows.
    summed : numpy.ndarray [..., d_model]
        x + residual; only if `residual` is given.
    saved : tuple
        For `layer_norm_backward`: the normalised rows, 1/√(variance + ε) of each, the weight, and
        whether there was a residual.

    Raises
    ------
    ValueError
        If a shape or `eps` is wrong.
    """
    check_layer_norm(x, weight, bias, residual, eps)
    eps = float(eps)  # a NumPy float64 scalar would promote a float32 model
    summed = x if residual is None else x + residual
    mean, variance = row_statistics(summed)  # 2 x [..., 1]
    rstd = (1 / np.sqrt(variance + eps)).astype(summed.dtype, copy=False)
    normalised = (summed - mean) * rstd  # [..., d_model]
    y = normalised * weight + bias
    saved = (normalised, rstd, weight, residual is not None)
    return (y if residual is None else (y, summed)), saved


layer_norm = value_of(layer_norm_forward)


@at_least_float32
def layer_norm_backward(
    saved: Saved, d_y: np.ndarray, d_summed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Carry the gradient from the results back to the inputs.

    Parameters
    ----------
    saved : tuple
        From `layer_norm_forward`.
    d_y : numpy.ndarray [..., d_model]
        Gradient of the loss with respect to y.
    d_summed : numpy.ndarray [..., d_model], optional
        Gradient with respect to the sum that was returned beside y; None is 0.

    Returns
    -------
    d_x : numpy.ndarray [..., d_model]
    d_weight, d_bias : numpy.ndarray [d_model]
    d_residual : numpy.ndarray [..., d_model] or None
        Equal to `d_x`, for a sum hands its gradient to both terms; None if there was no residual.

    Raises
    ------
    ValueError
        If a gradient is not shaped like its result, or `d_summed` is given though no sum was
        returned.
    """
    normalised, rstd, weight, has_residual = saved
    expect_shape("d_y", d_y, normalised.shape)
    d_normalised = d_y * weight  # [..., d_model]
    mean_d = d_normalised.mean(axis=-1, keepdims=True)  # [..., 1]
    coupling = (d_normalised * normalised).mean(axis=-1, keepdims=True)  # [..., 1]
    d_x = (d_normalised - mean_d - normalised * coupling) * rstd
    if d_summed is not None:
        if not has_residual:
            refuse("d_summed", "None without a residual", "an array", "only y was returned")
        expect_shape("d_summed", d_summed, normalised.shape)
        d_x = d_x + d_summed

    # [..., d_model] -> [row, d_model] -> [d_model]: every row used the same weight and bias
    d_model = weight.shape[0]
    d_weight = (d_y * normalised).reshape(-1, d_model).sum(axis=0)
    d_bias = d_y.reshape(-1, d_model).sum(axis=0)
    return d_x, d_weight, d_bias, d_x if has_residual else None


def row_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance of each row, [..., 1]: the definition, in two passes.

    The squares are float64: those of 1.8e19 are beyond float32, and the result is not.
    """
    mean = x.mean(axis=-1, keepdims=True)
    variance = np.square(x - mean, dtype=np.float64).mean(axis=-1, keepdims=True)
    return mean, variance


@at_least_float32
def row_statistics_tiled(x: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the rows' mean and variance with one pass over blocks, as the kernel does.

    Distances c = x − origin are small when the origin is near the mean, and then
    variance = E[c²] − E[c]² cancels little. The first block's mean is near enough: if that block
    is a share f of the row, then E[c]² ≤ variance · (1 − f)/f whatever the row holds, since blocks
    that lie far from the first one make the variance large too.
    """
    expect_positive("block", block)
    d_model = x.shape[-1]
    origin = x[..., :block].mean(axis=-1, keepdims=True)  # [..., 1]
    total = np.zeros_like(origin)
    total_squares = np.zeros_like(origin)
    for start in range(0, d_model, block):
        distance = x[..., start : start + block] - origin  # [..., block]
        total += distance.sum(axis=-1, keepdims=True)
        total_squares += np.square(distance).sum(axis=-1, keepdims=True)
    shift = total / d_model
    return origin + shift, np.maximum(total_squares / d_model - np.square(shift), 0)


def check_layer_norm(x: Any, weight: Any, bias: Any, residual: Any, eps: float) -> None:
    """Refuse arguments that `layer_norm` has no meaning for."""
    expect_floats(x=x, weight=weight, bias=bias, residual=residual)
    expect_ndim("x", x, 1, "[..., d_model]")
    d_model = x.shape[-1]
    if d_model == 0:
        refuse(
            "x",
            "at least 1 feature on the last axis",
            f"shape {tuple(x.shape)}",
            "an empty slice; a mean of nothing does not exist",
        )
    expect_shape("weight", weight, (d_model,), "[d_model] of x, its last axis")
    expect_shape("bias", bias, (d_model,), "[d_model] of x, its last axis")
    if residual is not None:
        expect_shape("residual", residual, x.shape, "a residual is not broadcast to x")
    expect_positive("eps", eps)
