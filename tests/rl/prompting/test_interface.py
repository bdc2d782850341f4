"""A technique for one question becomes a batch for many; every call is counted."""

import pytest

from gptwin.rl.prompting.interface import Call, Question, Said, answer_all


class Echo:
    """Replies to the n-th call of a batch with its own number, and remembers the batches."""

    def __init__(self):
        self.batches = []

    def say(self, calls):
        self.batches.append([call.prompt for call in calls])
        return [
            [Said(call.prompt.upper(), -1.0, 3, 2, call.limit > 1) for _ in range(call.n)]
            for call in calls
        ]


def question(text, answer="ANSWER"):
    return Question("any", text, answer)


def test_calls_that_are_due_together_go_together():
    def technique(asked):
        (first,) = yield Call(asked.text)
        if asked.text == "short":
            return first.text
        replies = yield Call(f"{asked.text} again", 2, 1.0)
        return replies[1].text

    model = Echo()
    found = answer_all(model, technique, [question("short", "SHORT"), question("long")])
    assert model.batches == [["short", "long"], ["long again"]]
    assert [(a.answer, a.right) for a in found] == [("SHORT", True), ("LONG AGAIN", False)]
    assert [(a.calls, a.n_read, a.n_written) for a in found] == [(1, 3, 2), (3, 9, 6)]
    assert found[1].talk == [("long", "LONG")] + [("long again", "LONG AGAIN")] * 2


def test_an_empty_answer_is_wrong_and_a_cut_one_is_counted():
    def technique(asked):
        yield Call(asked.text, limit=1)
        return ""

    (found,) = answer_all(Echo(), technique, [question("a", "")])
    assert not found.right
    assert found.cut == 1


def test_answers_are_compared_word_by_word():
    def technique(asked):
        yield Call(asked.text)
        return " two   words "

    (found,) = answer_all(Echo(), technique, [question("a", "two words")])
    assert found.right


def test_no_questions_no_calls():
    assert answer_all(Echo(), lambda asked: iter(()), []) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 2}, "temperature: expected above 0 for 2 replies"),
        ({"n": 0}, "n: expected"),
        ({"limit": 0}, "limit: expected"),
    ],
)
def test_calls_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Call("a", **options)
