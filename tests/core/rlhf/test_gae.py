"""The reference GAE: the published vector, its limits in λ, and that the climb is equal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.rlhf.gae import gae, gae_backward, gae_blockwise, gae_forward

batches = st.tuples(
    st.integers(0, 3), st.integers(0, 20), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 10**6)
)
discounts = st.sampled_from([(1.0, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.5), (0.97, 0.8)])


def draw(batch, time, share, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((batch, time)) < share
    return rng.normal(size=(batch, time)), rng.normal(size=(batch, time)), mask


@pytest.mark.parametrize(
    ("lam", "expected"),
    [(1.0, [0.8, 0.5, 0.3]), (0.0, [0.3, 0.2, 0.3]), (0.95, [0.76075, 0.485, 0.3])],
)
def test_the_published_vector(lam, expected):
    rewards, values = np.array([[0.0, 0.0, 1.0]]), np.array([[0.2, 0.5, 0.7]])
    every = np.ones((1, 3), bool)
    advantages, returns = gae(rewards, values, every, lam=lam)
    np.testing.assert_allclose(advantages, [expected], atol=1e-15)
    np.testing.assert_allclose(returns, values + np.array(expected), atol=1e-15)


@given(batches, st.integers(1, 25), discounts)
def test_blockwise_equals_definition(batch, block, discount):
    rewards, values, mask = draw(*batch)
    options = dict(zip(("gamma", "lam"), discount, strict=True))
    blockwise = gae_blockwise(rewards, values, mask, block, **options)
    for got, expected in zip(blockwise, gae(rewards, values, mask, **options), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)


@given(batches, st.sampled_from([0.0, 0.9, 1.0]))
def test_lambda_0_is_delta(batch, gamma):
    rewards, values, mask = draw(*batch)
    advantages, _ = gae(rewards, values, mask, gamma=gamma, lam=0.0)
    for a, r, v, m in zip(advantages, rewards, values, mask, strict=True):
        following = np.append(v[m][1:], 0)[: m.sum()]
        np.testing.assert_allclose(a[m], r[m] + gamma * following - v[m], atol=1e-12)


@given(batches)
def test_gamma_and_lambda_1_are_the_rewards_to_come_minus_the_value(batch):
    rewards, values, mask = draw(*batch)
    advantages, returns = gae(rewards, values, mask, lam=1.0)
    for a, ret, r, v, m in zip(advantages, returns, rewards, values, mask, strict=True):
        to_come = np.cumsum(r[m][::-1])[::-1]
        np.testing.assert_allclose(ret[m], to_come, atol=1e-12)
        np.testing.assert_allclose(a[m], to_come - v[m], atol=1e-12)


@given(st.integers(1, 8), st.integers(0, 9), st.integers(0, 9), st.integers(0, 10**6), discounts)
def test_padding_and_holes_change_nothing(time, before, after, seed, discount):
    rewards, values, _ = draw(1, time, 1.0, seed)
    options = dict(zip(("gamma", "lam"), discount, strict=True))
    alone = gae(rewards, values, np.ones((1, time), bool), **options)
    mask = np.zeros(time + before + after, bool)
    mask[np.random.default_rng(seed).permutation(len(mask))[:time]] = True  # holes
    for pattern in (mask, np.roll(np.arange(len(mask)) < time, before)):  # left and right padding
        padded_rewards, padded_values = np.full((2, 1, len(pattern)), np.nan)
        padded_rewards[0, pattern], padded_values[0, pattern] = rewards[0], values[0]
        padded = gae(padded_rewards, padded_values, pattern[None], **options)
        for got, expected in zip(padded, alone, strict=True):
            np.testing.assert_array_equal(got[0, pattern], expected[0])
            assert not got[0, ~pattern].any()


@given(batches, discounts)
def test_gradients_are_the_transpose(batch, discount):
    """The operation is linear: ⟨d, gae(x)⟩ = ⟨gae_backward(d), x⟩ for all d and x."""
    rewards, values, mask = draw(*batch)
    d_advantages, d_returns, _ = draw(*batch[:3], batch[3] + 1)
    options = dict(zip(("gamma", "lam"), discount, strict=True))
    (advantages, returns), saved = gae_forward(rewards, values, mask, **options)
    d_rewards, d_values = gae_backward(saved, d_advantages, d_returns)
    forward = (d_advantages * advantages).sum() + (d_returns * returns).sum()
    backward = (d_rewards * rewards).sum() + (d_values * values).sum()
    assert forward == pytest.approx(backward, abs=1e-10)
    assert not d_rewards[~mask].any() and not d_values[~mask].any()


@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_masked_junk_leaks_neither_forward_nor_back(junk):
    x = np.array([[junk, 1.0, junk, 2.0, junk], [junk] * 5])
    mask = np.isfinite(x)
    results, saved = gae_forward(x, x, mask)
    for array in (*results, *gae_backward(saved, x, x)):
        assert np.isfinite(array).all() and not array[~mask].any() and array[0, 1] != 0
    for array in gae_blockwise(x, x, mask, 2):
        assert np.isfinite(array).all() and not array[~mask].any()


def test_large_values_stay_finite_in_float32():
    x = np.full((1, 50), 1e6, np.float32)
    results, saved = gae_forward(x, -x, np.ones((1, 50), bool))
    for array in (*results, *gae_backward(saved, x, x), *gae_blockwise(x, -x, x > 0, 7)):
        assert array.dtype == np.float32 and np.isfinite(array).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gamma": 1.1}, r"gamma: expected a number in \[0, 1\], got 1.1"),
        ({"lam": -0.1}, r"lam: expected a number in \[0, 1\]"),
        ({"lam": float("nan")}, r"lam: expected a number in \[0, 1\]"),
        ({"rewards": np.zeros(3)}, r"rewards: expected 2 dimensions \[batch, time\]"),
        ({"values": np.zeros((2, 4))}, r"values: expected shape \(2, 3\).*one value too many"),
        ({"mask": np.zeros((2, 3))}, "mask: expected dtype bool"),
    ],
)
def test_bad_arguments_are_named(changed, message):
    arguments = {
        "rewards": np.zeros((2, 3)), "values": np.zeros((2, 3)), "mask": np.ones((2, 3), bool),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        gae(**(arguments | changed))


def test_gradients_of_another_shape_are_refused():
    _, saved = gae_forward(np.zeros((1, 2)), np.zeros((1, 2)), np.ones((1, 2), bool))
    with pytest.raises(ValueError, match="d_advantages: expected shape"):
        gae_backward(saved, np.zeros((2, 1)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="d_returns: expected shape"):
        gae_backward(saved, np.zeros((1, 2)), np.zeros((2, 1)))
