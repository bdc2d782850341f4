"""The reference estimators of KL: their values, their slopes and what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.rlhf.kl import ESTIMATORS, kl, kl_backward, kl_forward, sequence_kl

POLICY = np.array([0.4, 0.3, 0.2, 0.1])
REFERENCE = np.array([0.5, 0.25, 0.125, 0.125])
EVERY = np.ones(4, bool)
deltas = st.lists(st.floats(-5, 5), min_size=1, max_size=20).map(np.array)


@pytest.mark.parametrize(
    ("estimator", "mean", "variance"),
    [("k1", 0.0371254, 0.077671), ("k2", 0.0395248, 0.001270), ("k3", 0.0371254, 0.000861)],
)
def test_moments_under_the_policy(estimator, mean, variance):
    estimate = kl(np.log(POLICY), np.log(REFERENCE), EVERY, estimator=estimator)
    assert POLICY @ estimate == pytest.approx(mean, abs=5e-8)
    assert POLICY @ estimate**2 - (POLICY @ estimate) ** 2 == pytest.approx(variance, abs=5e-7)


@given(deltas)
def test_k2_and_k3_are_never_negative_and_k1_is_odd(delta):
    zero, mask = np.zeros_like(delta), np.ones(delta.shape, bool)
    for estimator in ("k2", "k3"):
        assert (kl(delta, zero, mask, estimator=estimator) >= 0).all()
    np.testing.assert_array_equal(kl(delta, zero, mask), -kl(zero, delta, mask))


@given(deltas, st.sampled_from(ESTIMATORS))
def test_gradient_is_the_slope(delta, estimator):
    zero, mask, h = np.zeros_like(delta), np.ones(delta.shape, bool), 1e-6
    _, saved = kl_forward(delta, zero, mask, estimator=estimator)
    d_log_prob, d_reference = kl_backward(saved, np.full(delta.shape, 3.0))
    up = kl(delta + h, zero, mask, estimator=estimator)
    down = kl(delta - h, zero, mask, estimator=estimator)
    np.testing.assert_allclose(d_log_prob, 3 * (up - down) / (2 * h), atol=1e-6, rtol=1e-6)
    np.testing.assert_array_equal(d_reference, -d_log_prob)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
def test_masked_positions_give_zero_whatever_they_hold(estimator, junk):
    log_prob, mask = np.array([[-1.0, junk]]), np.array([[True, False]])
    reference = np.array([[-2.0, junk]])
    result, saved = kl_forward(log_prob, reference, mask, estimator=estimator)
    gradients = kl_backward(saved, np.array([[1.0, junk]]))
    assert result[0, 1] == 0 and np.isfinite(result).all() and result[0, 0] > 0
    assert all(g[0, 1] == 0 and g[0, 0] != 0 for g in gradients)


def test_sequence_kl_sums_tokens_and_averages_sequences():
    mask = np.array([[0, 1, 1, 1], [0, 0, 1, 0]], bool)
    log_prob = np.array([[0, -1, -2, -0.5], [0, 0, -3, 0]])
    reference = np.array([[0, -1.5, -1, -0.5], [0, 0, -1, 0]])
    np.testing.assert_allclose(kl(log_prob, reference, mask).sum(axis=1), [-0.5, -2])
    assert sequence_kl(log_prob, reference, mask) == pytest.approx(-1.25)
    # A sequence without tokens counts; a batch without sequences is 0.
    mask[1] = False
    assert sequence_kl(log_prob, reference, mask) == pytest.approx(-0.25)
    assert sequence_kl(log_prob[:0], reference[:0], mask[:0]) == 0


def test_float32_stays_float32():
    x = np.zeros((2, 3), np.float32)
    for estimator in ESTIMATORS:
        result, saved = kl_forward(x, x, np.ones((2, 3), bool), estimator=estimator)
        assert result.dtype == np.float32
        assert all(g.dtype == np.float32 for g in kl_backward(saved, x))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"estimator": "k4"}, "estimator: expected 'k1', 'k2' or 'k3', got 'k4'"),
        ({"mask": np.ones((2, 3))}, "mask: expected dtype bool"),
        ({"mask": np.ones((2, 4), bool)}, r"mask: expected shape \(2, 3\)"),
        ({"reference_log_prob": np.ones((2, 4))}, r"reference_log_prob: expected shape \(2, 3\)"),
    ],
)
def test_bad_arguments_are_named(changed, message):
    arguments = {
        "log_prob": np.zeros((2, 3)),
        "reference_log_prob": np.zeros((2, 3)),
        "mask": np.ones((2, 3), bool),
    }
    with pytest.raises(ValueError, match=message):
        kl(**(arguments | changed))


def test_sequence_kl_needs_batch_and_time():
    with pytest.raises(ValueError, match=r"log_prob: expected 2 dimensions \[batch, time\]"):
        sequence_kl(np.zeros(3), np.zeros(3), np.ones(3, bool))


def test_gradient_of_another_shape_is_refused():
    _, saved = kl_forward(np.zeros((1, 2)), np.zeros((1, 2)), np.ones((1, 2), bool))
    with pytest.raises(ValueError, match=r"d_kl: expected shape \(1, 2\)"):
        kl_backward(saved, np.zeros((2, 1)))
