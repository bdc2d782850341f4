"""The error budget: how far a result may be from the truth, and how far it is.

The budget is honest in that nobody chooses it. Inputs are first quantised to the dtype; the truth
is the NumPy reference in float64 on those same values. An element may then be off by

    multiple · (worst error of PyTorch's eager implementation in the same dtype)
    + one rounding of the element to the dtype
    + `Twin.roundings` · (how far the truth moves when every input moves by one float32 rounding,
                          + one float32 rounding of the tensor's largest entry)
    + in gradients, one rounding of the tensor's largest entry for each unit of `Twin.exponent`
    + in gradients, how far the truth moves when backward reads `Twin.kept` as it was rounded

with multiple 2 for results and 3 for gradients. The terms in float32's roundings are what any
correct float32 computation may do, and matter in float32 alone: on a handful of numbers eager's own
error can be zero by luck. Where "tf32" is asked for, its rounding takes float32's place there. The
last term matters in half precision. Where the truth is finite the result must be finite; where it
is infinite or NaN the result must be the same. Integers, such as drawn tokens, must be equal.
"""

import dataclasses

import numpy as np
import torch

RESULT_MULTIPLE, GRADIENT_MULTIPLE = 2.0, 3.0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How one result or gradient compares with the truth.

    Attributes
    ----------
    name : str
        The result, or "d_" and the argument.
    share : float
        The worst element's error over its budget; above 1 is a disagreement.
    index : tuple of int
        The first element beyond its budget, or the worst one if none is.
    expected, actual, allowed : float
        At that index.
    n_wrong, n_elements : int
        Elements beyond their budget, and all.
    """

    name: str
    share: float
    index: tuple[int, ...]
    expected: float
    actual: float
    allowed: float
    n_wrong: int
    n_elements: int


def compare(
    name: str,
    truth: np.ndarray,
    eager: np.ndarray,
    actual: np.ndarray,
    dtype: str,
    noise: float,
    error_elsewhere: float = 0.0,
) -> Comparison:
    """Measure a result against its budget, element by element.

    Parameters
    ----------
    name : str
        Of the result or gradient; a gradient starts with "d_".
    truth, eager, actual : numpy.ndarray
        Same shape, float64.
    dtype : str
        What the kernel computed in.
    noise : float
        What correct arithmetic may differ by.
    error_elsewhere : float
        Eager's worst error on more draws of the same case, where `eager` alone may be luck.

    Returns
    -------
    Comparison
    """
    if actual.shape != truth.shape:
        return Comparison(name, np.inf, (), np.nan, np.nan, 0.0, truth.size, truth.size)
    if truth.size == 0:
        return Comparison(name, 0.0, (), 0.0, 0.0, 0.0, 0, 0)
    shape, whole = truth.shape, truth.dtype.kind in "iu"
    # floats even of integers, and scalars can be indexed
    truth, eager, actual = (np.atleast_1d(a).astype(np.float64) for a in (truth, eager, actual))
    multiple = GRADIENT_MULTIPLE if name.startswith("d_") else RESULT_MULTIPLE
    finite = np.isfinite(truth)
    magnitude = np.abs(np.where(finite, truth, 0))
    with np.errstate(invalid="ignore"):  # inf - inf
        eager_error = max(worst_error(eager, truth), error_elsewhere)
        error = np.abs(np.where(finite, actual - truth, 0))
    info = torch.finfo(getattr(torch, dtype))
    allowed = (
        multiple * eager_error
        + magnitude * (info.eps / 2)
        + noise
        + info.smallest_normal * info.eps  # one step between denormals
    )
    error[np.isnan(error)] = np.inf  # the truth is finite, the result is not
    same = (actual == truth) | (np.isnan(actual) & np.isnan(truth))
    error[~finite & ~same] = np.inf
    if whole:
        allowed = np.full(truth.shape, 0.5)  # integers are equal or wrong
    share = error / allowed
    wrong = share > 1
    flat = int(np.argmax(wrong)) if wrong.any() else int(np.argmax(share))
    return Comparison(
        name,
        float(share.max()),
        tuple(int(i) for i in np.unravel_index(flat, shape)),
        float(truth.flat[flat]),
        float(actual.flat[flat]),
        float(allowed.flat[flat]),
        int(wrong.sum()),
        truth.size,
    )


def worst_error(actual: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest finite error where the truth is finite."""
    with np.errstate(invalid="ignore"):  # inf - inf
        return largest(np.where(np.isfinite(truth), actual - truth, 0))


def largest(array: np.ndarray) -> float:
    """Return the largest finite magnitude; 0 if there is none."""
    return float(np.abs(np.where(np.isfinite(array), array, 0)).max(initial=0.0))
