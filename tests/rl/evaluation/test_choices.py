"""Scores of choices: the sheet's figures, ties, empty answers, and a model's own log P."""

import math

import numpy as np
import pytest
import tiny
import torch

from gptwin.rl.evaluation.asking import Chatting, Plain, Shot, pair
from gptwin.rl.evaluation.choices import (
    SCORES,
    Asked,
    ChoiceScores,
    best,
    calibrated,
    length_penalised,
    score_choices,
)
from gptwin.rl.evaluation.log_probs import Request, continuation_log_probs
from gptwin.rl.judging.intervals import wilson

WORDS = ChoiceScores(
    ("yes", "no way", "perhaps not"),
    [[-1.2], [-0.9, -1.1], [-1.4, -0.5, -0.2]],
    free=[-0.3, -2.9, -2.4],
)


@pytest.mark.parametrize(
    ("method", "scores", "picked"),
    [
        ("sum", [-1.2, -2.0, -2.1], "yes"),
        ("per_token", [-1.2, -1.0, -0.7], "perhaps not"),
        ("per_character", [-0.4, -2.0 / 6, -2.1 / 11], "perhaps not"),
        ("against", [-0.9, 0.9, 0.3], "no way"),
    ],
)
def test_four_scores_prefer_three_answers(method, scores, picked):
    np.testing.assert_allclose(WORDS.scores(method), scores, atol=1e-12)
    assert WORDS.choices[WORDS.pick(method)] == picked


def test_bytes_are_not_characters():
    scores = ChoiceScores(("né", "no"), [[-3.0], [-3.0]])
    np.testing.assert_allclose(scores.scores("per_byte"), [-1.0, -1.5])
    assert (scores.pick("per_byte"), scores.pick("per_character")) == (0, 0)


FREE = np.log([[0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])


@pytest.mark.parametrize(
    ("p", "shares", "picked"),
    [
        ((0.65, 0.35), (0.443182, 0.556818), 1),
        ((0.7, 0.3), (0.5, 0.5), 0),  # an exact tie, which float64 alone would give to 1
        ((0.02, 0.01), (0.461538, 0.538462), 1),  # masses of labels: normalised first
    ],
)
def test_calibration_divides_by_what_no_content_gives(p, shares, picked):
    found = calibrated(np.log(p), FREE)
    np.testing.assert_allclose(found, shares, atol=1e-6)
    scores = ChoiceScores(("a", "b"), [[x] for x in np.log(p)], content_free=FREE.tolist())
    assert scores.pick("calibrated") == best(found) == picked


def test_without_a_tolerance_rounding_would_break_the_tie():
    p, without = np.array([0.7, 0.3]), np.mean([[0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], axis=0)
    assert np.argmax(p / without) == 1


def test_beams_of_unequal_lengths_are_compared_under_a_penalty():
    assert length_penalised(-2.0, 2) == pytest.approx(-1.823316, abs=1e-6)
    assert length_penalised(-2.3, 4) == pytest.approx(-1.803321, abs=1e-6)
    assert length_penalised(-2.3, 4, alpha=0) == -2.3


def test_of_equal_scores_the_first_is_taken():
    assert best(np.array([-2.0, -1.0, -1.0 - 1e-12, -1.0])) == 1
    assert best(np.array([-1e-3 - 1e-6, -1e-3])) == 1  # near is not equal


def test_an_empty_answer_has_no_score():
    for empty in (ChoiceScores(("", "b"), [[], [-1.0]]), ChoiceScores(("", "b"), [[-1.0], [-1.0]])):
        for method in SCORES:
            with pytest.raises(ValueError, match="choices: expected a text in each"):
                empty.scores(method)


def test_what_was_not_asked_is_no_score():
    with pytest.raises(ValueError, match="expected a score whose contexts were asked"):
        WORDS.scores("calibrated")
    with pytest.raises(ValueError, match="expected one of sum, per_token"):
        WORDS.scores("mean")


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 50, 0.0, 0.0713476), (50, 50, 0.9286524, 1.0), (5, 10, 0.2365931, 0.7634069)],
)
def test_wilsons_interval(right, n, low, high):
    np.testing.assert_allclose(wilson(right, n), (low, high), atol=1e-6)


# --- of a model ----------------------------------------------------------------------------------


def by_hand(model, request):
    """log P of each token, from the logits of a pass over this request alone."""
    ids = request.context + request.continuation
    with torch.no_grad():
        logits = model.eval().logits(model(torch.tensor([ids[:-1]])))[0].double()
    rows = torch.log_softmax(logits, -1)[len(request.context) - 1 :]
    return rows[torch.arange(len(rows)), torch.tensor(request.continuation)].tolist()


def test_log_probs_are_those_of_each_request_alone():
    model = tiny.gpt()
    requests = [Request([5], [7, 8, 9]), Request(list(range(60)), [3]), Request([1, 2], [4, 4])]
    requests.append(Request(list(range(96)), [1]))  # fills the context: its last token is not read
    for found, request in zip(continuation_log_probs(model, requests), requests, strict=True):
        np.testing.assert_allclose(found, by_hand(model, request), atol=2e-5)


def test_requests_that_fit_alone_and_not_side_by_side():
    model = tiny.gpt()
    requests = [Request(list(range(90)), [1]), Request([2], list(range(90)))]
    for found, request in zip(continuation_log_probs(model, requests), requests, strict=True):
        np.testing.assert_allclose(found, by_hand(model, request), atol=1e-4)


def test_a_request_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match=r"at most n_ctx = 96 tokens.*got 96 \+ 2"):
        continuation_log_probs(tiny.gpt(), [Request(list(range(96)), [1, 2])])


def test_each_score_asks_what_it_needs():
    model, asking = tiny.gpt(), Plain(tiny.template().tokenizer, "Q: {question}\nA:")
    shots = (Shot("Say: key", "key"),)
    item = Asked("Say: moon", ("moon", "a moon"), shots)
    (scored,) = score_choices(model, asking, [item])

    def sums(context):
        return [sum(by_hand(model, pair(asking.tokenizer, context, " " + c))) for c in item.choices]

    shown = "Q: Say: key\nA: key\n\n"
    np.testing.assert_allclose(scored.scores("sum"), sums(f"{shown}Q: Say: moon\nA:"), atol=1e-4)
    np.testing.assert_allclose(scored.free, sums("Answer:"), atol=1e-4)
    # Without content the question alone goes: the shots stay.
    for row, text in zip(scored.content_free, ("N/A", "", "[MASK]"), strict=True):
        np.testing.assert_allclose(row, sums(f"{shown}Q: {text}\nA:"), atol=1e-4)


def test_a_chat_scores_the_end_of_an_answer_too():
    """So an answer that another one begins with can win: "no" before "no, not"."""
    chat = Chatting(tiny.template())
    plain = Plain(tiny.template().tokenizer)
    items = [Asked("Say: moon", ("key", "key moon"))]
    (begun,) = score_choices(tiny.gpt(), plain, items, methods=["sum"])
    assert begun.one_begins_another and begun.pick("sum") == 0
    (ended,) = score_choices(tiny.gpt(), chat, items, methods=["sum"])
    assert not ended.one_begins_another
    assert [ids[-1] for ids in ended.tokens] == [tiny.template().end] * 2
    line = Plain(tiny.template().tokenizer, end="\n")
    (closed,) = score_choices(tiny.gpt(), line, items, methods=["sum"])
    assert not closed.one_begins_another


def test_a_mean_over_tokens_has_them_all():
    (scored,) = score_choices(
        tiny.gpt(), Chatting(tiny.template()), [Asked("Say: moon", ("moon", "key"))]
    )
    n = [len(ids) for ids in scored.tokens]
    np.testing.assert_allclose(scored.scores("per_token") * n, scored.scores("sum"))
    assert math.isclose(scored.scores("calibrated").sum(), 1.0)
