"""What Sparrow learns from, and what its probing finds; on a model that knows nothing."""

import functools
import itertools

import pytest
import tiny
import torch

from gptwin.rl.agents.sparrow.labels import (
    answers,
    asked_about,
    labels_of,
    rankings,
    rankings_of,
    rule_labels,
)
from gptwin.rl.agents.sparrow.probing import (
    attack,
    drawn_by_kind,
    labels_from,
    on_twins,
    violations,
)
from gptwin.rl.agents.sparrow.rule_model import RuleModel
from gptwin.rl.agents.world.probes import probes
from gptwin.rl.agents.world.rules import ALL_RULES, HOUSE, REFUSAL, Rule
from gptwin.rl.data.dialogue import Message
from gptwin.rl.data.records import Label, Preference
from gptwin.rl.data.sources import drawn, exercise_prompts

FEW = {"max_response": 4, "seed": 1}
HI = (Message("user", "Hi"),)


@functools.cache
def policy():
    return tiny.gpt().eval()


def test_an_answer_does_not_depend_on_what_else_is_asked():
    prompts = tiny.prompts(4)
    together = answers(policy(), tiny.template(), prompts, max_response=4, seed=2)
    assert together[0] == answers(policy(), tiny.template(), prompts[:1], max_response=4, seed=2)[0]


def test_rankings_are_of_different_answers_and_have_their_golds(monkeypatch):
    asked = drawn(0, 2, held_out=False)
    right = tiny.template().response(asked[0].answer)
    said = [[5], right, [5], [6], [6], [6]]  # all answers to the second question are the same
    monkeypatch.setattr("gptwin.rl.agents.sparrow.labels.answers", lambda *_, **__: said)
    (found,) = rankings(policy(), tiny.template(), asked, 3, 1e-3, **FEW)
    assert found.completions == [[5], right]
    assert found.golds == [0.0, 1.0]
    assert found.ranks == [1, 0]
    (own,) = rankings_of([Preference(HI, ("good", "bad"), (0, 1))], tiny.template())
    assert own.prompt == tiny.template().prompt(HI)
    assert own.ranks == [0, 1]


def test_a_question_is_asked_about_a_rule_that_holds_for_it_or_for_its_probe():
    asked = list(itertools.islice(asked_about(ALL_RULES, 0), 400))
    assert {rule.kind for _, rule in asked} == {rule.kind for rule in ALL_RULES}
    assert not any(exercise.is_held_out() for exercise, _ in asked)
    held_out = itertools.islice(asked_about(ALL_RULES, 0, held_out=True), 50)
    assert all(exercise.is_held_out() for exercise, _ in held_out)
    broken = [rule.violated(e.messages, e.answer) for e, rule in asked]
    assert 0.15 < sum(broken) / len(broken) < 0.6


def test_half_of_the_labels_say_broken(monkeypatch):
    asked = asked_about(HOUSE, 0)
    found = rule_labels(policy(), tiny.template(), asked, 9, **FEW)
    assert sum(label.violated for label in found) == 4
    assert len(found) == 9
    monkeypatch.setattr("gptwin.rl.agents.sparrow.labels.DRAWS", 2)
    never = (pair for pair in asked if pair[1].kind == "R6")
    with pytest.raises(ValueError, match="labels: expected 4, half of them broken rules, got 0 br"):
        rule_labels(policy(), tiny.template(), never, 4, **FEW)


def test_a_label_of_no_rule_is_no_label_of_a_rule():
    rule = Rule("R1", "key").text
    said = [Label(HI, "key", 0, rule), Label(HI, "key", 1), Label(HI, REFUSAL, 1, rule)]
    assert [label.violated for label in labels_of(said, tiny.template())] == [True, False]


class ByIds(RuleModel):
    """Finds answers bad by their tokens, so that no two are equally bad."""

    def violated(self, asked):
        return torch.tensor([sum(response) / 10_000 for _, _, response in asked])


def test_of_each_group_the_worst_probe_is_kept_and_labelled_for_its_rule():
    groups = drawn_by_kind(probes(0, held_out=False), 8, 2)
    kinds = [probe.rule.kind for probe in groups]
    assert kinds[::2] == kinds[1::2]
    assert len(set(kinds)) == 8
    judge = ByIds(None, tiny.template(), HOUSE)
    every = attack(policy(), judge, tiny.template(), groups, **FEW)
    kept = attack(policy(), judge, tiny.template(), groups, 2, **FEW)
    assert len(every) == 16
    assert all(a.rating != b.rating for a, b in zip(every[::2], every[1::2], strict=True))
    assert kept == [
        max(pair, key=lambda one: one.rating) for pair in zip(every[::2], every[1::2], strict=True)
    ]
    twins = on_twins(policy(), judge, tiny.template(), kept, **FEW)
    assert [one.probe.exercise for one in twins] == [one.probe.twin for one in kept]
    assert [one.probe.rule for one in twins] == [one.probe.rule for one in kept]
    labels = labels_from(kept, tiny.template())
    assert [label.violated for label in labels] == [one.violated for one in kept]
    assert [label.rule for label in labels] == [one.probe.rule.text for one in kept]
    assert violations(kept).n == 8
    assert violations(kept).right == sum(label.violated for label in labels)


def test_a_prompt_of_a_probe_can_be_graded():
    probe = next(probes(0, held_out=False))
    (prompt,) = exercise_prompts(tiny.template(), [probe.exercise])
    assert prompt.exercise is probe.exercise
