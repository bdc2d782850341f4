"""The reference reward loss: InstructGPT's equation 1, its gradient, and its statistics."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.rlhf.reward_loss import (
    BIN_EDGES,
    expected_calibration_error,
    reward_loss,
    reward_loss_backward,
    reward_loss_by_pairs,
    reward_loss_forward,
    sigmoid,
)


def draw(n_prompts, n_completions, seed):
    """Scores and rankings with ties and absent completions."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (n_prompts, n_completions))
    ranks = rng.integers(-1, max(n_completions, 1), (n_prompts, n_completions))
    return scores, ranks


batches = st.builds(draw, st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32 - 1))
margins = st.sampled_from([0.0, 0.7])
centrings = st.sampled_from([0.0, 0.01, 0.5])


def gradient(scores, ranks, **options):
    return reward_loss_backward(reward_loss_forward(scores, ranks, **options)[1], 1.0)


def test_known_values():
    scores, ranks = np.array([[2.0, 1.0, 0.0, -1.0]]), np.arange(4)[None]
    results, saved = reward_loss_forward(scores, ranks)
    assert results.loss == pytest.approx(0.2070381, abs=5e-8)
    np.testing.assert_allclose(
        reward_loss_backward(saved, 1.0), [[-0.072595, -0.019867, 0.019867, 0.072595]], atol=5e-7
    )
    assert (results.accuracy, results.n_pairs) == (1, 6)
    assert results.mean_margin == pytest.approx(10 / 6)
    # σ(1) = .731 three times, σ(2) = .881 twice, σ(3) = .953 once
    np.testing.assert_array_equal(results.bin_pairs, [0, 0, 0, 0, 3, 0, 0, 2, 0, 1])
    np.testing.assert_array_equal(results.bin_right, results.bin_pairs)


@given(st.integers(1, 5), st.integers(2, 9))
def test_a_zero_reward_head_has_loss_ln_2(n_prompts, n_completions):
    ranks = np.tile(np.arange(n_completions), (n_prompts, 1))
    results = reward_loss(np.zeros(ranks.shape), ranks)
    assert results.loss == pytest.approx(math.log(2))
    assert results.accuracy == results.bin_right.sum() == 0  # equal scores are no preference
    assert results.bin_pairs[0] == results.n_pairs == ranks.size * (n_completions - 1) / 2


@given(batches, margins, centrings)
def test_the_tile_equals_the_definition(batch, margin, centring):
    options = {"margin": margin, "centring": centring}
    assert reward_loss(*batch, **options).loss == pytest.approx(
        reward_loss_by_pairs(*batch, **options), abs=1e-12
    )


@given(batches, margins, st.floats(-100, 100))
def test_a_shift_of_the_scores_changes_nothing(batch, margin, shift):
    scores, ranks = batch
    before, after = (reward_loss(s, ranks, margin=margin) for s in (scores, scores + shift))
    assert after.loss == pytest.approx(before.loss, abs=1e-10)


def test_centring_feels_a_shift():
    scores, ranks = draw(2, 4, 0)
    near, far = (reward_loss(s, ranks, centring=0.01).loss for s in (scores, scores + 10))
    assert far > near + 1


def test_centring_stands_inside_the_mean_over_pairs():
    """One pair (3, 1): plain loss + c·4², in a prompt that counts one half."""
    scores, ranks = np.array([[3.0, 1.0], [0.0, 0.0]]), np.array([[0, 1], [0, 1]])
    plain, centred = (reward_loss(scores, ranks, centring=c).loss for c in (0.0, 0.01))
    assert centred - plain == pytest.approx(0.5 * 0.01 * 16)


@given(batches, margins, centrings, st.integers(0, 1000))
def test_order_of_prompts_and_completions_does_not_matter(batch, margin, centring, seed):
    scores, ranks = batch
    options = {"margin": margin, "centring": centring}
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(scores.shape[0]), rng.permutation(scores.shape[1])
    shuffled = np.ix_(rows, columns)
    before, after = (
        reward_loss(s, r, **options)
        for s, r in ((scores, ranks), (scores[shuffled], ranks[shuffled]))
    )
    for expected, actual in zip(before, after, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-12)
    np.testing.assert_allclose(
        gradient(scores[shuffled], ranks[shuffled], **options),
        gradient(scores, ranks, **options)[shuffled],
        atol=1e-12,
    )


@given(batches, margins)
def test_gradients_of_a_prompt_sum_to_zero(batch, margin):
    np.testing.assert_allclose(gradient(*batch, margin=margin).sum(axis=1), 0, atol=1e-14)


@given(batches, margins, centrings)
def test_gradient_agrees_with_finite_differences(batch, margin, centring):
    scores, ranks = batch
    options = {"margin": margin, "centring": centring}
    h = 1e-5
    numeric = np.zeros_like(scores)
    for index in np.ndindex(scores.shape):
        step = np.zeros_like(scores)
        step[index] = h
        ahead, behind = (reward_loss(scores + s, ranks, **options).loss for s in (step, -step))
        numeric[index] = (ahead - behind) / (2 * h)
    np.testing.assert_allclose(gradient(scores, ranks, **options), numeric, atol=1e-8)


@given(st.floats(-50, 50), st.floats(-50, 50), st.sampled_from([0.0, 1.0]))
def test_two_completions_are_a_plain_comparison(chosen, rejected, margin):
    scores = np.array([[rejected, chosen]])
    loss = reward_loss(scores, np.array([[5, 2]]), margin=margin).loss
    assert loss == pytest.approx(-np.log(sigmoid(np.array(chosen - rejected - margin))), abs=1e-12)


@given(batches, margins, centrings)
def test_unequal_numbers_of_completions_equal_prompts_one_by_one(batch, margin, centring):
    scores, ranks = batch
    options = {"margin": margin, "centring": centring}
    alone = [
        reward_loss(s[None, rank >= 0], rank[None, rank >= 0], **options)
        for s, rank in zip(scores, ranks, strict=True)
    ]
    counting = [results.loss for results in alone if results.n_pairs]
    together = reward_loss(scores, ranks, **options)
    assert together.loss == pytest.approx(np.mean(counting) if counting else 0, abs=1e-12)
    assert together.n_pairs == sum(results.n_pairs for results in alone)


@pytest.mark.parametrize("ranks", [[[3, 3, 3]], [[-1, -1, -1]], [[-1, 0, -1]]])
def test_without_a_pair_all_is_zero(ranks):
    results, saved = reward_loss_forward(np.array([[1.0, 2.0, 3.0]]), np.array(ranks), centring=1.0)
    assert all(not np.any(result) for result in results)
    np.testing.assert_array_equal(reward_loss_backward(saved, 1.0), np.zeros((1, 3)))


def test_prompts_without_a_pair_do_not_count():
    scores, ranks = draw(1, 5, 3)
    padded = np.concatenate([np.zeros((2, 5)), scores]), np.array([[-1] * 5, [1] * 5, *ranks])
    assert reward_loss(*padded).loss == reward_loss(scores, ranks).loss


@pytest.mark.parametrize("hidden", [math.nan, math.inf, -math.inf, 1e300])
def test_absent_completions_never_leak(hidden):
    scores, ranks = draw(4, 6, 1)
    assert (ranks < 0).any()
    before = gradient(scores, ranks, centring=0.1)
    spoiled = np.where(ranks < 0, hidden, scores)
    np.testing.assert_array_equal(gradient(spoiled, ranks, centring=0.1), before)
    assert not before[ranks < 0].any()
    assert reward_loss(spoiled, ranks).loss == reward_loss(scores, ranks).loss


@pytest.mark.filterwarnings("error")
def test_huge_differences_stay_finite():
    scores = np.array([[1e6, -1e6, 0.0]])
    results, saved = reward_loss_forward(scores, np.array([[2, 1, 0]]))
    assert results.loss == pytest.approx((2e6 + 1e6 + 0) / 3)
    np.testing.assert_allclose(reward_loss_backward(saved, 3.0), [[2, -1, -1]])


def test_bins_are_those_of_the_probability():
    """Each bin's two ends, from both sides of each edge."""
    edges = np.array(BIN_EDGES)
    np.testing.assert_allclose(sigmoid(edges), 0.5 + 0.05 * np.arange(1, 10))
    for k, edge in enumerate(BIN_EDGES):
        for gap, bin_ in ((edge - 1e-9, k), (edge, k + 1), (edge + 1e-9, k + 1)):
            wrong = reward_loss(np.array([[0.0, gap]]), np.array([[0, 1]]))
            assert wrong.bin_pairs[bin_] == 1 and not wrong.bin_right.any()
            right = reward_loss(np.array([[gap, 0.0]]), np.array([[0, 1]]))
            assert right.bin_pairs[bin_] == right.bin_right[bin_] == 1


def test_calibration_error():
    pairs, right = np.zeros(10), np.zeros(10)
    assert expected_calibration_error(pairs, right) == 0
    pairs[0], right[0] = 40, 21  # σ ≈ .525 and 52.5% right: calibrated
    assert expected_calibration_error(pairs, right) == pytest.approx(0)
    pairs[9], right[9] = 10, 5  # σ ≈ .975 and 50% right
    assert expected_calibration_error(pairs, right) == pytest.approx(0.2 * 0.475)


def test_the_true_model_is_calibrated():
    """Rankings drawn from the Bradley-Terry model of the scores themselves."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1.5, (20000, 2))
    first_wins = rng.random(20000) < sigmoid(scores[:, 0] - scores[:, 1])
    ranks = np.stack([~first_wins, first_wins], axis=1).astype(np.int64)
    for scale, low, high in ((1.0, 0.0, 0.02), (4.0, 0.08, 0.4)):
        results = reward_loss(scores * scale, ranks)
        assert low <= expected_calibration_error(results.bin_pairs, results.bin_right) <= high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": np.zeros(3)}, r"scores: expected 2 dimensions \[prompt, completion\], got"),
        ({"scores": np.zeros((2, 3), int)}, "scores: expected floats, got dtype int"),
        ({"scores": np.zeros((2, 65))}, "scores: expected at most 64 completions a prompt"),
        ({"ranks": np.zeros((2, 4), int)}, r"ranks: expected shape \(2, 3\), got shape \(2, 4\)"),
        ({"ranks": np.zeros((2, 3))}, "ranks: expected integers, got dtype float64"),
        ({"margin": -1.0}, "margin: expected a finite number, at least 0, got -1.0"),
        ({"centring": math.nan}, "centring: expected a finite number, at least 0, got nan"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        reward_loss(**{"scores": np.zeros((2, 3)), "ranks": np.zeros((2, 3), int)} | arguments)


def test_bad_gradients_and_counts_are_named():
    _, saved = reward_loss_forward(np.zeros((1, 2)), np.array([[0, 1]]))
    with pytest.raises(ValueError, match=r"d_loss: expected shape \(\), got shape \(2,\)"):
        reward_loss_backward(saved, np.ones(2))
    with pytest.raises(ValueError, match="bin_right: expected 0 to bin_pairs in each bin"):
        expected_calibration_error(np.zeros(10), np.ones(10))
    with pytest.raises(ValueError, match=r"bin_pairs: expected shape \(10,\)"):
        expected_calibration_error(np.zeros(9), np.zeros(9))
