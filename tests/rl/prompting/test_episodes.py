"""Documents with a label map of their own: the exact ceiling, the controls, a model that learns."""

import dataclasses
from collections import Counter
from random import Random

import pytest
import torch

from gptwin.rl.prompting import episodes as e


def test_the_ceiling():
    expected = [0.5, 0.75, 0.875, 0.96875, 0.998047]
    assert [e.ceiling(k) for k in (0, 1, 2, 4, 8)] == pytest.approx(expected, abs=1e-6)
    assert e.ceiling(0, bijection=True) == 0.5
    assert e.ceiling(1, bijection=True) == 1.0  # the other class has the other label
    assert e.ceiling(3, classes=1, labels=4) == 1.0


def test_the_ceiling_is_what_a_perfect_reader_reaches():
    rng = Random(0)
    right = Counter()
    for _ in range(4000):
        labels = [rng.randrange(3) for _ in range(4)]
        shown = [rng.randrange(4) for _ in range(5)]
        query = rng.randrange(4)
        guess = labels[query] if query in shown else rng.randrange(3)
        right["drawn"] += guess == labels[query]
        labels = rng.sample(range(4), 4)
        unused = [x for x in range(4) if x not in {labels[c] for c in shown}]
        guess = labels[query] if query in shown else rng.choice(unused)
        right["bijection"] += guess == labels[query]
    assert right["drawn"] / 4000 == pytest.approx(e.ceiling(5, 4, 3), abs=0.03)
    assert right["bijection"] / 4000 == pytest.approx(e.ceiling(5, 4, 4, bijection=True), abs=0.03)


def test_what_is_no_ceiling():
    for wrong in ({"k": -1}, {"k": 1, "labels": 0}, {"k": 1, "labels": 3, "bijection": True}):
        with pytest.raises(ValueError, match="k, classes, labels: expected"):
            e.ceiling(**wrong)


def test_whole_examples_fit_or_none():
    assert e.largest_k(128, query=8, answer=4, example=10) == 11
    assert e.largest_k(12, query=8, answer=4, example=10) == 0
    with pytest.raises(ValueError, match="n_ctx: expected at least 12"):
        e.largest_k(11, query=8, answer=4, example=10)


@pytest.fixture(scope="module")
def drawn():
    rng = Random(1)
    return [e.draw(rng) for _ in range(400)]


def test_a_document(drawn):
    for episode in drawn:
        assert len(set(episode.words)) == e.MOST + 1  # the query is not among its examples
        assert set(episode.classes) <= set(episode.labels)
        for word, c in zip(episode.words, episode.classes, strict=True):
            assert (word - e.FIRST_WORD) // e.WORDS_OF_CLASS == c
    # Labels are drawn one by one: two classes have the same as often as not.
    same = sum(len(set(episode.labels.values())) == 1 for episode in drawn)
    assert 150 < same < 250
    fixed = e.draw(Random(2), fixed=True)
    assert all(label == c % 2 for c, label in fixed.labels.items())


def test_the_last_examples_stay_and_the_query_is_whole(drawn):
    rng, episode = Random(0), drawn[0]
    whole, answer = e.as_text(episode, e.MOST, "right", rng)
    assert whole == e.encoded(episode).tokens[:-1]
    assert answer == e.encoded(episode).tokens[-1]
    short, _ = e.as_text(episode, 2, "right", rng)
    assert short == [e.BEGIN, *whole[-5:]]
    assert e.as_text(episode, 0, "right", rng)[0] == [e.BEGIN, whole[-1]]


def test_the_controls(drawn):
    counts = Counter()
    for episode in drawn:
        right, answer = e.as_text(episode, 8, "right", Random(0))
        for control in ("shuffled", "wrong", "format"):
            tokens, same_answer = e.as_text(episode, 8, control, Random(str(episode.words)))
            assert (tokens[-1], same_answer) == (right[-1], answer)
            counts[control] += sum(a == b for a, b in zip(tokens[2::2], right[2::2], strict=True))
            if control == "format":
                classes = {(w - e.FIRST_WORD) // e.WORDS_OF_CLASS for w in tokens[1:-1:2]}
                assert not classes & set(episode.labels)
            else:
                assert tokens[1::2] == right[1::2]
    n = 8 * len(drawn)
    assert counts["wrong"] == 0
    assert counts["shuffled"] / n == pytest.approx(0.5, abs=0.03)
    assert counts["format"] / n == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ValueError, match="control: expected one of right"):
        e.as_text(drawn[0], 1, "upside down", Random(0))
    with pytest.raises(ValueError, match="k: expected from 0 to 8"):
        e.as_text(drawn[0], 9, "right", Random(0))


def test_only_labels_are_trained(drawn):
    encoded = e.encoded(drawn[0])
    trained = [
        token for token, counts in zip(encoded.tokens, encoded.trained, strict=True) if counts
    ]
    assert trained == drawn[0].answers
    named = e.encoded(drawn[0], named=True)
    assert named.tokens[1::2] == encoded.tokens[1::2]
    assert named.tokens[2::2] == [e.FIRST_NAME + c for c in drawn[0].classes]
    kinds = {x.tokens[2] in e.LABELS for x in e.Episodes(40, 0).batch(0)}
    assert kinds == {True, False}
    assert e.Episodes(3, 0).batch(5) == e.Episodes(3, 0).batch(5)
    assert e.Episodes(3, 0).batch(5) != e.Episodes(3, 0).batch(6)


def test_right_answers_are_counted(drawn):
    class Prefers:
        """Says the label of the last example, or the first label where there is none."""

        def __call__(self, tokens, states_from):
            return tokens[:, None, -2:-1].float()

        def logits(self, last):
            return torch.stack([last[:, 0] != 1, last[:, 0] == 1], 1).float()

    few = drawn[:50]
    expected = sum(ep.answers[-1] == ep.answers[-2] for ep in few)
    assert e.count_right(Prefers(), few, 1) == expected
    assert e.count_right(Prefers(), few, 0) == sum(ep.answers[-1] == 0 for ep in few)


def test_a_fixed_map_goes_into_the_weights():
    settings = dataclasses.replace(e.SETTINGS, steps=60, batch=32, warmup=5, lr=1e-2)
    model = e.pretrained(e.SIZES["1 layer, width 16"], 0, fixed=True, settings=settings)
    few = e.held_out(200, fixed=True)
    assert e.count_right(model, few, 0) > 190  # without any example
    assert e.count_right(model, few, 8, "wrong") > 150  # and in spite of them
