"""DIRECTOR's guided scores: the paper's composition, known values, and the climb to tiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.language.director_scores import (
    director_scores,
    director_scores_backward,
    director_scores_backward_tiled,
    director_scores_forward,
    director_scores_tiled,
    guided,
    log_sigmoid,
    sigmoid,
)
from gptwin.core.language.token_scores import log_softmax

seeds = st.integers(0, 1000)
gammas = st.sampled_from([0.0, 0.5, 1.0, 3.0])
TENSORS = ("hidden", "weight", "class_weight", "targets", "mask")

G, C = np.array([[2.0, 1.0, 0.0, -1.0]]), np.array([[-2.0, 0.0, 2.0, 1.0]])
# Computed for gptwin with other code, from arXiv 2206.07694's formula.
GUIDED = {
    0.0: (-0.44019, -1.44019, -2.44019, -3.44019),
    0.5: (-0.808533, -1.091643, -1.808533, -2.901700),
    1.0: (-1.347662, -0.913882, -1.347662, -2.533996),
    3.0: (-4.545757, -1.244414, -0.545757, -2.104758),
}


def batch(seed=0, n=6, d_model=4, vocab=9, dtype=np.float64, share=0.7):
    rng = np.random.default_rng(seed)
    drawn = (
        rng.normal(size=(n, d_model)).astype(dtype),
        rng.normal(size=(d_model, vocab)).astype(dtype),
        rng.normal(0, 2, size=(d_model, vocab)).astype(dtype),
        rng.integers(0, vocab, n),
        rng.random(n) < share,
    )
    return dict(zip(TENSORS, drawn, strict=True))


def of_logits(g, c, target, gamma):
    """Score one token whose heads' logits are these: the hidden state is 1."""
    return director_scores(np.ones((1, 1)), g, c, np.array([target]), np.ones(1, bool), gamma=gamma)


@pytest.mark.parametrize("gamma", GUIDED)
def test_known_values(gamma):
    found = [of_logits(G, C, target, gamma).log_prob[0] for target in range(4)]
    np.testing.assert_allclose(found, GUIDED[gamma], atol=2e-6)
    p = np.exp(found)
    assert p.sum() == pytest.approx(1)
    assert of_logits(G, C, 0, gamma).entropy[0] == pytest.approx(-(p * np.log(p)).sum())


@given(seeds, gammas)
def test_it_is_the_papers_two_log_softmaxes(seed, gamma):
    a = batch(seed)
    g, c = a["hidden"] @ a["weight"], a["hidden"] @ a["class_weight"]
    log_p = log_softmax(log_softmax(g) + gamma * np.log(1 / (1 + np.exp(-c))))
    expected = log_p[np.arange(len(log_p)), a["targets"]]
    np.testing.assert_allclose(
        director_scores(**a, gamma=gamma).log_prob, np.where(a["mask"], expected, 0), atol=1e-12
    )


@given(seeds, gammas, st.floats(-5, 5))
def test_a_classifier_that_says_the_same_of_all_words_says_nothing(seed, gamma, same):
    a = batch(seed)
    a["class_weight"][:] = 0
    a["class_weight"][0] = same  # one logit a token, the same for every word
    np.testing.assert_allclose(
        director_scores(**a, gamma=gamma).log_prob,
        director_scores(**a, gamma=0.0).log_prob,
        atol=1e-12,
    )


@given(seeds, gammas, st.integers(1, 12))
def test_the_tiled_climb_equals_the_definition(seed, gamma, block):
    a = batch(seed, share=1.0)
    *heads, targets, mask = a.values()
    log_prob, entropy, lse = director_scores_tiled(*heads, targets, gamma, block)
    results, saved = director_scores_forward(*heads, targets, mask, gamma=gamma)
    np.testing.assert_allclose(log_prob, results.log_prob, atol=1e-12)
    np.testing.assert_allclose(entropy, results.entropy, atol=1e-12)
    d = np.random.default_rng(seed).normal(size=len(mask))
    tiled = director_scores_backward_tiled(*heads, targets, gamma, block, lse, d)
    for found, expected in zip(tiled, director_scores_backward(saved, d), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-11)


def test_the_gradient_of_both_heads_by_differences():
    """Of one token whose state is 1: d log π = (1 − p)·dg + γ·σ(−c)·(1 − p)·dc at the target."""
    gamma, h = 1.5, 1e-6
    _, saved = director_scores_forward(
        np.ones((1, 1)), G, C, np.array([2]), np.ones(1, bool), gamma=gamma
    )
    _, d_g, d_c = director_scores_backward(saved, np.ones(1))
    for j in range(4):
        step = h * (np.arange(4) == j)[None]
        up, down = (of_logits(G + s * step, C, 2, gamma).log_prob[0] for s in (1, -1))
        assert d_g[0, j] == pytest.approx((up - down) / (2 * h), abs=1e-8)
        up, down = (of_logits(G, C + s * step, 2, gamma).log_prob[0] for s in (1, -1))
        assert d_c[0, j] == pytest.approx((up - down) / (2 * h), abs=1e-8)


def test_without_a_guide_the_classifier_gets_no_gradient():
    a = batch()
    _, saved = director_scores_forward(**a, gamma=0.0)
    assert not director_scores_backward(saved, np.ones(6))[2].any()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_sure_classifier_neither_overflows_nor_loses_its_sign(dtype):
    x = np.array([-1e4, -50.0, 0.0, 50.0, 1e4], dtype)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(log_sigmoid(x)[:3], [-1e4, -50, -np.log(2)], rtol=1e-6)
        np.testing.assert_allclose(log_sigmoid(x)[3:], [-np.exp(-50.0), 0], rtol=1e-6)
        np.testing.assert_allclose(sigmoid(x) + sigmoid(-x), 1, rtol=1e-6)
    # A word that may not be is not said, however likely it was; the others keep their odds.
    log_p = log_softmax(guided(np.array([[9.0, 1.0, 0.0]], dtype), x[None, [0, 4, 4]], 1.0))[0]
    assert np.exp(log_p[0]) == 0 and log_p[1] - log_p[2] == pytest.approx(1)


def test_masked_rows_are_never_looked_at():
    a = batch()
    a["hidden"][~a["mask"]] = np.nan
    a["targets"][~a["mask"]] = -100
    results, saved = director_scores_forward(**a)
    gradients = director_scores_backward(saved, np.where(a["mask"], 1, np.nan))
    assert all(np.isfinite(x).all() for x in (*results, *gradients))
    assert not gradients[0][~a["mask"]].any() and not results.log_prob[~a["mask"]].any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gamma": -0.5}, r"^gamma: expected a finite number of at least 0, got -0.5"),
        ({"gamma": float("nan")}, r"^gamma: expected"),
        ({"class_weight": np.ones((4, 8))}, r"^class_weight: expected shape \(4, 9\)"),
        ({"class_weight": np.ones((4, 9), int)}, r"^class_weight: expected floats"),
        ({"targets": np.full(6, 9)}, r"^targets: expected 0 to 8 where unmasked, got 9"),
        ({"mask": np.ones(5, bool)}, r"^mask: expected shape \(6,\)"),
        ({"class_weight": np.full((4, 9), np.inf)}, r"^class_weight: expected finite numbers"),
    ],
)
def test_what_is_wrong_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        director_scores(**(batch() | wrong))
