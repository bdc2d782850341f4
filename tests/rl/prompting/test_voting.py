"""Majorities, weighed ones, and what voting is worth: known values, enumeration, ties."""

import itertools
import math

import pytest

from gptwin.rl.prompting.voting import (
    log_weights,
    majority,
    majority_accuracy,
    weighted_majority,
)


@pytest.mark.parametrize(
    ("answers", "wins"),
    [
        (["7", "5", "5", "7", "3"], "7"),  # of the tied, the first that was seen
        (["5", "7", "7", "5", "3"], "5"),
        (["", "", "4"], "4"),  # who says nothing has no vote
        (["", ""], ""),
        ([], ""),
    ],
)
def test_majority(answers, wins):
    assert majority(answers) == wins


def test_votes_weigh_what_their_replies_are_likely():
    answers, log_probs = ["7", "5", "5", "7"], [-1, -2, -1.5, -4]
    weights = {a: math.exp(w) for a, w in log_weights(answers, log_probs).items()}
    assert weights == pytest.approx({"7": 0.386195, "5": 0.358465}, abs=1e-6)
    assert majority(answers) == weighted_majority(answers, log_probs) == "7"
    # Long replies have probabilities that a float has no room for.
    assert weighted_majority(["1", "2", "2"], [-2000, -2000.6, -2000.5]) == "2"
    assert weighted_majority(["a", "b"], [-1, -1]) == "a"
    assert weighted_majority([""], [-1]) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        (0.6, [0.4], {1: 0.6, 2: 0.6, 3: 0.648, 5: 0.68256, 9: 0.733432, 21: 0.825622,
                      41: 0.903483}),
        (0.4, [0.6], {1: 0.4, 3: 0.352, 5: 0.31744, 9: 0.266568, 21: 0.174378, 41: 0.096517}),
        (0.4, [0.2] * 3, {1: 0.4, 3: 0.448, 5: 0.50944, 10: 0.616825, 20: 0.753325}),
    ],
)  # fmt: skip
def test_what_voting_is_worth(right, wrong, expected):
    found = {n: majority_accuracy(right, wrong, n) for n in expected}
    assert found == pytest.approx(expected, abs=1e-6)


def test_it_is_what_enumeration_says_of_unequal_answers():
    chances = {"right": 0.35, "b": 0.4, "c": 0.25}
    total = 0.0
    for said in itertools.product(chances, repeat=5):
        total += math.prod(chances[a] for a in said) * (majority(said) == "right")
    assert majority_accuracy(0.35, [0.4, 0.25], 5) == pytest.approx(total, abs=1e-12)


def test_its_ends_and_what_it_refuses():
    assert majority_accuracy(1.0, [], 7) == pytest.approx(1.0)
    assert majority_accuracy(0.0, [1.0], 7) == 0.0
    with pytest.raises(ValueError, match=r"wrong: expected probabilities.*sum to 1"):
        majority_accuracy(0.6, [0.6], 3)
    with pytest.raises(ValueError, match="n: expected"):
        majority_accuracy(0.6, [0.4], 0)
