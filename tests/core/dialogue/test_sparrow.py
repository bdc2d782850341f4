"""Sparrow's arithmetic: known values, the edges, and the trade-off that RL must end at."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwin.core.dialogue.sparrow import (
    LEAST,
    Running,
    choose,
    preference_factor,
    rerank_scores,
    rl_reward,
    rule_loss,
    rule_loss_backward,
    rule_loss_forward,
    running_of,
    trade_off,
    weight_for,
)
from gptwin.core.rlhf.enumerable import (
    N_PREFIXES,
    N_TOKENS,
    World,
    all_sequences,
    ascend,
    kl_divergence,
    train_ppo,
)

PREFERENCES = np.array([2.0, 1.0, 0.0])
KEPT = np.array([[0.9, 0.2], [0.8, 0.9], [0.95, 0.95]])
REFERENCE, REWARDS = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8]), np.arange(4.0)
BREAKS = np.array([False, False, False, True])


# --- reranking -----------------------------------------------------------------------------------


def test_the_scores_of_three_candidates():
    factors = preference_factor(PREFERENCES)
    np.testing.assert_allclose(factors, [0.731059, 0.5, 0.268941], atol=5e-7)
    product = np.exp(rerank_scores(PREFERENCES, KEPT, root=False))
    np.testing.assert_allclose(product, [0.131591, 0.36, 0.242720], atol=5e-7)
    rooted = np.exp(rerank_scores(PREFERENCES, KEPT))
    np.testing.assert_allclose(rooted, [0.310162, 0.424264, 0.255494], atol=5e-7)
    assert choose(product) == choose(rooted) == 1
    assert choose(rerank_scores(PREFERENCES, np.zeros((3, 0)))) == 0  # preference alone
    np.testing.assert_allclose(rerank_scores(PREFERENCES + 10, KEPT), np.log(rooted), atol=1e-12)


def test_a_strong_preference_overrides_a_likely_violation():
    scores = np.exp(rerank_scores(np.array([10.0, 2, 0]), KEPT, root=False))
    np.testing.assert_allclose(scores, [0.179555, 0.085826, 0.016233], atol=5e-7)
    assert choose(scores) == 0


def test_without_a_rule_the_preference_factor_is_left():
    for root in (True, False):
        found = rerank_scores(PREFERENCES, np.zeros((3, 0)), root=root)
        np.testing.assert_allclose(np.exp(found), preference_factor(PREFERENCES), rtol=1e-12)


def test_of_one_rule_the_root_is_the_chance_itself():
    for root in (True, False):
        found = rerank_scores(PREFERENCES, KEPT[:, :1], root=root)
        np.testing.assert_allclose(np.exp(found), preference_factor(PREFERENCES) * KEPT[:, 0])


def test_a_rule_that_is_surely_kept_changes_nothing():
    sure = np.concatenate([KEPT, np.ones((3, 1))], axis=1)
    found = (rerank_scores(PREFERENCES, kept, root=False) for kept in (sure, KEPT))
    np.testing.assert_array_equal(*found)


def test_one_candidate_has_half_whatever_its_preference():
    for preference in (-1e6, 0.0, 1e6):
        assert np.exp(rerank_scores(np.array([preference]), np.zeros((1, 0)))) == [0.5]


def test_where_all_break_a_rule_for_certain_the_rest_decides():
    kept = np.array([[0.0, 0.5], [0.0, 0.9], [0.0, 0.9]])
    scores = rerank_scores(np.array([0.0, 1, 2]), kept)
    assert np.isfinite(scores).all()
    assert choose(scores) == 2
    assert scores[1] == pytest.approx((np.log(LEAST) + np.log(0.9)) / 2 + np.log(0.5))


def test_of_equal_scores_the_first_is_chosen_even_if_they_are_rounded_otherwise():
    assert choose(np.array([-1.0, -0.5 - 1e-9, -0.5, -2.0])) == 1
    assert choose(np.array([-1.0, -0.5 - 1e-3, -0.5, -2.0])) == 2


@pytest.mark.parametrize(
    ("preferences", "kept", "named"),
    [
        (np.zeros(0), np.zeros((0, 2)), "preferences: expected a candidate at least"),
        (np.zeros(3), np.zeros((2, 3)), r"kept: expected shape \(3, 3\)"),
        (np.zeros(3), np.zeros(3), "kept: expected at least 2 dimensions"),
        (np.array(1.0), np.zeros((1, 1)), "preferences: expected at least 1 dimension"),
        (np.zeros((3, 3)), np.zeros((3, 3)), "preferences: expected shape"),
        (np.zeros(1), np.array([[1.5]]), "kept: expected probabilities"),
        (np.zeros(1), np.array([[-0.1]]), "kept: expected probabilities"),
        (np.zeros(1), np.array([[np.nan]]), "kept: expected probabilities"),
        (np.zeros(1, int), np.zeros((1, 1)), "preferences: expected floats"),
    ],
)
def test_refusals(preferences, kept, named):
    with pytest.raises(ValueError, match=named):
        rerank_scores(preferences, kept)


# --- the reward ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preferences", "kept", "applies", "named"),
    [
        (np.zeros(3, int), np.zeros((3, 2)), np.ones((3, 2), bool), "preferences: expected floats"),
        (np.zeros(3), np.zeros(3), np.ones(3, bool), "kept: expected at least 2 dimensions"),
        (np.zeros(3), np.zeros((2, 2)), np.ones((2, 2), bool), r"kept: expected shape \(3, 2\)"),
        (np.zeros(3), np.zeros((3, 2)), np.ones((3, 1), bool), "applies: expected shape"),
    ],
)
def test_what_has_no_reward(preferences, kept, applies, named):
    with pytest.raises(ValueError, match=named):
        rl_reward(preferences, kept, applies, Running(2, 0.0, 2.0))


def test_the_reward_of_three_answers():
    running = Running(10, 0.5, 10 * 0.8**2)
    applies = np.ones(KEPT.shape, bool)
    found = rl_reward(PREFERENCES, KEPT, applies, running)
    np.testing.assert_allclose(found, [2.425, 1.475, 0.325], atol=1e-12)
    found = rl_reward(
        PREFERENCES, KEPT, applies, running, lengths=np.array([3, 5, 0]), length_weight=0.1,
        invalid=np.array([False, True, False]), format_weight=2.0,
    )  # fmt: skip
    np.testing.assert_allclose(found, [2.125, -1.025, 0.325], atol=1e-12)


def test_rules_that_do_not_apply_are_not_in_the_mean():
    running = Running(2, 0.0, 2.0)
    applies = np.array([[True, False], [False, False], [True, True]])
    found = rl_reward(np.zeros(3), KEPT, applies, running)
    np.testing.assert_allclose(found, [0.9, 0.0, 0.95])
    found = rl_reward(np.zeros(3), KEPT, applies, running, rule_weight=4.0)
    np.testing.assert_allclose(found, [3.6, 0.0, 3.8])
    np.testing.assert_allclose(
        rl_reward(PREFERENCES, np.zeros((3, 0)), np.zeros((3, 0), bool), running), PREFERENCES
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), max_size=5), max_size=6), st.floats(-1e3, 1e3))
def test_what_was_seen_in_parts_is_what_was_seen_at_once(parts, shift):
    running = Running()
    for part in parts:
        running = running.joined(running_of(np.array(part) + shift))
    whole = np.concatenate([[], *map(np.array, parts)]) + shift
    assert running.n == len(whole)
    if len(whole):
        assert running.mean == pytest.approx(whole.mean(), abs=1e-9)
        assert running.std == pytest.approx(max(whole.std(), 1e-6), abs=2e-6)


def test_a_preference_that_never_differs_earns_nothing():
    running = running_of(np.full(4, 7.0))
    np.testing.assert_array_equal(
        rl_reward(np.full(4, 7.0), np.zeros((4, 0)), np.zeros((4, 0), bool), running), 0
    )


def test_float32_stays_float32():
    kept, applies = KEPT.astype(np.float32), np.ones(KEPT.shape, bool)
    preferences = PREFERENCES.astype(np.float32)
    assert rerank_scores(preferences, kept).dtype == np.float32
    assert rl_reward(preferences, kept, applies, Running(3, 1.0, 2.0)).dtype == np.float32
    assert rule_loss(kept, applies, applies).dtype == np.float32


# --- the rule model's loss -----------------------------------------------------------------------


def test_the_loss_is_the_mean_over_what_is_known_and_the_unknown_has_no_gradient():
    logits = np.array([[0.0, 3.0], [np.log(3), np.nan]])
    violated = np.array([[True, False], [False, True]])
    known = np.array([[True, False], [True, False]])
    loss, saved = rule_loss_forward(logits, violated, known)
    assert loss == pytest.approx((np.log(2) + np.log(4)) / 2)
    np.testing.assert_allclose(rule_loss_backward(saved, 1.0), [[-0.25, 0], [0.375, 0]])
    nothing = np.zeros((2, 2), bool)
    loss, saved = rule_loss_forward(logits, violated, nothing)
    assert loss == 0
    np.testing.assert_array_equal(rule_loss_backward(saved, 1.0), 0)


def test_what_has_no_loss():
    logits, labels = np.zeros((2, 3)), np.ones((2, 3), bool)
    for given_, named in (
        ((logits.astype(int), labels, labels), "logits: expected floats"),
        ((logits, labels[:1], labels), "violated: expected shape"),
        ((logits, labels, labels[:, :1]), "known: expected shape"),
    ):
        with pytest.raises(ValueError, match=named):
            rule_loss(*given_)


def test_an_unknown_label_is_not_taken_for_a_kept_rule():
    logits = np.zeros((1, 2))
    some = rule_loss(logits, np.array([[True, False]]), np.array([[True, False]]))
    both = rule_loss(np.array([[0.0, 2.0]]), np.array([[True, False]]), np.array([[True, True]]))
    assert some == pytest.approx(np.log(2))
    assert both == pytest.approx((np.log(2) + np.log1p(np.exp(2))) / 2)


def test_the_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3))
    violated, known = rng.random((4, 3)) < 0.5, rng.random((4, 3)) < 0.7
    _, saved = rule_loss_forward(logits, violated, known)
    found = rule_loss_backward(saved, 2.0)
    for at in np.ndindex(4, 3):
        step = np.zeros((4, 3))
        step[at] = 1e-5
        ahead, behind = (rule_loss(logits + s, violated, known) for s in (step, -step))
        assert found[at] == pytest.approx(2 * (ahead - behind) / 2e-5, abs=1e-9)


# --- the exact trade-off -------------------------------------------------------------------------

EXACT = [
    (0, 0.544159, 2.180135, 0.651062),
    (1, 0.305148, 1.750254, 0.337589),
    (2, 0.139086, 1.451579, 0.280186),
    (3, 0.056099, 1.302321, 0.332829),
    (5, 0.007979, 1.215774, 0.424405),
]


@pytest.mark.parametrize(("weight", "violation", "preference", "kl"), EXACT)
def test_the_weight_of_a_rule_against_preference(weight, violation, preference, kl):
    found = trade_off(REFERENCE, REWARDS, BREAKS, weight)
    assert found.violation == pytest.approx(violation, abs=5e-7)
    assert found.preference == pytest.approx(preference, abs=5e-7)
    assert found.kl == pytest.approx(kl, abs=5e-7)
    if weight:
        assert weight_for(REFERENCE, REWARDS, BREAKS, found.violation) == pytest.approx(weight)


def test_preference_alone_breaks_a_rule_more_often_that_raters_like_to_see_broken():
    assert trade_off(REFERENCE, REWARDS, BREAKS, 0).violation > REFERENCE @ BREAKS
    assert trade_off(REFERENCE, -REWARDS, BREAKS, 0).violation < REFERENCE @ BREAKS


def test_no_weight_leads_to_what_cannot_be():
    for violation, breaks in ((1.0, BREAKS), (0.5, BREAKS & False), (0.5, BREAKS | True)):
        with pytest.raises(ValueError, match="violation: expected a share that some weight"):
            weight_for(REFERENCE, REWARDS, breaks, violation)


def rule_world(weight):
    """The four answers as groups of the sequences of the enumerable language model.

    The first token says which of the four it is; the last of them is two tokens, both of which
    break the rule. What follows the first token is worth nothing, and is drawn anyhow.
    """
    logits = np.random.default_rng(0).normal(size=(N_PREFIXES, N_TOKENS))
    logits[0] = np.log([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16])
    first = np.minimum(all_sequences()[:, 0], 3)
    return World(logits, REWARDS[first] - weight * BREAKS[first], beta=1.0), first


@pytest.mark.parametrize(("weight", "violation", "preference", "kl"), [EXACT[0], EXACT[2]])
def test_reinforcement_learning_ends_at_the_trade_off(weight, violation, preference, kl):
    world, first = rule_world(weight)
    policy = world.probabilities(ascend(world, steps=200))
    reference = world.probabilities(world.reference_logits)
    assert policy @ BREAKS[first] == pytest.approx(violation, abs=1e-6)
    assert policy @ REWARDS[first] == pytest.approx(preference, abs=1e-6)
    assert kl_divergence(policy, reference) == pytest.approx(kl, abs=1e-6)


def test_ppo_on_samples_comes_near_the_trade_off():
    world, first = rule_world(2)
    logits, _ = train_ppo(world, seed=0, iterations=40)
    violation = world.probabilities(logits) @ BREAKS[first]
    assert violation == pytest.approx(EXACT[2][1], abs=0.03)


def test_the_weight_that_is_found_grows_with_beta():
    for beta in (0.5, 2.0):
        violation = trade_off(REFERENCE, REWARDS, BREAKS, 1.5, beta).violation
        assert weight_for(REFERENCE, REWARDS, BREAKS, violation, beta) == pytest.approx(1.5)
    for violation in (0.0, -0.1):
        with pytest.raises(ValueError, match="violation: expected"):
            weight_for(REFERENCE, REWARDS, BREAKS, violation)
    with pytest.raises(ValueError, match="violated: expected shape"):
        trade_off(REFERENCE, REWARDS, BREAKS[:3], 1.0)


def test_another_beta_is_another_scale_of_both():
    half = trade_off(REFERENCE, REWARDS / 2, BREAKS, 1.0, beta=0.5)
    np.testing.assert_allclose(half.policy, trade_off(REFERENCE, REWARDS, BREAKS, 2.0).policy)
