"""The reference token rewards: the published vector, and one table for where the score goes."""

import numpy as np
import pytest

from gptwin.core.rlhf.kl import ESTIMATORS, kl
from gptwin.core.rlhf.token_rewards import (
    find_ended,
    token_rewards,
    token_rewards_backward,
    token_rewards_forward,
)

VECTOR = {
    "log_prob": np.array([[0, -1, -2, -0.5], [0, 0, -3, 0]]),
    "reference_log_prob": np.array([[0, -1.5, -1, -0.5], [0, 0, -1, 0]]),
    "scores": np.array([2.0, -1.0]),
    "mask": np.array([[0, 1, 1, 1], [0, 0, 1, 0]], bool),
}
END = 9
# tokens (two of the prompt, three of room for the response), mask, ended, where the score goes
TABLE = {
    "end first": ([5, 6, END, 0, 0], [0, 0, 1, 0, 0], True, 2),
    "end last": ([5, 6, 7, 8, END], [0, 0, 1, 1, 1], True, 4),
    "end between": ([5, 6, 7, END, 0], [0, 0, 1, 1, 0], True, 3),
    "end absent": ([5, 6, 7, 8, 7], [0, 0, 1, 1, 1], False, 4),
    "end in the prompt alone": ([END, 6, 7, 8, 7], [0, 0, 1, 1, 1], False, 4),
    "end in the prompt and last": ([END, 6, 7, 8, END], [0, 0, 1, 1, 1], True, 4),
    "end in the padding alone": ([5, 6, 7, END, END], [0, 0, 1, 0, 0], False, 2),
    "no response": ([5, 6, 0, 0, 0], [0, 0, 0, 0, 0], False, None),
}


def test_the_published_vector():
    np.testing.assert_allclose(
        token_rewards(**VECTOR, beta=0.1), [[0, -0.05, 0.1, 2.0], [0, 0, -0.8, 0]], atol=1e-15
    )


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize(
    ("rule", "value", "if_missing"),
    [(None, -1.0, 3.0), ("replace", -1.0, -1.0), ("replace", 0.5, 0.5), ("penalise", -1.0, 2.0)],
)
def test_where_the_score_goes_and_what_it_becomes(case, rule, value, if_missing):
    tokens, mask, has_ended, place = TABLE[case]
    mask = np.array([mask], bool)
    ended = find_ended(np.array([tokens]), mask, END)
    assert ended.tolist() == [has_ended]
    expected = np.zeros((1, 5))
    if place is not None:
        expected[0, place] = 3.0 if has_ended else if_missing
    options = {} if rule is None else {"ended": ended, "missing_end": rule}
    zero = np.zeros((1, 5))
    arguments = (zero, zero, np.array([3.0]), mask)
    rewards, saved = token_rewards_forward(*arguments, beta=0.1, missing_end_value=value, **options)
    np.testing.assert_array_equal(rewards, expected)
    # The score's gradient: that of its place, unless another number stands there.
    _, _, d_scores = token_rewards_backward(saved, np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]))
    lost = place is None or (rule == "replace" and not has_ended)
    assert d_scores.tolist() == [0.0 if lost else place + 1.0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_penalty_is_the_reported_kl(estimator):
    arguments = VECTOR | {"scores": np.zeros(2)}
    pair = (arguments["log_prob"], arguments["reference_log_prob"], arguments["mask"])
    np.testing.assert_array_equal(
        token_rewards(**arguments, beta=0.3, estimator=estimator),
        -0.3 * kl(*pair, estimator=estimator),
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_by_differences(estimator):
    rng, h = np.random.default_rng(0), 1e-6
    mask = rng.random((3, 6)) < 0.6
    inputs = [rng.normal(size=(3, 6)), rng.normal(size=(3, 6)), rng.normal(size=3)]
    options = {
        "beta": 0.2, "estimator": estimator, "missing_end": "replace",
        "ended": np.array([True, False, True]),
    }  # fmt: skip
    d = rng.normal(size=(3, 6))
    _, saved = token_rewards_forward(*inputs, mask, **options)
    for which, gradient in enumerate(token_rewards_backward(saved, d)):
        for index in np.ndindex(gradient.shape):
            sides = []
            for step in (h, -h):
                moved = [x.copy() for x in inputs]
                moved[which][index] += step
                sides.append((token_rewards(*moved, mask, **options) * d).sum())
            assert gradient[index] == pytest.approx((sides[0] - sides[1]) / (2 * h), abs=1e-8)


def test_an_all_masked_batch_is_zero_with_zero_gradients():
    nothing, junk = np.zeros((2, 3), bool), np.full((2, 3), np.nan)
    rewards, saved = token_rewards_forward(junk, junk, np.array([1.0, 2.0]), nothing, beta=0.1)
    gradients = token_rewards_backward(saved, junk)
    assert not rewards.any() and not any(g.any() for g in gradients)


def test_float32_stays_float32():
    arguments = {n: x.astype(np.float32) if n != "mask" else x for n, x in VECTOR.items()}
    ended = np.array([True, False])
    for rule in ("replace", "penalise"):
        rewards, saved = token_rewards_forward(
            **arguments, beta=np.float64(0.1), ended=ended, missing_end=rule
        )
        assert rewards.dtype == np.float32
        assert all(g.dtype == np.float32 for g in token_rewards_backward(saved, rewards))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beta": -0.1}, "beta: expected a finite number not below 0, got -0.1"),
        ({"beta": float("nan")}, "beta: expected a finite number"),
        ({"scores": np.zeros((2, 4))}, r"scores: expected shape \(2,\)"),
        ({"missing_end": "drop"}, "missing_end: expected None, 'replace' or 'penalise'"),
        ({"missing_end": "replace"}, r"ended: expected bools \[batch\], got None"),
        ({"ended": np.ones(2, bool)}, "missing_end: expected 'replace' or 'penalise', got None"),
        ({"ended": np.ones(2), "missing_end": "replace"}, "ended: expected dtype bool"),
        (
            {"ended": np.ones(2, bool), "missing_end": "penalise", "missing_end_value": 1.0},
            "missing_end_value: expected a number not above 0",
        ),
        ({"missing_end_value": float("inf")}, "missing_end_value: expected a finite number"),
        ({"estimator": "k0"}, "estimator: expected"),
    ],
)
def test_bad_arguments_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        token_rewards(**({**VECTOR, "beta": 0.1} | changed))


def test_bad_arguments_of_find_ended_and_backward_are_named():
    with pytest.raises(ValueError, match="mask: expected dtype bool"):
        find_ended(np.zeros((1, 2), int), np.zeros((1, 2)), END)
    _, saved = token_rewards_forward(**VECTOR, beta=0.1)
    with pytest.raises(ValueError, match="d_rewards: expected shape"):
        token_rewards_backward(saved, np.zeros(3))
