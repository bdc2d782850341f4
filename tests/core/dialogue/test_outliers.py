"""The relative Mahalanobis distance: known values, what it is for, and what it refuses."""

import numpy as np
import pytest

from gptwin.core.dialogue.outliers import (
    Gaussian,
    auroc,
    exposed,
    fit_gaussian,
    mahalanobis,
    relative_mahalanobis,
)

TILTED = Gaussian(np.zeros(2), np.array([[1, 0.8], [0.8, 1]]))


def test_the_known_values():
    states = np.array([[1.0, 1], [1, -1], [2, 0]])
    np.testing.assert_allclose(mahalanobis(states, TILTED), [1.1111, 10, 11.1111], atol=1e-4)
    np.testing.assert_allclose(
        relative_mahalanobis(states, TILTED), [-0.8889, 8, 7.1111], atol=1e-4
    )
    assert relative_mahalanobis(states[0], TILTED) == pytest.approx(-0.8889, abs=1e-4)


def test_it_ignores_a_scale_and_a_shift():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3))
    scale, shift = np.array([3.0, 0.1, 20.0]), np.array([5.0, -2.0, 0.0])
    plain = relative_mahalanobis(states, fit_gaussian(states))
    moved = states * scale + shift
    np.testing.assert_allclose(relative_mahalanobis(moved, fit_gaussian(moved)), plain, atol=1e-8)


def test_it_finds_what_goes_together_wrongly():
    rng = np.random.default_rng(1)
    common = rng.normal(size=(400, 1)) + 0.3 * rng.normal(size=(400, 4))
    apart = rng.normal(size=(400, 4))
    known = fit_gaussian(common[:200])
    scores = [relative_mahalanobis(x, known) for x in (common[200:], apart)]
    assert auroc(*scores) > 0.9


def test_a_few_outliers_show_the_direction():
    rng = np.random.default_rng(2)
    known, strange = rng.normal(size=(600, 8)), rng.normal(size=(310, 8))
    strange[:, 0] += 2
    fitted = fit_gaussian(known[:300])
    blind = auroc(relative_mahalanobis(known[300:], fitted),
                  relative_mahalanobis(strange[10:], fitted))  # fmt: skip
    shown = auroc(exposed(known[300:], fitted, strange[:10]),
                  exposed(strange[10:], fitted, strange[:10]))  # fmt: skip
    assert blind < 0.7 < 0.85 < shown


def test_auroc_counts_ties_half():
    assert auroc(np.array([0, 1, 2]), np.array([3, 4])) == 1
    assert auroc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert auroc(np.array([0, 2]), np.array([1, 2])) == pytest.approx((1 + 1.5) / 4)


def test_fewer_states_than_dimensions_need_a_ridge():
    states = np.random.default_rng(3).normal(size=(4, 6))
    with pytest.raises(ValueError, match=r"positive definite.*ridge"):
        mahalanobis(states, fit_gaussian(states))
    assert np.isfinite(mahalanobis(states, fit_gaussian(states, ridge=0.1))).all()


def test_a_gaussian_is_fitted_without_a_bias_and_the_ridge_is_a_share_of_the_mean_variance():
    states = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 7.0]])  # variances 4 and 12, together 6
    for ridge, added in ((0.0, 0.0), (0.5, 4.0)):
        found = fit_gaussian(states, ridge)
        np.testing.assert_allclose(found.mean, [2, 3])
        np.testing.assert_allclose(found.covariance, [[4 + added, 6], [6, 12 + added]])
    assert fit_gaussian(states[:, :1]).covariance.tolist() == [[4]]
    assert fit_gaussian(states[:2, :1]).covariance.tolist() == [[2]]


def test_outliers_show_how_much_nearer_a_state_is_to_their_mean():
    one = Gaussian(np.zeros(2), np.eye(2))
    found = exposed(np.array([[1.0, 0.0], [0.0, 3.0]]), one, np.array([[3.0, 1.0], [1.0, -1.0]]))
    np.testing.assert_allclose(found, [1 - 1, 9 - 13])
    assert exposed(np.array([1.0, 0.0]), one, np.array([[3.0, 0.0]])) == pytest.approx(1 - 4)


def test_what_is_refused():
    with pytest.raises(ValueError, match="two states at least"):
        fit_gaussian(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="states of another model"):
        mahalanobis(np.zeros((2, 3)), TILTED)
    with pytest.raises(ValueError, match="x: expected at least 1 dimension"):
        mahalanobis(np.array(1.0), TILTED)
    with pytest.raises(ValueError, match="states: expected floats"):
        fit_gaussian(np.zeros((3, 3), int))
    for known, strange in (([], [1.0]), ([1.0], [])):
        with pytest.raises(ValueError, match="a score of each"):
            auroc(np.array(known), np.array(strange))
    with pytest.raises(ValueError, match="outliers"):
        exposed(np.zeros((2, 2)), TILTED, np.zeros((0, 2)))
