"""DIRECTOR's losses and its exact world, CRINGE, unlikelihood, factual nucleus: known values."""

import math

import numpy as np
import pytest

from gptwin.core.dialogue.cringe import alternatives, cringe, unlikelihood
from gptwin.core.dialogue.director import (
    class_loss,
    director_loss,
    guided_world,
    neutrality,
    spoken,
)
from gptwin.core.dialogue.factual_nucleus import nucleus, nucleus_share, sentence_ends

G, C = np.array([2.0, 1.0, 0.0, -1.0]), np.array([-2.0, 0.0, 2.0, 1.0])
NO, LM = (False, False), (True, True)


def loss(*examples, **options):
    """Compute the loss of examples (targets, language, labels) whose every step has G and C."""
    targets, language, labels = (np.array(part) for part in zip(*examples, strict=True))
    g, c = (np.broadcast_to(x, (*targets.shape, 4)) for x in (G, C))
    return director_loss(g, c, targets, language, labels, **options)


SPOKEN_AS_LM = ((0, 2), LM, (-1, -1))
NEGATIVE = ((0, 1), NO, (0, 0))
POSITIVE = ((2, 0), NO, (1, -1))
BOTH = ((2, 0), (True, False), (1, -1))
NOTHING = ((0, 0), NO, (-1, -1))


@pytest.mark.parametrize(
    ("examples", "plain", "normalised"),
    [
        ([SPOKEN_AS_LM], 1.440190, 1.440190),
        ([NEGATIVE], 0.205019, 0.250168),
        ([POSITIVE], 0.063464, 0.096530),
        ([SPOKEN_AS_LM, NEGATIVE, POSITIVE], 1.708673, 1.786888),
        ([BOTH], 1.251827, None),
        ([NOTHING], 0.0, 0.0),
        ([SPOKEN_AS_LM, NOTHING], 1.440190, 1.440190),
    ],
)
def test_the_loss_of_an_example_is_a_mean_over_its_own_tokens(examples, plain, normalised):
    assert loss(*examples) == pytest.approx(plain, abs=1e-6)
    if normalised is not None:
        assert loss(*examples, neutral=1.0) == pytest.approx(normalised, abs=1e-6)


def test_or_each_kind_of_token_is_counted_over_the_whole_batch():
    assert loss(SPOKEN_AS_LM, NEGATIVE, POSITIVE, per="token") == pytest.approx(1.598024, abs=1e-6)
    assert loss(NOTHING, per="token") == 0


def test_a_labelled_token_alone_is_a_binary_cross_entropy():
    found = class_loss(np.stack([C, C, C]), np.array([0, 1, 2]), np.array([0, 0, -1]))
    np.testing.assert_allclose(found, [0.126928, math.log(2), 0], atol=1e-6)


def test_one_token_of_each_kind_is_divided_by_one():
    one = ((0,), (True,), (0,))
    expected = 0.440190 + 0.5 * 0.126928
    assert loss(one, per="token") == pytest.approx(expected, abs=1e-6)
    assert loss(one) == pytest.approx(expected / 2, abs=1e-6)


def test_of_two_words_the_other_one_is_held_at_a_half():
    c = np.array([[3.0, math.log(3)], [3.0, math.log(3)]])
    found = neutrality(c, np.array([0, 1]))
    np.testing.assert_allclose(found, [0.0625, (1 / (1 + math.exp(-3)) - 0.5) ** 2])
    assert neutrality(c[:, :1], np.array([0, 0])).tolist() == [0, 0]


@pytest.mark.parametrize("wrong", [{"per": "batch"}, {"gamma": -1.0}, {"neutral": math.inf}])
def test_a_wrong_option_is_refused(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: expected"):
        loss(NEGATIVE, **wrong)


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.0, (0.2, 0.488, 0.0)),
        (1.0, (0.032727, 0.095002, 0.373249)),
        (3.0, (0.000619, 0.001857, 0.656425)),
    ],
)
def test_the_exact_world(gamma, expected):
    np.testing.assert_allclose(guided_world(gamma), expected, atol=1e-6)


def test_the_word_is_that_of_the_first_place():
    table = np.random.default_rng(0).normal(size=(31, 5))
    opinion = np.array([2.0, 2, 2, 2, -2])
    first = np.exp(spoken(table[0], opinion, 1.0))[4]
    assert guided_world(1.0, generator=table).word == pytest.approx(first)


def test_in_any_world_more_guidance_breaks_the_rule_less_and_goes_further():
    table = np.random.default_rng(0).normal(size=(31, 5))
    found = [guided_world(gamma, generator=table, forbidden=2) for gamma in (0.0, 0.5, 1.0, 2.0)]
    assert np.all(np.diff([f.violation for f in found]) < 0)
    assert np.all(np.diff([f.kl for f in found]) > 0) and found[0].kl == pytest.approx(0, abs=1e-12)


def test_nobody_is_guided_backwards():
    for guide in (lambda: spoken(G, C, -1.0), lambda: guided_world(-1.0)):
        with pytest.raises(ValueError, match=r"^gamma: expected"):
            guide()


def test_what_is_spoken_is_a_distribution():
    assert np.exp(spoken(G, C, 2.0)).sum() == pytest.approx(1)
    assert spoken(G, C, 1.0).argmax() == 1 and spoken(G, C, 3.0).argmax() == 2


# --- what should not be said ----------------------------------------------------------------------


def test_unlikelihood():
    g = np.stack([G, G])
    np.testing.assert_allclose(unlikelihood(g, np.array([0, 1])), [1.032584, 0.270344], atol=1e-6)
    sure = np.array([[100.0, 0.0]])
    assert unlikelihood(sure, np.array([0]))[0] == pytest.approx(-math.log(1e-20))
    assert np.isfinite(unlikelihood(1e4 * sure, np.array([0]))).all()
    # Nothing cancels: 1 − p is the sum of the others, e^(−30) of them all.
    nearly = np.array([[30.0, 0.0]])
    assert unlikelihood(nearly, np.array([0]))[0] == pytest.approx(30, abs=1e-9)


@pytest.mark.parametrize(("k", "expected"), [(1, (1.313262, 0.126928)), (2, (1.532090, 0.177041))])
def test_cringe(k, expected):
    g = np.stack([G, G])
    found = cringe(g, np.array([0, 2]), k)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cringe_draws_what_to_say_instead():
    g, targets = np.stack([G, G, G]), np.array([0, 0, 0])
    instead = alternatives(g, targets, 2)
    assert instead.logits[0].tolist() == [1, 0]
    np.testing.assert_allclose(instead.chances[0], [0.731059, 0.268941], atol=1e-6)
    found = cringe(g, targets, 2, drawn=np.array([0.0, 0.73, 0.74]))
    first, second = math.log1p(math.e), math.log1p(math.e**2)
    np.testing.assert_allclose(found, [first, first, second])
    # Numbers below a chance draw the first: one that is equal to it draws the second.
    assert cringe(g[:1], targets[:1], 2, drawn=instead.chances[:1, 0]) == pytest.approx(second)
    # A target that is none of the likeliest leaves out the last of these.
    assert alternatives(g[:1], np.array([3]), 2).logits.tolist() == [[2, 1]]
    with pytest.raises(ValueError, match=r"^k: expected 1 to 3"):
        cringe(g, targets, 4)


def test_of_an_empty_batch_nothing_is_left():
    nothing, none = np.zeros((0, 4)), np.zeros(0, int)
    assert len(unlikelihood(nothing, none)) == len(cringe(nothing, none)) == 0


# --- factual nucleus ------------------------------------------------------------------------------


def test_the_share_of_the_nucleus_decays_within_a_sentence():
    expected = [
        0.9, 0.9, 0.81, 0.729, 0.6561, 0.59049, 0.531441, 0.478297, 0.430467, 0.387420, 0.348678,
        0.313811, 0.3, 0.3,
    ]  # fmt: skip
    np.testing.assert_allclose(nucleus_share(np.arange(14)), expected, atol=1e-6)
    assert nucleus_share(np.array([5]), p=1.0, decay=1.0, floor=1.0) == [1.0]  # everything, always
    for wrong in ({"floor": 0.95}, {"p": 0.0}, {"decay": 1.5}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: expected"):
            nucleus_share(np.arange(3), **wrong)


@pytest.mark.parametrize(("share", "kept"), [(0.5, 1), (0.51, 2), (0.81, 3), (1e-9, 1)])
def test_the_nucleus_keeps_the_likeliest(share, kept):
    p = np.array([[0.15, 0.5, 0.05, 0.3]])
    found = nucleus(p, np.array([share]))[0]
    assert found.sum() == kept and found[1]
    assert nucleus(np.array([[0.25] * 4]), np.array([0.3]))[0].tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_where_a_sentence_ends():
    assert sentence_ends("tree. ") and sentence_ends("?") and not sentence_ends("tree,")
