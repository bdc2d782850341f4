"""The reference whitening: the published vectors, its moments and its gradient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.rlhf.whiten import whiten, whiten_backward, whiten_forward

VECTOR = np.array([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]])
BIASED = [[0.0508, 0.4381, 0.8254], [1.2127, 1.6, 1.9873], [2.3746, 2.7619, 3.1492]]
UNBIASED = [[0.1394, 0.5046, 0.8697], [1.2349, 1.6, 1.9651], [2.3303, 2.6954, 3.0606]]
both = pytest.mark.parametrize("unbiased", [False, True])
either = pytest.mark.parametrize("shift_mean", [False, True])


@pytest.mark.parametrize(("unbiased", "expected"), [(False, BIASED), (True, UNBIASED)])
def test_the_published_vectors(unbiased, expected):
    every = np.ones((3, 3), bool)
    kept = whiten(VECTOR, every, shift_mean=False, unbiased=unbiased)
    np.testing.assert_allclose(kept, expected, atol=5.1e-5)
    shifted = whiten(VECTOR, every, unbiased=unbiased)
    np.testing.assert_allclose(shifted, kept - 1.6, atol=1e-12)


@given(st.integers(2, 40), st.integers(0, 10**6), st.floats(-1e6, 1e6), st.booleans())
def test_moments(n, seed, offset, unbiased):
    rng = np.random.default_rng(seed)
    x, mask = rng.normal(offset, 3, (2, n)), rng.random((2, n)) < 0.7
    mask[0, :2] = True
    w = whiten(x, mask, unbiased=unbiased)[mask]
    assert w.mean() == pytest.approx(0, abs=1e-7)
    assert w.var(ddof=int(unbiased)) == pytest.approx(1, abs=1e-3)


@both
@either
def test_gradient_by_differences(unbiased, shift_mean):
    rng, h = np.random.default_rng(1), 1e-6
    x, d, mask = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.random((3, 4)) < 0.6
    options = {"shift_mean": shift_mean, "unbiased": unbiased}
    gradient = whiten_backward(whiten_forward(x, mask, **options)[1], d)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        sides = [(whiten(x + s, mask, **options) * d).sum() for s in (step, -step)]
        assert gradient[index] == pytest.approx((sides[0] - sides[1]) / (2 * h), abs=1e-7)


@both
@either
@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_masked_junk_leaks_neither_forward_nor_back(unbiased, shift_mean, junk):
    x, mask = np.array([1.0, junk, 3.0, junk]), np.array([True, False, True, False])
    options = {"shift_mean": shift_mean, "unbiased": unbiased}
    result, saved = whiten_forward(x, mask, **options)
    gradient = whiten_backward(saved, np.where(mask, [1.0, 0, -2.0, 0], junk))
    alone, saved_alone = whiten_forward(x[mask], mask[mask], **options)
    np.testing.assert_array_equal(result[mask], alone)
    np.testing.assert_array_equal(
        gradient[mask], whiten_backward(saved_alone, np.array([1.0, -2.0]))
    )
    assert not result[~mask].any() and not gradient[~mask].any()


@both
@either
def test_one_element_and_none(unbiased, shift_mean):
    options = {"shift_mean": shift_mean, "unbiased": unbiased}
    x, d = np.array([5.0, np.nan]), np.array([2.0, np.nan])
    result, saved = whiten_forward(x, np.array([True, False]), **options)
    np.testing.assert_array_equal(result, [0 if shift_mean else 5, 0])
    np.testing.assert_array_equal(whiten_backward(saved, d), [0 if shift_mean else 2, 0])
    result, saved = whiten_forward(x, np.array([False, False]), **options)
    assert not result.any() and not whiten_backward(saved, d).any()
    result, saved = whiten_forward(x[:0], np.zeros(0, bool), **options)
    assert result.shape == whiten_backward(saved, d[:0]).shape == (0,)


@both
@either
def test_equal_elements_are_not_blown_up(unbiased, shift_mean):
    result, saved = whiten_forward(
        np.full(8, 2.0), np.ones(8, bool), shift_mean=shift_mean, unbiased=unbiased
    )
    np.testing.assert_array_equal(result, np.full(8, 0.0 if shift_mean else 2.0))
    assert np.isfinite(whiten_backward(saved, np.arange(8.0))).all()


@both
@either
def test_float32_stays_float32_and_finite_at_1e6(unbiased, shift_mean):
    x = np.array([1e6, -1e6, 3e6, 0.0], np.float32)
    result, saved = whiten_forward(x, np.ones(4, bool), shift_mean=shift_mean, unbiased=unbiased)
    gradient = whiten_backward(saved, x)
    for array in (result, gradient):
        assert array.dtype == np.float32 and np.isfinite(array).all()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="mask: expected dtype bool"):
        whiten(np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match=r"mask: expected shape \(3,\)"):
        whiten(np.zeros(3), np.ones(4, bool))
    with pytest.raises(ValueError, match=r"d_whitened: expected shape \(3,\)"):
        whiten_backward(whiten_forward(np.zeros(3), np.ones(3, bool))[1], np.zeros(4))
