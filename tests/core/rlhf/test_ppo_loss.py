"""The reference PPO loss: the published vectors, what clipping promises, and what a mask hides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.rlhf.ppo_loss import (
    PPOResults,
    explained_variance,
    ppo_loss,
    ppo_loss_backward,
    ppo_loss_forward,
)

NAMES = (
    "log_prob", "old_log_prob", "advantages", "values", "old_values", "returns", "entropy",
)  # fmt: skip


def batch(log_ratio, advantages=1.0, **others):
    """Arguments with these log-ratios; everything else 0, nothing masked."""
    log_ratio = np.asarray(log_ratio, dtype=float)
    arguments = {name: np.zeros(log_ratio.shape) for name in NAMES}
    arguments["log_prob"] = log_ratio - 1
    arguments["old_log_prob"] = arguments["old_log_prob"] - 1
    arguments["advantages"] = np.broadcast_to(float(advantages), log_ratio.shape)
    arguments["mask"] = np.ones(log_ratio.shape, bool)
    return arguments | others


def random_batch(seed, shape=(3, 7)):
    rng = np.random.default_rng(seed)
    arguments = {name: rng.normal(size=shape) for name in NAMES}
    return arguments | {"mask": rng.random(shape) < 0.6}


def gradients(**arguments):
    _, saved = ppo_loss_forward(**arguments)
    return ppo_loss_backward(saved, np.array(1.0))


def test_published_clip_vector():
    arguments = batch([[0, 0.5, 0.05]])
    results = ppo_loss(**arguments)
    ratio = np.exp([0, 0.5, 0.05])
    np.testing.assert_allclose(
        gradients(**arguments)[0], [[-ratio[0] / 3, 0, -ratio[2] / 3]], atol=1e-15
    )
    assert results.policy_clip_fraction == pytest.approx(1 / 3)
    assert results.policy_loss == pytest.approx(-(1 + 1.2 + np.exp(0.05)) / 3)
    assert results.approx_kl == pytest.approx((0.5**2 + 0.05**2) / 6)
    assert results.ratio_mean == pytest.approx(ratio.mean())
    assert (results.ratio_min, results.ratio_max) == pytest.approx((1, ratio[1]))
    assert results.n_tokens == 3


def test_clipped_value_error_by_hand():
    """V moved up by 0.5 of at most 0.2: the larger of (V − R)² and (V_clip − R)² counts."""
    arguments = batch(
        [0.0, 0.0, 0.0],
        values=np.array([0.5, 0.5, 0.1]),
        returns=np.array([2.0, -1.0, 1.0]),
    )
    results = ppo_loss(**arguments, value_coefficient=1.0)
    # towards R the clipped error 1.8 is larger, away from it 1.5 > 1.2, inside the clip V counts
    assert results.value_loss == pytest.approx((1.8**2 + 1.5**2 + 0.9**2) / 6)
    assert results.value_clip_fraction == pytest.approx(1 / 3)
    np.testing.assert_allclose(
        gradients(**arguments, value_coefficient=1.0)[1], [0, 1.5 / 3, -0.9 / 3], atol=1e-15
    )


@pytest.mark.parametrize(
    ("advantage", "log_ratio", "flows"),
    [
        (1.0, 0.3, False),
        (1.0, -0.3, True),
        (-1.0, 0.3, True),
        (-1.0, -0.3, False),
        (1.0, 0.1, True),
        (-1.0, 0.1, True),
    ],
)
def test_gradient_is_zero_exactly_where_the_clip_binds(advantage, log_ratio, flows):
    (d_log_prob, _, _) = gradients(**batch([log_ratio], advantage))
    expected = -advantage * np.exp(log_ratio) if flows else 0.0
    np.testing.assert_allclose(d_log_prob, [expected], rtol=1e-14, atol=0)


def test_at_a_tie_the_unclipped_branch_counts():
    edge = np.log(1.25)
    assert np.exp(edge) == 1.25
    np.testing.assert_array_equal(gradients(**batch([edge]), clip=0.25)[0], [-1.25])
    # V_clip = V at the edge of the clip
    at_edge = batch([0.0], values=np.array([0.25]), returns=np.array([1.0]))
    d_values = gradients(**at_edge, value_clip=0.25, value_coefficient=1.0)[1]
    np.testing.assert_array_equal(d_values, [-0.75])


def test_beyond_the_clamp_the_gradient_is_zero_and_nothing_overflows():
    arguments = batch([[20.0, 21.0, 1e4, -21.0]], -1.0)
    results = ppo_loss(**arguments)
    assert results.ratio_max == np.exp(20)
    assert all(map(np.isfinite, results))
    np.testing.assert_allclose(gradients(**arguments)[0], [[np.exp(20) / 4, 0, 0, 0]], rtol=1e-15)


@given(st.integers(0, 1000))
def test_at_ratio_1_it_is_the_plain_policy_gradient(seed):
    arguments = random_batch(seed)
    arguments["old_log_prob"] = arguments["log_prob"].copy()
    results = ppo_loss(**arguments)
    mask = arguments["mask"]
    if mask.any():
        assert results.approx_kl == 0 == results.policy_clip_fraction
        assert results.ratio_min == results.ratio_mean == results.ratio_max == 1
    expected = np.where(mask, -arguments["advantages"] / max(mask.sum(), 1), 0)
    np.testing.assert_allclose(gradients(**arguments)[0], expected, atol=1e-16)


def test_nothing_unmasked_gives_zeros():
    arguments = {name: np.full((2, 3), np.nan) for name in NAMES} | {"mask": np.zeros((2, 3), bool)}
    assert ppo_loss(**arguments) == PPOResults(*(0.0,) * 12)
    for gradient in gradients(**arguments):
        np.testing.assert_array_equal(gradient, np.zeros((2, 3)))


def test_an_empty_batch_gives_zeros():
    arguments = {name: np.zeros((0, 3)) for name in NAMES} | {"mask": np.zeros((0, 3), bool)}
    assert ppo_loss(**arguments) == PPOResults(*(0.0,) * 12)


@given(st.integers(0, 1000), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_masked_positions_never_leak(seed, poison):
    arguments = random_batch(seed)
    poisoned = {n: np.where(arguments["mask"], arguments[n], poison) for n in NAMES}
    poisoned["mask"] = arguments["mask"]
    assert ppo_loss(**poisoned) == ppo_loss(**arguments)
    for before, after in zip(gradients(**arguments), gradients(**poisoned), strict=True):
        np.testing.assert_array_equal(after, before)
        assert not after[~arguments["mask"]].any()


@given(st.integers(0, 1000))
def test_left_and_right_padding_agree(seed):
    arguments = random_batch(seed)
    left = {n: np.pad(x, ((0, 0), (4, 0))) for n, x in arguments.items()}
    right = {n: np.pad(x, ((0, 0), (0, 4))) for n, x in arguments.items()}
    assert ppo_loss(**left) == ppo_loss(**right) == ppo_loss(**arguments)
    for a, b in zip(gradients(**left), gradients(**right), strict=True):
        np.testing.assert_array_equal(a[:, 4:], b[:, :-4])


def test_huge_advantages_stay_finite():
    for dtype in (np.float64, np.float32):
        arguments = {
            n: x if n == "mask" else x.astype(dtype)
            for n, x in batch([[0.1, -3, 25]], -1e6).items()
        }
        assert all(map(np.isfinite, ppo_loss(**arguments)))
        assert all(np.isfinite(g).all() for g in gradients(**arguments))


def test_loss_is_the_weighted_sum():
    results = ppo_loss(**random_batch(0), value_coefficient=0.3, entropy_coefficient=0.7)
    expected = results.policy_loss + 0.3 * results.value_loss - 0.7 * results.entropy
    assert results.loss == pytest.approx(expected)


def test_explained_variance():
    returns = np.array([1.0, 2.0, 4.0])
    assert explained_variance(returns + 5, returns) == pytest.approx(1)
    assert explained_variance(np.zeros(3), returns) == pytest.approx(0)
    assert explained_variance(-returns, returns) == pytest.approx(-3)
    assert explained_variance(returns, np.full(3, 0.1)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip": 0.0}, "clip: expected a finite number above 0, got 0.0"),
        ({"value_clip": -1.0}, "value_clip: expected a finite number above 0, got -1.0"),
        ({"value_coefficient": -0.1}, "value_coefficient: expected a finite number, 0 or above"),
        ({"entropy_coefficient": np.nan}, "entropy_coefficient: expected a finite number, 0 or"),
        ({"mask": np.ones((3, 7))}, "mask: expected dtype bool, True where a token counts"),
        ({"mask": np.ones((3, 1), bool)}, r"mask: expected shape \(3, 7\), got shape \(3, 1\)"),
        ({"returns": np.ones((3, 8))}, r"returns: expected shape \(3, 7\), got shape \(3, 8\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ppo_loss(**(random_batch(0) | arguments))


def test_gradient_of_another_shape_is_refused():
    _, saved = ppo_loss_forward(**random_batch(0))
    with pytest.raises(ValueError, match=r"d_loss: expected shape \(\)"):
        ppo_loss_backward(saved, np.ones(1))
