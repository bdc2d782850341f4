"""The reference exact KL: known values, the estimators' expectation, and an equal climb."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.rlhf.exact_kl import (
    exact_kl,
    exact_kl_backward,
    exact_kl_forward,
    exact_kl_online,
)
from gptwin.core.rlhf.kl import kl

POLICY = np.array([0.4, 0.3, 0.2, 0.1])
REFERENCE = np.array([0.5, 0.25, 0.125, 0.125])
ONE = np.array(True)
INF = np.inf
rows = st.tuples(
    st.integers(1, 4), st.integers(1, 40), st.sampled_from([1.0, 10.0]), st.integers(0, 10**6)
)


def draw(n_rows, vocab, std, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, std, (2, n_rows, vocab))
    return x, y, rng.random(n_rows) < 0.8


def test_the_published_vector_is_the_estimators_expectation():
    exact = exact_kl(np.log(POLICY) + 7, np.log(REFERENCE) - 3, ONE)
    assert exact == pytest.approx(0.0371254, abs=5e-8)
    for estimator in ("k1", "k3"):
        sampled = kl(np.log(POLICY), np.log(REFERENCE), np.ones(4, bool), estimator=estimator)
        assert POLICY @ sampled == pytest.approx(exact, abs=1e-14)


@given(rows, st.integers(1, 45), st.booleans())
def test_online_equals_definition(case, block, holes):
    x, y, mask = draw(*case)
    if holes:
        gone = np.random.default_rng(case[3] + 1).random(x.shape)
        x, y = np.where(gone < 0.5, -INF, x), np.where(gone < 0.4, -INF, y)
    np.testing.assert_allclose(exact_kl_online(x, y, mask, block), exact_kl(x, y, mask), atol=1e-12)


@given(rows, st.floats(-1e4, 1e4))
def test_never_negative_and_zero_of_equal_rows(case, shift):
    x, y, mask = draw(*case)
    assert (exact_kl(x, y, mask) >= 0).all()
    np.testing.assert_array_equal(exact_kl(x, x, mask), 0)
    np.testing.assert_allclose(exact_kl(x, x + shift, mask), 0, atol=1e-10)


@given(rows)
def test_gradients_by_differences(case):
    x, y, mask = draw(case[0], min(case[1], 6), 1.0, case[3])
    rng, h = np.random.default_rng(case[3] + 1), 1e-6
    d, way = rng.normal(size=mask.shape), rng.normal(size=(2, *x.shape))
    _, saved = exact_kl_forward(x, y, mask)
    d_x, d_y = exact_kl_backward(saved, d)
    sides = [(exact_kl(x + s * way[0], y + s * way[1], mask) * d).sum() for s in (h, -h)]
    expected = (sides[0] - sides[1]) / (2 * h)
    assert (d_x * way[0]).sum() + (d_y * way[1]).sum() == pytest.approx(expected, abs=1e-6)
    # A common shift of a row's logits changes nothing, so each row's gradient sums to 0.
    np.testing.assert_allclose(d_x.sum(-1), 0, atol=1e-12)
    np.testing.assert_allclose(d_y.sum(-1), 0, atol=1e-12)


@pytest.mark.parametrize("form", [exact_kl, lambda x, y, m: exact_kl_online(x, y, m, 2)])
@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([0, 0, -INF, -INF], [0, 0, 0, 0], np.log(2)),
        ([-INF, -INF, 0, 0], [-INF, -INF, 0, 0], 0),
        ([0, 0, 0, 0], [0, 0, 0, -INF], INF),
        ([0, -5000, 0, 0], [0, -INF, 0, 0], INF),  # any probability, even one that underflows
        ([-INF] * 4, [0, 0, 0, 0], 0),
        ([-INF] * 4, [-INF] * 4, 0),
        ([0, 0, 0, 0], [-INF] * 4, INF),
        ([np.nan, 0, 0, 0], [0, 0, 0, -INF], np.nan),
        ([0, 0, 0, INF], [0, 0, 0, 0], np.nan),
        ([0, 0, 0, 0], [0, 0, 0, np.nan], np.nan),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_infinite_logits(form, x, y, expected):
    got = form(np.array(x, float), np.array(y, float), ONE)
    np.testing.assert_allclose(got, expected, atol=1e-15)


def test_gradients_at_infinite_logits():
    x = np.array([[0.0, 1.0, -INF], [-INF] * 3, [0.0, 0.0, 0.0]])
    y = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, -INF]])
    _, saved = exact_kl_forward(x, y, np.ones(3, bool))
    d_x, d_y = exact_kl_backward(saved, np.ones(3))
    assert d_x[0, 2] == 0 and np.isfinite(d_x[0]).all() and (d_y[0] != 0).all()
    assert not d_x[1].any() and not d_y[1].any()
    assert np.isnan(d_x[2]).all() and np.isnan(d_y[2]).all()


@pytest.mark.parametrize("junk", [np.nan, INF, -INF])
def test_masked_rows_are_zero_whatever_they_hold(junk):
    x, y = np.full((2, 3), junk), np.full((2, 3), junk)
    x[0], y[0] = [0, 1, 2], [2, 1, 0]
    result, saved = exact_kl_forward(x, y, np.array([True, False]))
    gradients = exact_kl_backward(saved, np.array([1.0, junk]))
    assert result[1] == 0 and result[0] > 0
    assert all(not g[1].any() and g[0].any() for g in gradients)


def test_float32_stays_float32():
    x = np.zeros((2, 3), np.float32)
    mask = np.ones(2, bool)
    result, saved = exact_kl_forward(x, x + np.arange(3, dtype=np.float32), mask)
    assert result.dtype == exact_kl_online(x, x, mask, 2).dtype == np.float32
    assert all(g.dtype == np.float32 for g in exact_kl_backward(saved, result))


def test_bad_arguments_are_named():
    x, mask = np.zeros((2, 3)), np.ones(2, bool)
    with pytest.raises(ValueError, match=r"reference_logits: expected shape \(2, 3\)"):
        exact_kl(x, np.zeros((2, 4)), mask)
    with pytest.raises(ValueError, match=r"mask: expected shape \(2,\)"):
        exact_kl(x, x, np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="mask: expected dtype bool"):
        exact_kl(x, x, np.ones(2))
    with pytest.raises(ValueError, match="logits: expected a vocabulary of at least 1"):
        exact_kl(x[:, :0], x[:, :0], mask)
    with pytest.raises(ValueError, match="logits: expected at least 1 dimensions"):
        exact_kl(np.array(0.0), np.array(0.0), ONE)
    with pytest.raises(ValueError, match=r"d_kl: expected shape \(2,\)"):
        exact_kl_backward(exact_kl_forward(x, x, mask)[1], np.zeros(3))
