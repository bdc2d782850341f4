"""Mistrust by example and by user: what a formula says of each, and a simulation."""

import numpy as np
import pytest

from gptwin.core.dialogue.trolls import (
    Kept,
    chance_of_at_least,
    contradicted,
    left_after,
    mean_of_user,
    purr,
)

EXAMPLES, USERS = {"by_example": True}, {"by_user": True}


def test_how_often_a_label_is_contradicted():
    assert contradicted(0.7, 0.0) == pytest.approx(0.3)
    assert contradicted(0.7, 0.8) == pytest.approx(0.62)
    assert chance_of_at_least(5, 10, 0.3) == pytest.approx(0.150268, abs=1e-6)
    assert chance_of_at_least(5, 10, 0.62) == pytest.approx(0.865240, abs=1e-6)


@pytest.mark.parametrize(
    ("right", "how", "expected"),
    [
        (0.7, {}, (1.0, 0.40)),
        (0.7, EXAMPLES, (0.54, 0.222222)),
        (0.7, USERS, (0.492246, 0.099916)),
        (0.7, EXAMPLES | USERS, (0.358399, 0.075745)),
        (0.9, EXAMPLES, (None, 0.068966)),
        (0.9, USERS, (None, 0.013094)),
        (0.9, EXAMPLES | USERS, (None, 0.005001)),
    ],
)
def test_what_cleaning_leaves(right, how, expected):
    found = left_after(right, **how)
    assert found.wrong == pytest.approx(expected[1], abs=1e-6)
    if expected[0] is not None:
        assert found.share == pytest.approx(expected[0], abs=1e-6)


def test_a_simulation_agrees():
    rng = np.random.default_rng(0)
    wrong = rng.random((20_000, 10)) < np.where(np.arange(20_000) % 2, 0.8, 0.0)[:, None]
    against = wrong == (rng.random(wrong.shape) < 0.7)  # the model is right: it sees what is wrong
    honest = against.sum(1) < 5
    for how, kept in (
        (EXAMPLES, ~against),
        (USERS, np.broadcast_to(honest[:, None], wrong.shape)),
        (EXAMPLES | USERS, ~against & honest[:, None]),
    ):
        found = Kept(kept.mean(), wrong[kept].mean())
        np.testing.assert_allclose(found, left_after(0.7, **how), atol=0.01)


def test_soft_purr_adds_what_is_thought_of_the_users_others():
    mistrust = np.array([0.9, 0.2, 0.3])
    np.testing.assert_allclose(purr(mistrust, ["a"] * 3), [1.15, 0.8, 0.85])
    np.testing.assert_allclose(purr(mistrust, ["a", "b", "b"]), [0.9, 0.35, 0.4])


def test_a_user_of_one_label_has_the_own_mistrust_alone():
    mistrust = np.array([0.9, 0.2, 0.4])
    np.testing.assert_allclose(mean_of_user(mistrust, ["a", "b", "b"]), [0.9, 0.4, 0.2])
    np.testing.assert_allclose(mean_of_user(mistrust, ["b"] * 3), [0.3, 0.65, 0.55])
    np.testing.assert_allclose(purr(mistrust, ["a", "b", "b"], alpha=2.0), [0.9, 1.0, 0.8])


def test_nobody_left_is_no_division_by_zero():
    assert left_after(0.7, by_user=True, most=0) == Kept(0.0, 0.0)
    assert left_after(1.0, by_example=True).wrong == 0
    assert left_after(0.0, by_example=True, trolls=0.0) == Kept(0.0, 0.0)  # all are contradicted
