"""GPT-1's objective: the sheet's figures, its gradient, and what does not count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.language.finetuning_loss import (
    finetuning_loss,
    finetuning_loss_backward,
    finetuning_loss_forward,
)

LOGITS, LABEL = np.array([[1.2, 0.4]]), np.array([0])


def padded(*losses):
    """Losses of sequences of unequal lengths, padding on the left, and what counts."""
    time = max(map(len, losses))
    mask = np.array([[False] * (time - len(row)) + [True] * len(row) for row in losses])
    filled = np.full(mask.shape, np.nan)
    filled[mask] = np.concatenate(losses)
    return filled, mask


@pytest.mark.parametrize(("lm_weight", "loss"), [(0.5, 1.371101), (0.0, 0.371101)])
def test_a_choice_of_two(lm_weight, loss):
    losses = padded([1.0, 2, 3], [0.5, 1.5, 4])
    found = finetuning_loss(LOGITS, LABEL, *losses, lm_weight=lm_weight)
    np.testing.assert_allclose(found, (loss, 0.371101, 2.0), atol=1e-6)


def test_each_sequence_weighs_the_same():
    losses, mask = padded([1.0, 2, 3], [4.0])
    assert finetuning_loss(LOGITS, LABEL, losses, mask).language_model == 3.0
    assert losses[mask].mean() == 2.5  # what a mean over tokens would be


def test_states_of_both_orders_are_added():
    h, w = np.array([[0.2, -0.1, 0.4], [0.1, 0.3, -0.2]]), np.array([[1.0, 0, -1], [0, 1, 1]])
    none = np.zeros((2, 1)), np.zeros((2, 1), bool)
    for order in (h, h[::-1]):
        logits = order.sum(axis=0, keepdims=True) @ w.T
        np.testing.assert_allclose(logits, [[0.1, 0.4]], atol=1e-12)
        found = finetuning_loss(logits, np.array([1]), *none)
        np.testing.assert_allclose(found.loss, 0.554355, atol=1e-6)


def test_a_sequence_without_a_counted_token_does_not_count():
    losses, mask = padded([1.0, 2, 3], [])
    assert finetuning_loss(LOGITS, LABEL, losses, mask).language_model == 2.0
    nothing = finetuning_loss(LOGITS, LABEL, losses, np.zeros_like(mask))
    assert nothing.language_model == 0.0 and nothing.loss == nothing.task


@given(st.integers(1, 4), st.integers(2, 5), st.integers(1, 5), st.integers(0, 10**6))
def test_the_gradient(n, classes, time, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, classes)), rng.integers(classes, size=n)
    losses, mask = rng.random((2 * n, time)), rng.random((2 * n, time)) < 0.7
    weight = rng.random()
    _, saved = finetuning_loss_forward(logits, labels, losses, mask, lm_weight=weight)
    gradients = finetuning_loss_backward(saved, 2.0)
    for x, gradient in zip((logits, losses), gradients, strict=True):
        direction = rng.normal(size=x.shape)
        ends = []
        for step in (1e-6, -1e-6):
            moved = [y + step * direction if y is x else y for y in (logits, losses)]
            ends.append(finetuning_loss(moved[0], labels, moved[1], mask, lm_weight=weight).loss)
        slope = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(2 * slope, (gradient * direction).sum(), atol=1e-7)


def test_float32_stays_float32():
    losses, mask = padded([1.0, 2], [3.0])
    arguments = LOGITS.astype(np.float32), LABEL, losses.astype(np.float32), mask
    found, saved = finetuning_loss_forward(*arguments, lm_weight=np.float64(0.5))
    assert {x.dtype for x in (*found, *finetuning_loss_backward(saved, 1.0))} == {np.dtype("f4")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": np.array([2])}, "labels: expected 0 to 1.*counted from 1"),
        ({"labels": np.array([0, 1])}, "labels: expected shape"),
        ({"mask": np.ones((1, 2))}, "mask: expected dtype bool"),
        ({"lm_weight": -1.0}, "lm_weight: expected a finite number"),
        ({"token_losses": np.zeros(2)}, "token_losses: expected"),
    ],
)
def test_bad_input_is_refused(change, said):
    good = {
        "logits": LOGITS, "labels": LABEL, "token_losses": np.zeros((1, 2)),
        "mask": np.ones((1, 2), bool), "lm_weight": 0.5,
    }  # fmt: skip
    with pytest.raises(ValueError, match=said):
        finetuning_loss(**good | change)
