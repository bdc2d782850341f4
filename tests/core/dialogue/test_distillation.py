"""KL over the top tokens and a bucket: known values, gradients, and the edges."""

import numpy as np
import pytest

from gptwin.core.dialogue.distillation import (
    LOG_FLOOR,
    context_distillation,
    context_distillation_backward,
    context_distillation_forward,
    top_log_probs,
)

TEACHER = np.array([0.5, 0.2, 0.1, 0.1, 0.06, 0.04])
STUDENT = np.array([0.3, 0.3, 0.2, 0.1, 0.05, 0.05])


def test_the_known_value_and_gradient():
    ids, stored = top_log_probs(np.log(TEACHER), 2)
    assert ids.tolist() == [0, 1]
    kl, saved = context_distillation_forward(np.log(STUDENT), ids, stored)
    assert kl == pytest.approx(0.088015, abs=1e-6)
    gradient = context_distillation_backward(saved, np.ones(()))
    np.testing.assert_allclose(gradient, [-0.2, 0.1, 0.05, 0.025, 0.0125, 0.0125], atol=1e-12)


def test_all_tokens_stored_give_the_whole_divergence():
    for k in (5, 6):  # a bucket of one token is that token
        ids, stored = top_log_probs(np.log(TEACHER), k)
        kl = context_distillation(np.log(STUDENT) + 3.0, ids, stored)
        assert kl == pytest.approx(0.107019, abs=1e-6)


def test_gradient_by_differences():
    rng, h = np.random.default_rng(0), 1e-6
    logits, d_kl = rng.normal(size=(2, 3, 7)), rng.normal(size=(2, 3))
    ids, stored = top_log_probs(rng.normal(size=(2, 3, 7)), 3)
    gradient = context_distillation_backward(
        context_distillation_forward(logits, ids, stored)[1], d_kl
    )
    for place in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[place] = h
        ahead, behind = (context_distillation(logits + s, ids, stored) for s in (step, -step))
        by_differences = ((ahead - behind) * d_kl).sum() / (2 * h)
        assert gradient[place] == pytest.approx(by_differences, abs=1e-8)


def test_a_teacher_with_nothing_left_gives_the_bucket_no_term():
    certain = np.array([0.0, -np.inf, -np.inf, -np.inf])
    kl, saved = context_distillation_forward(np.zeros(4), np.array([0, 1]), certain[:2])
    assert kl == pytest.approx(np.log(4))
    np.testing.assert_allclose(
        context_distillation_backward(saved, np.ones(())), [-0.75, 0.25, 0.25, 0.25]
    )


def test_a_student_with_nothing_left_is_held_at_the_floor():
    ids, stored = np.array([0, 1]), np.log([0.6, 0.3])
    logits = np.array([0.0, 0.0, -np.inf, -np.inf])
    kl, saved = context_distillation_forward(logits, ids, stored)
    expected = 0.6 * np.log(0.6 / 0.5) + 0.3 * np.log(0.3 / 0.5) + 0.1 * (np.log(0.1) - LOG_FLOOR)
    assert kl == pytest.approx(expected)
    gradient = context_distillation_backward(saved, np.ones(()))
    np.testing.assert_allclose(gradient, [0.45 - 0.6, 0.45 - 0.3, 0, 0], atol=1e-12)


def test_float32_stays_float32_and_extreme_logits_stay_finite():
    logits = np.array([[1e4, 0, -1e4, 3]], np.float32)
    ids, stored = top_log_probs(np.zeros((1, 4), np.float32), 2)
    kl, saved = context_distillation_forward(logits, ids, stored)
    gradient = context_distillation_backward(saved, np.ones(1, np.float32))
    assert kl.dtype == gradient.dtype == np.float32
    assert np.isfinite(kl).all() and np.isfinite(gradient).all()
    # Of the teacher's cells, a quarter, a quarter and the rest, the student fills the first.
    entropy = 0.5 * np.log(0.25) + 0.5 * np.log(0.5)
    assert kl == pytest.approx([entropy - 0.75 * LOG_FLOOR], rel=1e-6)


@pytest.mark.parametrize(
    ("ids", "stored", "what"),
    [
        ([0, 6], [-1.0, -1.0], "ids from 0 to 5"),
        ([1, 1], [-1.0, -1.0], "each id once"),
        ([0, 1], [2.0, 1.0], "sum to 1 at most"),
        ([0, 1, 2], [-1.0, -2.0], "top_log_probs"),
        ([0.0, 1.0], [-1.0, -2.0], "integers"),
        ([0, 1, 1], [-2.0, -2.0, -2.0], "each id once"),
        ([0, 1], [np.log(0.7), np.log(0.8)], "sum to 1 at most"),
        ([[0, 1]], [[-1.0, -2.0]], "top_ids: expected shape"),
        ([0, 1], [-1, -2], "top_log_probs: expected floats"),
    ],
)
def test_what_is_refused(ids, stored, what):
    with pytest.raises(ValueError, match=what):
        context_distillation(np.zeros(6), np.array(ids), np.array(stored))


def test_how_many_may_be_stored():
    for k in (0, 7):
        with pytest.raises(ValueError, match="k: expected from 1 to the vocabulary's 6"):
            top_log_probs(np.log(TEACHER), k)


def test_every_row_is_looked_at():
    ids, half = np.array([[0, 1], [0, 1]]), np.log(0.5)
    for wrong in (0, 1):
        stored = np.full((2, 2), half)
        stored[wrong] = 0.0
        with pytest.raises(ValueError, match="sum to 1 at most"):
            context_distillation(np.zeros((2, 6)), ids, stored)
        twice = ids.copy()
        twice[wrong] = 1
        with pytest.raises(ValueError, match="each id once"):
            context_distillation(np.zeros((2, 6)), twice, np.full((2, 2), half))


def test_the_likeliest_token_alone_may_be_stored():
    ids, stored = top_log_probs(np.log(TEACHER), 1)
    assert (ids.tolist(), stored.tolist()) == ([0], [pytest.approx(np.log(0.5))])
    with pytest.raises(ValueError, match="k: expected from 1"):
        context_distillation(np.zeros(6), np.zeros(0, int), np.zeros(0))
    with pytest.raises(ValueError, match="logits: expected floats"):
        top_log_probs(np.arange(6), 2)


def test_a_cell_at_the_floor_has_a_gradient_still():
    logits, ids, stored = np.array([0.0, LOG_FLOOR]), np.array([0, 1]), np.log([0.5, 0.5])
    for below, pulled in ((0.0, -0.5), (1e-9, 0.0)):
        _, saved = context_distillation_forward(logits - [0, below], ids, stored)
        gradient = context_distillation_backward(saved, np.ones(()))
        assert gradient[1] == pytest.approx(pulled, abs=1e-12)
    with pytest.raises(ValueError, match="d_kl: expected shape"):
        context_distillation_backward(saved, np.ones(2))
