"""Reward against √KL where every answer is listed: known values, the limit, a trained policy."""

import dataclasses
import math

import numpy as np
import pytest

from gptwin.core.dialogue.frontier import best_of_n, place, steepest_slope, tilted
from gptwin.core.rlhf.enumerable import ascend, make_world

REFERENCE, REWARDS = np.array([0.5, 0.25, 0.125, 0.125]), np.arange(4.0)


@pytest.mark.parametrize(
    ("beta", "kl", "gain", "slope"),
    [
        (20, 0.0014296, 0.056757, 1.501115),
        (5, 0.024770, 0.241439, 1.534064),
        (1, 0.651062, 1.305135, 1.617499),
        (0.25, 1.983156, 2.105637, 1.495220),
    ],
)
def test_the_tilted_policies(beta, kl, gain, slope):
    found = tilted(REFERENCE, REWARDS, beta)
    assert (found.kl, found.gain, found.slope) == pytest.approx((kl, gain, slope), abs=1e-6)
    assert found.reward == pytest.approx(0.875 + gain, abs=1e-6)


def test_the_slope_where_the_kl_ends():
    steepest = steepest_slope(REFERENCE, REWARDS)
    assert steepest == pytest.approx(1.489547, abs=1e-6)
    assert tilted(REFERENCE, REWARDS, 1e4).slope == pytest.approx(steepest, abs=1e-4)
    assert math.isnan(place(REFERENCE, REFERENCE, REWARDS).slope)


@pytest.mark.parametrize(
    ("n", "policy", "reward", "kl"),
    [
        (1, REFERENCE, 0.875, 0.0),
        (2, (0.25, 0.3125, 0.203125, 0.234375), 1.421875, 0.142394),
        (4, (0.0625, 0.253906, 0.269775, 0.413818), 2.034912, 0.576891),
        (16, None, 2.871895, 1.675009),
    ],
)
def test_best_of_n_with_ties(n, policy, reward, kl):
    found = best_of_n(REFERENCE, REWARDS, n)
    assert (found.reward, found.kl) == pytest.approx((reward, kl), abs=1e-6)
    if policy is not None:
        np.testing.assert_allclose(found.policy, policy, atol=1e-6)
    if n > 1:
        assert found.kl < math.log(n) - (n - 1) / n


def test_of_what_never_happens_best_of_n_keeps_nothing():
    reference = np.array([0.5, 0.5, 0.0])
    found = best_of_n(reference, np.array([0.0, 1.0, 2.0]), 2)
    np.testing.assert_allclose(found.policy, [0.25, 0.75, 0.0])
    with pytest.raises(ValueError, match="n: expected"):
        best_of_n(reference, REWARDS[:3], 0)


def test_outcomes_of_one_reward_share_what_is_won_as_they_were():
    rng, rewards = np.random.default_rng(0), np.array([1.0, 2.0, 2.0, 0.0])
    reference = np.array([0.2, 0.3, 0.1, 0.4])
    found = best_of_n(reference, rewards, 3)
    drawn = rng.choice(4, p=reference, size=(100_000, 3))
    kept = drawn[np.arange(len(drawn)), rewards[drawn].argmax(axis=1)]  # the first of the best
    np.testing.assert_allclose(np.bincount(kept) / len(kept), found.policy, atol=0.006)


@pytest.fixture(scope="module")
def language_model():
    world = make_world(3, beta=4.0)
    return world, world.probabilities(world.reference_logits)


def test_on_the_enumerable_language_model_the_slope_ends_at_its_limit(language_model):
    world, reference = language_model
    steepest = steepest_slope(reference, world.rewards)
    slopes = [tilted(reference, world.rewards, beta).slope for beta in (1e3, 1e4)]
    # The error falls as 1/β: extrapolated, nothing but rounding is left of it.
    assert slopes[1] + (slopes[1] - slopes[0]) / 9 == pytest.approx(steepest, abs=1e-6)


def test_a_policy_trained_by_ppos_own_parts_ends_on_the_frontier(language_model):
    world, _ = language_model
    # From a uniform model, where no prefix is rare and the climb is short.
    world = dataclasses.replace(world, reference_logits=np.zeros_like(world.reference_logits))
    reference = world.probabilities(world.reference_logits)
    policy = world.probabilities(ascend(world, steps=1000))
    trained = place(policy, reference, world.rewards)
    best = tilted(reference, world.rewards, world.beta)
    assert (trained.kl, trained.gain) == pytest.approx((best.kl, best.gain), abs=1e-6)


def test_no_policy_gets_more_at_its_distance_than_the_tilted_one(language_model):
    world, reference = language_model
    for n in (2, 4, 16):
        found = best_of_n(reference, world.rewards, n)
        betas = np.geomspace(0.01, 100, 400)
        path = [tilted(reference, world.rewards, beta) for beta in betas]
        nearest = max((p for p in path if p.kl <= found.kl), key=lambda p: p.kl)
        assert found.gain < nearest.gain + 0.05 and found.kl > 0
