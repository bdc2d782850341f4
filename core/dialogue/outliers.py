"""Prompts unlike those that were trained on: the relative Mahalanobis distance of a hidden state.

How far is a state x from a Gaussian fitted to the states of known prompts, with mean μ and
covariance Σ? The Mahalanobis distance alone is also large for what every unusual text shares, such
as a long state. What is left after subtracting the distance that sees each dimension by itself is
how wrongly the dimensions go together (Bai et al., arXiv 2204.05862, section 5.4, who simplify Ren
et al., arXiv 2106.09022):

    score(x) = (x − μ)ᵀ Σ⁻¹ (x − μ)  −  Σ_i (x_i − μ_i)² / Σ_ii

With correlation .8, a step of √2 along the diagonal is common and scores −.89; the same step across
it scores 8. A score above what known prompts have is a reason to refuse.

A few exposed outliers help (their 10 raise the AUROC from .85 to .94, in a way the text leaves
open). Here they are used as the second class of a linear discriminant: the same Σ, another mean,
and the score is the difference of the distances from both.
"""

from typing import NamedTuple

import numpy as np

from ..checks import expect_floats, expect_ndim, expect_shape, refuse
from ..operation import at_least_float32


class Gaussian(NamedTuple):
    """The states of known prompts: `mean` [d] and `covariance` [d, d]."""

    mean: np.ndarray
    covariance: np.ndarray


def fit_gaussian(states: np.ndarray, ridge: float = 0.0) -> Gaussian:
    """Fit a Gaussian to states.

    Parameters
    ----------
    states : numpy.ndarray [state, d]
        Two at least.
    ridge : float
        Added to each variance, as a share of the mean variance: with fewer states than dimensions
        the covariance has directions of no width, and everything lies infinitely far along them.

    Returns
    -------
    Gaussian

    Raises
    ------
    ValueError
        If there are fewer than two states.
    """
    expect_floats(states=states)
    if states.ndim != 2 or len(states) < 2:
        refuse("states", "[state, d], of two states at least", f"shape {states.shape}")
    states = states.astype(np.float64)
    covariance = np.cov(states, rowvar=False).reshape(states.shape[1], -1)
    return Gaussian(
        states.mean(axis=0),
        covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance)),
    )


@at_least_float32
def mahalanobis(x: np.ndarray, known: Gaussian) -> np.ndarray:
    """Return the squared distance of each state from a Gaussian.

    Parameters
    ----------
    x : numpy.ndarray [..., d]
    known : Gaussian

    Returns
    -------
    numpy.ndarray [...]
        In standard deviations, squared.

    Raises
    ------
    ValueError
        If the shapes differ, or the covariance has a direction without width.
    """
    expect_ndim("x", x, 1, "[..., d]")
    expect_shape("x", x, (*x.shape[:-1], len(known.mean)), "states of another model")
    try:
        root = np.linalg.cholesky(known.covariance)  # Σ = L·Lᵀ
    except np.linalg.LinAlgError:
        cause = "fewer states than dimensions: fit_gaussian with a ridge"
        refuse("covariance", "a positive definite matrix", "one that is not", cause)
    away = (x - known.mean).reshape(-1, len(known.mean))
    return (np.linalg.solve(root, away.T) ** 2).sum(axis=0).reshape(x.shape[:-1])


@at_least_float32
def relative_mahalanobis(x: np.ndarray, known: Gaussian) -> np.ndarray:
    """Return how wrongly the dimensions of each state go together.

    Parameters
    ----------
    x : numpy.ndarray [..., d]
    known : Gaussian

    Returns
    -------
    numpy.ndarray [...]
        Higher is stranger; below 0 for what goes together more than usually.

    Raises
    ------
    ValueError
        As in `mahalanobis`.
    """
    full = mahalanobis(x, known)
    alone = ((x - known.mean) ** 2 / np.diag(known.covariance)).sum(axis=-1)
    return full - alone


def exposed(x: np.ndarray, known: Gaussian, outliers: np.ndarray) -> np.ndarray:
    """Return how much nearer each state is to a few known outliers than to known prompts.

    Parameters
    ----------
    x : numpy.ndarray [..., d]
    known : Gaussian
    outliers : numpy.ndarray [outlier, d]
        One at least.

    Returns
    -------
    numpy.ndarray [...]
        The squared distance from the known mean minus that from the outliers', by the same Σ.
    """
    expect_shape("outliers", outliers, (max(len(outliers), 1), len(known.mean)))
    return mahalanobis(x, known) - mahalanobis(x, known._replace(mean=outliers.mean(axis=0)))


def auroc(known: np.ndarray, strange: np.ndarray) -> float:
    """Return how often a strange one scores above a known one; equal scores count half.

    Parameters
    ----------
    known, strange : numpy.ndarray [score]
        One of each at least.

    Returns
    -------
    float
        ½ is a guess.
    """
    if len(known) == 0 or len(strange) == 0:
        refuse("known, strange", "a score of each", f"{len(known)} and {len(strange)}")
    ordered = np.sort(known)
    below = np.searchsorted(ordered, strange, side="left")
    at_most = np.searchsorted(ordered, strange, side="right")
    return float((below + at_most).mean() / (2 * len(known)))
