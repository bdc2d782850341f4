"""LaMDA's toolset: what is asked and returned, the loop, and how much of an answer is backed."""

import itertools
from collections import Counter

import pytest

from gptwin.core.dialogue.lamda import grounding
from gptwin.rl.agents.base import BaseSettings, tokens
from gptwin.rl.agents.lamda import tools
from gptwin.rl.agents.lamda.tools import (
    ANSWER,
    ASK,
    KINDS,
    UNKNOWN,
    Fact,
    begin,
    draw_questions,
    grounded,
    research,
    talk,
    toolset,
)

FACTS = {"Ada": Fact(7, 3), "Paul": Fact(5, 8)}


@pytest.mark.parametrize(
    ("query", "results"),
    [
        ("7 + 5", ["12"]),
        ("3", ["3"]),
        ("Ada", ["Ada is 7, page 3"]),
        (" Paul ", ["Paul is 5, page 8"]),
        ("Vera", []),  # an unknown name
        ("7 +", []),  # half an expression
        ("7 / 0", []),
        ("__import__('os').getcwd()", []),  # nothing is ever run
        ("(" * 99, []),
        ("", []),
    ],
)
def test_the_toolset_returns_what_it_can_make_sense_of(query, results):
    assert toolset(query, FACTS) == results


def test_calculator_comes_before_lookup():
    assert toolset("7", {"7": Fact(1, 2)}) == ["7", "7 is 1, page 2"]


@pytest.fixture(scope="module")
def template():
    return tokens(BaseSettings())


def test_a_talk_learns_what_the_model_writes_and_not_what_the_tools_say(template):
    found = {q.kind: q for q in itertools.islice(draw_questions(0), 8)}
    assert set(found) == set(KINDS)
    for question in found.values():
        encoded = talk(template, question)
        ids = template.tokenizer.special_tokens
        learnt = [t for t, trained in zip(encoded.tokens, encoded.trained, strict=True) if trained]
        assert Counter(learnt)[ids[ASK]] == len(question.asks)
        assert Counter(learnt)[ids[ANSWER]] == 1 and template.speaker["system"] not in learnt
        assert template.text(learnt[learnt.index(ids[ANSWER]) + 1 :]) == question.answer


class Scripted:
    """Says what a script says, whatever it is asked."""

    def __init__(self, template, *turns, cut=False):
        ids = template.tokenizer.special_tokens
        self.turns = [[ids[c], *template.response(text)] if c else template.response(text)
                      for c, text in turns]  # fmt: skip
        if cut:  # by the limit, before the end of a turn
            self.turns = [turn[:-1] for turn in self.turns]
        self.prompts = []

    def __call__(self, model, template, prompts):
        self.prompts += prompts
        return [self.turns.pop(0)]


def asked(template, monkeypatch, *turns, cut=False, **options):
    script = Scripted(template, *turns, cut=cut)
    monkeypatch.setattr(tools, "_continued", script)
    prompt = begin(template, "How old are Ada and Paul?")
    (found,) = research(None, template, [(prompt, FACTS)], **options)
    return found, script


def test_it_asks_sees_and_answers(template, monkeypatch):
    turns = (ASK, "Ada"), (ASK, "Paul"), (ASK, "7 + 5"), (ANSWER, "12")
    found, script = asked(template, monkeypatch, *turns)
    assert found.answer == "12" and not found.forced
    assert found.asked == [
        ("Ada", ["Ada is 7, page 3"]), ("Paul", ["Paul is 5, page 8"]), ("7 + 5", ["12"])
    ]  # fmt: skip
    # What the model reads before its last turn is what it learnt from.
    question = next(q for q in draw_questions(0) if q.kind == "together")
    question = type(question)(
        "together", "How old are Ada and Paul?", "12", ("Ada", "Paul", "7 + 5"), FACTS
    )
    whole = talk(template, question).tokens
    assert whole[: len(script.prompts[-1])] == script.prompts[-1]


def test_a_question_that_was_cut_off_is_answered_as_if_it_had_ended(template, monkeypatch):
    turns = (ASK, "Ada"), (ANSWER, "7")
    (whole, script), (found, cut) = (
        asked(template, monkeypatch, *turns, cut=cut) for cut in (False, True)
    )
    assert found == whole and cut.prompts == script.prompts


def test_after_four_rounds_an_answer_is_forced(template, monkeypatch):
    turns = [(ASK, "7 / 0")] * 4 + [(None, "12")]
    found, script = asked(template, monkeypatch, *turns)
    assert found.answer == "12" and found.forced
    assert found.asked == [("7 / 0", [])] * 4  # an empty observation each
    assert script.prompts[-1][-1] == template.tokenizer.special_tokens[ANSWER]
    found, _ = asked(template, monkeypatch, (None, "12"), rounds=0)
    assert found.answer == "12" and found.asked == []


def test_who_says_to_nobody_speaks_to_the_user(template, monkeypatch):
    found, _ = asked(template, monkeypatch, (None, "tree moon"))
    assert found.answer == "tree moon" and not found.forced


def test_claims_are_counted_as_in_the_vector():
    """Ten answers: eight claim, six rightly; six are no common knowledge, five of them cited."""
    drawn = list(itertools.islice(draw_questions(0), 60))
    ages = [q for q in drawn if q.kind == "age"][:6]
    sums = [q for q in drawn if q.kind == "sum"][:2]
    nobody = [q for q in drawn if q.kind == "nobody"][:2]
    answers = [q.answer for q in ages[:5]] + ["99, page 1", "99", sums[1].answer, UNKNOWN, ""]
    found = grounded([*ages, *sums, *nobody], answers)
    assert found == grounding(10, 8, 6, uncommon=6, cited=5)
    assert found == pytest.approx((0.75, 0.6, 0.8333), abs=1e-4)
    # What is said of somebody whom no page knows is no common knowledge, and cannot be cited.
    assert grounded(nobody[:1], ["7"]) == grounding(1, 1, 0, uncommon=1, cited=0)
    # The right age without its page is supported, and not cited.
    assert grounded(ages[:1], [ages[0].answer.split(",")[0]]) == (1.0, 1.0, 0.0)
