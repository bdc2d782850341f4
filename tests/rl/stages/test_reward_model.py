"""The reward model: it learns an order, and its origin is the demonstrations."""

import pytest
import tiny
import torch

from gptwin.rl.configuration import RewardSettings
from gptwin.rl.judging.sampled_rankings import ceiling
from gptwin.rl.ranks.group import Group
from gptwin.rl.stages.reward_model import Ranking, RewardStage, score_rows, scoring
from gptwin.rl.stages.scorer import Scorer


def rankings(n):
    """Longer answers are better: easy to see for a model that reads to the last token."""
    word = tiny.template().tokenizer.encode(" word")
    end = [tiny.template().end]
    answers = [word * 6 + end, word * 3 + end, word + end]
    return [Ranking(p.ids, answers, [0, 1, 2]) for p in tiny.prompts(n)]


def stage(scorer, n=16, **settings):
    settings = RewardSettings(**{"batch": 8, "lr": 3e-3, "epochs": 10} | settings)
    some = rankings(n)
    rows = [r.prompt + r.completions[0] for r in some]
    return RewardStage(scorer, some, some, settings, rows, tiny.template().pad, 0, Group())


def test_it_learns_the_order_and_centres_on_the_demonstrations():
    scorer = Scorer(tiny.gpt(), seed=0)
    trained = stage(scorer)
    for i in range(trained.steps):
        trained.step(i)
    found = trained.evaluate()
    assert found["accuracy"] > 0.95
    assert found["margin"] > 0
    mean = score_rows(scorer, trained.demonstrations, tiny.template().pad).mean()
    assert abs(mean.item()) < 1e-5


def test_accumulation_is_the_full_batch():
    whole, parts = (Scorer(tiny.gpt(), seed=0) for _ in range(2))
    found = [stage(whole).step(0), stage(parts, accumulate=3).step(0)]
    for name in ("loss", "accuracy", "gradient_norm"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-4)


def test_padding_does_not_reach_a_score():
    scorer = Scorer(tiny.gpt(), seed=0).eval()
    rows = [p.ids for p in tiny.prompts(6)]
    together = score_rows(scorer, rows, tiny.template().pad)
    alone = torch.cat([score_rows(scorer, [row], tiny.template().pad) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_a_new_head_is_lm_human_preferences():
    weight = Scorer(tiny.gpt(), seed=0).weight
    assert weight.std().item() == pytest.approx(1 / 33**0.5, rel=0.4)
    assert Scorer(tiny.gpt(), seed=0).bias.item() == 0


def test_ceiling_is_bradley_and_terrys():
    even = Ranking([1], [[1], [2]], [0, 1], [0.5, 0.5])
    far = Ranking([1], [[1], [2]], [0, 1], [1.0, 0.0])
    assert ceiling([even], 0.2) == 0.5
    assert ceiling([even, far], 0.2) == pytest.approx((0.5 + 1 / (1 + 2.718281828**-5)) / 2)


@pytest.mark.parametrize(
    ("settings", "evaluated", "scored"),
    # Three completions each: of 4 rankings in two micro-batches, 2 are trained on at once.
    [({"batch": 4, "accumulate": 2}, 2 * 3, 2 * 3), ({"batch": 40}, 32 * 3, 64)],
)
def test_what_is_only_read_takes_no_more_at_once_than_training(
    settings, evaluated, scored, monkeypatch
):
    trained = stage(Scorer(tiny.gpt(), seed=0), n=70, **settings)
    rows = []
    last = trained.scorer.last
    monkeypatch.setattr(
        trained.scorer, "last", lambda tokens, n: rows.append(len(tokens)) or last(tokens, n)
    )
    found = trained.evaluate()
    assert sum(rows) == 70 * 3
    assert max(rows) <= evaluated
    rows.clear()
    trained._centre()
    assert sum(rows) == 70
    assert max(rows) <= scored
    monkeypatch.undo()
    whole = stage(Scorer(tiny.gpt(), seed=0), n=70, batch=70)
    assert found == pytest.approx(whole.evaluate(), rel=1e-4, abs=1e-6)
    whole._centre()
    torch.testing.assert_close(trained.scorer.bias, whole.scorer.bias, rtol=0, atol=1e-5)


def test_a_reward_model_scores_a_few_answers_at_a_time(monkeypatch):
    scorer, prompts = Scorer(tiny.gpt(), seed=0).requires_grad_(False).eval(), tiny.prompts(7)
    answers = [[3 + i] * (1 + i) for i in range(7)]
    together = scoring(scorer, tiny.template().pad)(prompts, answers)
    rows = []
    last = scorer.last
    monkeypatch.setattr(
        scorer, "last", lambda tokens, n: rows.append(len(tokens)) or last(tokens, n)
    )
    few = scoring(scorer, tiny.template().pad, at_once=3)(prompts, answers)
    assert rows == [3, 3, 1]
    torch.testing.assert_close(few, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "ranking",
    [Ranking([1], [[2], [3]], [0, 0]), Ranking([1], [[2], [2]], [0, 1])],
    ids=["ties", "chosen is rejected"],
)
def test_rankings_that_say_nothing_are_refused(ranking):
    settings, pad = RewardSettings(batch=2), tiny.template().pad
    some = [ranking] * 4
    with pytest.raises(ValueError, match=r"^rankings: expected a prompt with two different compl"):
        RewardStage(Scorer(tiny.gpt(), seed=0), some, some, settings, [], pad, 0, Group())
    some.append(Ranking([1], [[2], [2], [3]], [0, 0, 1]))
    RewardStage(Scorer(tiny.gpt(), seed=0), some, some, settings, [], pad, 0, Group())
