"""What the exercises promise: gradable, repeatable, none both in training and in evaluation."""

import itertools
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.rl.data.documentation import documentation
from gptwin.rl.data.tasks import (
    CATEGORIES,
    FAMILIES,
    OPPOSITES,
    Exercise,
    demonstration,
    exercises,
    gold,
    passes,
    rank,
)


def some(n, seed=0, held_out=False):
    return list(itertools.islice(exercises(seed, held_out=held_out), n))


def one(family):
    return next(e for e in some(len(FAMILIES)) if e.family == family)


def test_the_reference_answer_is_perfect():
    for exercise in some(800):
        assert gold(exercise, exercise.answer) == 1.0
        assert passes(exercise, exercise.answer.upper() + ".")


@given(st.integers(0, 10**6), st.text(max_size=60))
def test_gold_lies_between_0_and_1(seed, response):
    for exercise in some(len(FAMILIES), seed):
        assert 0 <= gold(exercise, response) <= 1
        assert gold(exercise, "") == 0


def test_training_and_evaluation_share_no_conversation():
    training, evaluation = ({e.messages for e in some(4000, held_out=h)} for h in (False, True))
    assert not training & evaluation
    assert len(training) > 1000 < len(evaluation)


def test_a_seed_draws_the_same_again_and_another_does_not():
    assert some(50, 3) == some(50, 3) != some(50, 4)


def test_every_family_is_drawn_as_often():
    drawn = [exercise.family for exercise in some(80)]
    assert {drawn.count(family) for family in FAMILIES} == {10}


def test_one_family_has_several_turns():
    assert any(
        len(exercise.messages) > 3 for exercise in some(800) if exercise.family == "remember"
    )


def test_chatter_costs_but_keeps_half():
    exercise = Exercise("opposite", (), "cold")
    assert gold(exercise, "I think it is cold") == pytest.approx(0.6)
    assert gold(exercise, "cold " * 50) == 0.5
    assert gold(exercise, "hot") == 0


def test_words_in_their_place_earn_a_share():
    exercise = Exercise("repeat", (), "red lamp tree")
    assert gold(exercise, "red lamp") == pytest.approx(1 / 3)
    assert gold(exercise, "red lamp house") == pytest.approx(1 / 3)
    assert gold(exercise, "tree lamp red") == pytest.approx(1 / 6)


def test_a_list_wants_two_different_members():
    exercise = one("list")
    category = next(c for c in CATEGORIES if c in exercise.messages[-1].content)
    a, b, c = CATEGORIES[category][:3]
    assert gold(exercise, f"{a} and {b}") == gold(exercise, f"{a}, {b}, {c}") == 1
    assert gold(exercise, a) == 0.5
    assert gold(exercise, f"{a}, {a}") == pytest.approx(1 / 2 - 0.1)
    assert gold(exercise, f"{a}, {b}, sofa") == pytest.approx(0.9)


def test_each_word_has_one_opposite():
    asked = {
        e.messages[0].content.split()[-1]: e.answer
        for e in some(4000)
        if "Opp" in e.messages[0].content
    }
    assert len(asked) >= len(OPPOSITES)
    for exercise in some(4000, 1):
        word = exercise.messages[0].content.split()[-1]
        if exercise.family == "opposite" and word in asked:
            assert exercise.answer == asked[word]


def test_careless_demonstrations_are_worse():
    rng = Random(0)
    drawn = some(800)
    careful, careless = (
        sum(gold(e, demonstration(e, rng, share)) for e in drawn) / len(drawn)
        for share in (0.0, 0.5)
    )
    assert careful == 1
    assert 0.6 < careless < 0.9


def test_labellers_compare_as_bradley_and_terry_say():
    rng, noise = Random(0), 0.3
    golds = [0.2, 0.5, 0.9]
    n = 20_000
    first_beats_last = sum((r := rank(golds, rng, noise))[0] < r[2] for _ in range(n)) / n
    expected = 1 / (1 + math.exp(0.7 / noise))
    assert first_beats_last == pytest.approx(expected, abs=4 * math.sqrt(0.25 / n))
    assert rank(golds, rng, 0.0) == [2, 1, 0]


def test_documentation_is_real_text_in_two_parts():
    training, validation = documentation()
    assert sum(map(len, training)) > 500_000
    assert len(validation) > 10
    assert not set(training) & set(validation)
