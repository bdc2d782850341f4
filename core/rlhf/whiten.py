"""Whitening: move and scale a batch's numbers to mean 0 and variance 1, over the mask alone.

    whiten(x) = (x − μ) / sqrt(σ² + 1e-8)   (+ μ if the mean is not to be shifted)

μ and σ² are over all elements inside the mask, of every row together. σ² divides by n (biased) or
by n − 1 (unbiased). PPO whitens advantages with the shift, and lm-human-preferences whitens rewards
without it.

Edge semantics, the same in both twins: outside the mask the result and the gradient are 0, whatever
is there; inside it an infinity or NaN is refused, as it would spoil every element; an empty mask
gives all zeros; the unbiased variance of a single element is taken as 0, so that one element gives
0 (or, not shifted, itself).
"""

from typing import Any

import numpy as np

from ..checks import expect_finite, expect_floats, expect_shape
from ..masking import expect_mask
from ..operation import at_least_float32, value_of

EPSILON = 1e-8

Saved = tuple[np.ndarray, np.ndarray, Any, int, int, bool]


@at_least_float32
def whiten_forward(
    x: np.ndarray, mask: np.ndarray, *, shift_mean: bool = True, unbiased: bool = True
) -> tuple[np.ndarray, Saved]:
    """Whiten the elements inside the mask.

    Parameters
    ----------
    x : numpy.ndarray [...]
        Advantages, or rewards.
    mask : numpy.ndarray of bool [...]
        True at the elements that count.
    shift_mean : bool
        Whether the result has mean 0; otherwise it keeps its mean.
    unbiased : bool
        Whether the variance divides by n − 1 instead of n.

    Returns
    -------
    whitened : numpy.ndarray [...]
        0 outside the mask.
    saved : tuple
        For `whiten_backward`.

    Raises
    ------
    ValueError
        If the mask's dtype or shape is wrong, or an element inside it is not finite.
    """
    check_whiten(x, mask)
    expect_finite("x", x, mask)
    n = int(mask.sum())
    degrees = n - 1 if unbiased else n  # of freedom
    x = np.where(mask, x, 0)
    mean = x.sum() / max(n, 1)
    centred = np.where(mask, x - mean, 0)
    # This takes two passes: the mean of squares minus the square of the mean would cancel.
    variance = (centred * centred).sum() / max(degrees, 1)
    inverse_std = 1 / np.sqrt(variance + EPSILON)
    normalised = centred * inverse_std
    whitened = normalised if shift_mean else np.where(mask, normalised + mean, 0)
    return whitened, (normalised, mask, inverse_std, n, degrees, shift_mean)


whiten = value_of(whiten_forward)


@at_least_float32
def whiten_backward(saved: Saved, d_whitened: np.ndarray) -> np.ndarray:
    """Carry the gradient back to x, through the mean and the variance.

    With x̂ = (x − μ)/sqrt(σ² + ε) and the means over the mask,
    d_x = (d − mean(d) − x̂·Σ d·x̂ / degrees) / sqrt(σ² + ε), plus mean(d) if the mean stays.

    Parameters
    ----------
    saved : tuple
        From `whiten_forward`.
    d_whitened : numpy.ndarray [...]
        Gradient of the loss with respect to the result.

    Returns
    -------
    numpy.ndarray [...]
        Gradient with respect to `x`; 0 outside the mask.

    Raises
    ------
    ValueError
        If `d_whitened` has another shape than the result.
    """
    normalised, mask, inverse_std, n, degrees, shift_mean = saved
    expect_shape("d_whitened", d_whitened, normalised.shape)
    d = np.where(mask, d_whitened, 0)
    mean = d.sum() / max(n, 1)
    along = (d * normalised).sum() / max(degrees, 1)
    d_x = inverse_std * (d - mean - normalised * along)
    return np.where(mask, d_x if shift_mean else d_x + mean, 0)


def check_whiten(x: Any, mask: Any) -> None:
    """Refuse arguments that `whiten` has no meaning for."""
    expect_floats(x=x)
    expect_mask("mask", mask, x.shape, "x")
