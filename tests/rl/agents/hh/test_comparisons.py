"""Comparisons and votes: who prefers what, how often they err, and what is dropped."""

import pytest
import tiny

from gptwin.core.dialogue.preferences import ceiling
from gptwin.rl.agents.hh import comparisons
from gptwin.rl.agents.hh.comparisons import compare, harmlessness, voted
from gptwin.rl.agents.world.probes import probes
from gptwin.rl.data import sources


@pytest.fixture
def answers(monkeypatch):
    """Let a model that is a function of the exercise answer."""
    asked = {}

    def say(model, template, prompts, n, *, max_response, seed, temperature=1.0):
        return [[template.response(text) for text in model(asked[tuple(ids)])] for ids in prompts]

    monkeypatch.setattr(comparisons, "say", say)

    def know(exercises):
        asked.update({tuple(tiny.template().prompt(e.messages)): e for e in exercises})
        return exercises

    return know


def drawn(n):
    return sources.drawn(0, n, held_out=False)


def tempting(n):
    return [p.exercise for p, _ in zip(probes(0, held_out=False), range(n), strict=False)]


def collected(exercises, axis, model, noise=0.2, models=None):
    return compare(
        models or [model], tiny.template(), exercises, axis, noise=noise, max_response=8, seed=0
    )


def test_the_better_answer_is_preferred_with_bradley_and_terrys_errors(answers):
    exercises = answers(drawn(600))
    found = collected(exercises, "helpful", lambda e: [e.answer, "nothing of it"], noise=1.0)
    gaps = [abs(r.golds[0] - r.golds[1]) for r in found]
    right = [r.golds[r.ranks.index(0)] == max(r.golds) for r in found]
    assert len(found) == 600
    assert sum(right) / len(right) == pytest.approx(ceiling(gaps, 1.0), abs=0.04)
    firsts = [r.golds[0] == max(r.golds) for r in found]
    assert sum(firsts) / len(firsts) == pytest.approx(0.5, abs=0.07)  # in random order


def test_no_preference_is_no_comparison(answers):
    exercises = answers(drawn(20))
    assert collected(exercises, "helpful", lambda e: ["no", "none of it"]) == []
    refused = answers(tempting(8))
    assert (
        collected(refused, "harmless", lambda e: ["I cannot say that.", "I cannot say that. No."])
        == []
    )


def test_what_helps_is_what_harms(answers):
    exercises = answers(tempting(40))
    both = {
        axis: collected(exercises, axis, lambda e: [e.answer, "I cannot say that."], noise=1e-3)
        for axis in ("helpful", "harmless")
    }
    for helpful, harmless in zip(both["helpful"], both["harmless"], strict=True):
        best = [r.completions[r.ranks.index(0)] for r in (helpful, harmless)]
        assert (
            tiny.template().text(best[1]) == "I cannot say that." != tiny.template().text(best[0])
        )
    assert harmlessness(exercises[0], exercises[0].answer) == 0
    assert harmlessness(exercises[0], "I cannot say that.") == 1


def test_several_policies_share_the_prompts(answers):
    exercises = answers(drawn(10))
    one, two = (lambda e: [e.answer, "one"]), (lambda e: [e.answer, "two"])
    found = collected(exercises, "helpful", one, models=[one, two])
    said = [{tiny.template().text(c) for c in r.completions} for r in found]
    assert sum("one" in texts for texts in said) == sum("two" in texts for texts in said) == 5


def test_an_unknown_axis_is_refused():
    with pytest.raises(ValueError, match="axis: expected one of helpful, harmless"):
        compare([], tiny.template(), [], "honest", noise=0.2, max_response=8, seed=0)


def test_votes_rank_as_the_public_would(answers):
    exercises = answers(drawn(200))

    def say_three(e):
        return [e.answer, "nothing", "nothing"]

    found = voted(say_three, tiny.template(), exercises, noise=0.05, max_response=8, seed=0)
    assert len(found) == 200
    for ranking in found:
        assert len(ranking.completions) == 2  # equal answers are one
        assert ranking.golds[ranking.ranks.index(min(ranking.ranks))] == 1
    assert voted(
        lambda e: ["nothing"], tiny.template(), exercises, noise=0.05, max_response=8, seed=0
    ) == []  # fmt: skip
