"""The preference model: two kinds of comparisons that disagree, their weights, and counting."""

import pytest
import tiny
import torch

from gptwin.rl.agents.hh.preference_model import (
    PreferenceSettings,
    PreferenceStage,
    agreement,
    scored,
    taught,
)
from gptwin.rl.data.rankings import Ranking
from gptwin.rl.stages.scorer import Scorer

PAD = 0
HELPS, REFUSES = [40, 41, 2], [50, 51, 2]
QUICK = PreferenceSettings(epochs=2, batch=8, lr=3e-3, warmup=0)


def pairs(better, worse, n=32):
    return [Ranking([3, 60 + i % 20, 4], [better, worse], [0, 1]) for i in range(n)]


KINDS = {"helpful": pairs(HELPS, REFUSES), "harmless": pairs(REFUSES, HELPS)}


def judge(kinds, weights=None):
    return taught(Scorer(tiny.gpt(), 0), kinds, QUICK, pad=PAD, seed=0, weights=weights)


@pytest.mark.parametrize(("kind", "other"), [("helpful", "harmless"), ("harmless", "helpful")])
def test_one_kind_alone_is_worse_than_chance_on_the_other(kind, other):
    found = judge({kind: KINDS[kind]})
    assert agreement(found, KINDS[kind], PAD).share > 0.9
    assert agreement(found, KINDS[other], PAD).share < 0.1


@pytest.mark.parametrize(("weight", "wins"), [(4.0, "harmless"), (0.25, "helpful")])
def test_the_weight_says_which_kind_is_followed(weight, wins):
    found = judge(KINDS, {"harmless": weight})
    assert agreement(found, KINDS[wins], PAD).share > 0.9
    assert not any(p.requires_grad for p in found.parameters()) and not found.training


def test_the_losses_are_added_with_their_weights():
    scorer = Scorer(tiny.gpt(), 0)
    stage = PreferenceStage("x", scorer, KINDS, {"harmless": 3.0}, KINDS, QUICK, PAD, 0)
    found = stage.step(0)
    assert found["loss"] == pytest.approx(found["helpful_loss"] + 3 * found["harmless_loss"])
    assert stage.evaluate() == {
        f"{kind}_accuracy": agreement(scorer, KINDS[kind], PAD).share for kind in KINDS
    }
    assert stage.steps == 8


def test_a_shorter_kind_is_read_again():
    kinds = {"helpful": KINDS["helpful"], "harmless": KINDS["harmless"][:3]}
    stage = PreferenceStage("x", Scorer(tiny.gpt(), 0), kinds, {}, {}, QUICK, PAD, 0)
    assert stage.steps == 8
    for index in range(3):
        assert stage.step(index)["loss"] > 0


def test_scores_are_those_of_whole_conversations():
    scorer = Scorer(tiny.gpt(), 0).eval()
    rankings = [Ranking([5, 6], [[7, 2], [8, 9, 10, 2]], [1, 0]), Ranking([5], [[7], [9], [8]],
                                                                         [2, 0, 1])]  # fmt: skip
    table, ranks = scored(scorer, rankings, PAD)
    assert ranks.tolist() == [[1, 0, -1], [2, 0, 1]]
    alone = scorer(torch.tensor([[5, 6, 8, 9, 10, 2]]))[0, -1]
    assert table[0, 1].item() == pytest.approx(alone.item(), abs=1e-5)


def test_equal_scores_are_no_agreement():
    scorer = Scorer(tiny.gpt())  # whose head is 0
    found = agreement(scorer, [*KINDS["helpful"], Ranking([5], [[7], [9]], [0, 0])], PAD)
    assert (found.right, found.n) == (0, 32)  # a tie is no pair


def test_what_is_refused():
    for kinds, weights in (({}, {}), (KINDS, {"honest": 1.0})):
        with pytest.raises(ValueError, match="weights"):
            PreferenceStage("x", Scorer(tiny.gpt()), kinds, weights, {}, QUICK, PAD, 0)
    ties = {"helpful": [Ranking([5], [[7], [9]], [0, 0])]}
    with pytest.raises(ValueError, match="rankings"):
        PreferenceStage("x", Scorer(tiny.gpt()), ties, {}, {}, QUICK, PAD, 0)
