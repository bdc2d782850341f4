"""Sparrow as an agent: made from a tiny model, read again, asked, and made from records."""

import dataclasses
import functools
import json

import pytest
import tiny
import torch

from gptwin.rl.agents.base import BaseSettings
from gptwin.rl.agents.catalogue import agent
from gptwin.rl.agents.run import save_model
from gptwin.rl.agents.sparrow import making
from gptwin.rl.agents.sparrow.agent import Sparrow
from gptwin.rl.agents.sparrow.explanation import explained
from gptwin.rl.agents.sparrow.making import OwnRule, rules_named
from gptwin.rl.agents.sparrow.rerank import Candidate, Reranked
from gptwin.rl.agents.sparrow.settings import SparrowSettings
from gptwin.rl.agents.world.rules import HOUSE
from gptwin.rl.data.dialogue import Message
from gptwin.rl.data.records import Label, Preference

HI = (Message("system", "Be short."), Message("user", "Say: key moon"))
FEW = {
    "rankings": 6, "ranked": 2, "labels": 8, "prompts": 6, "episodes": 6, "rounds": 1,
    "probes": 8, "worst_of": 1, "candidates": 3, "max_response": 4,
}  # fmt: skip


@functools.cache
def trained(folder):
    """A run of a tiny model that has learnt nothing."""
    save_model(folder / "tiny", tiny.gpt(), tiny.template())
    settings = SparrowSettings(base=BaseSettings(weights=str(folder / "tiny/model")), **FEW)
    return Sparrow.train(folder / "run", settings, quiet=True), settings


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "VALIDATION", 4)
        yield tmp_path_factory.mktemp("sparrow")


def test_it_is_made_in_rounds_and_read_again(run):
    made, settings = trained(run)
    assert agent("sparrow") is Sparrow
    for stage in ("reward", "rules", "ppo", "round-1/rules", "round-1/ppo"):
        assert (run / "run" / stage / "ended.json").exists()
    loaded = Sparrow.load(run / "run")
    assert loaded.settings == settings
    assert list(loaded.rules.rules) == list(HOUSE)
    assert loaded.respond(HI, seed=3) == made.respond(HI, seed=3)
    first, last = (
        json.loads((run / "run" / there / "ended.json").read_text())["outputs"]
        for there in ("ppo", "round-1/ppo")
    )
    assert first["model/model.safetensors"] != last["model/model.safetensors"]


def test_more_rounds_go_on_and_other_labels_do_not(run, monkeypatch):
    _, settings = trained(run)
    changed = dataclasses.replace(settings, labels=10)
    with pytest.raises(ValueError, match=r"sparrow\.labels: expected 8, got 10"):
        Sparrow.train(run / "run", changed, quiet=True)
    same = dataclasses.replace(settings, candidates=2)
    # Nothing is left to do, so that no stage is begun.
    monkeypatch.setattr("gptwin.rl.agents.run.train", None)
    assert len(Sparrow.train(run / "run", same, quiet=True).respond(HI).candidates) == 2


def test_an_answer_says_what_was_considered(run):
    reply = trained(run)[0].respond(HI, explain=True, seed=1)
    assert reply.candidates[reply.chosen].text == reply.text
    assert reply.candidates[reply.chosen].why.startswith("chosen")
    assert set(reply.candidates[0].scores) == {"preference", "preferred", "worst rule", "score"}
    assert reply.notes[0] == "14 rules, of which 6 apply here; answers considered: 3"
    silent = trained(run)[0].respond(HI, seed=1)
    assert (silent.text, silent.notes) == (reply.text, ())
    assert len(silent.candidates) == 3
    assert silent.candidates[silent.chosen].text == reply.text
    assert not any(candidate.why for candidate in silent.candidates)


def test_a_long_talk_forgets_its_oldest_turns_but_not_the_systems(run):
    made, _ = trained(run)
    turn = [Message("user", "key"), Message("assistant", "moon")]
    prompt = made._fitted([HI[0], *turn * 30, HI[1]])
    assert prompt.messages[0] == HI[0]
    assert prompt.messages[-1] == HI[1]
    assert 2 < len(prompt.messages) < 30
    with pytest.raises(ValueError, match="messages: expected at most"):
        made.respond([Message("user", "key " * 100)])


def test_records_of_ones_own(run, tmp_path):
    _, settings = trained(run)
    own, rule = "Be kind.", HOUSE[0].text
    records = [
        *[Preference(HI, (f"yes {i}", "no"), (0, 1)) for i in range(3)],
        *[Label(HI, said, kept, own) for said, kept in (("fool", 0), ("friend", 1)) for _ in "ab"],
        Label(HI, "moon", 0, rule), Label(HI, "key", 1, rule), Label(HI, "key", 1),
    ]  # fmt: skip
    made = Sparrow.train(tmp_path / "own", settings, records, quiet=True)
    assert made.rules.rules == [OwnRule(own), HOUSE[0]]
    assert not (tmp_path / "own/round-1").exists()
    assert made.respond(HI, explain=True).notes[0].startswith("2 rules, of which 2 apply")
    with pytest.raises(ValueError, match="data: expected preferences, 2 at least, got 0"):
        Sparrow.train(tmp_path / "few", settings, records[3:], quiet=True)


def test_a_rule_of_the_world_is_found_by_its_text():
    stated = next(rule for rule in HOUSE if rule.kind == "R2")
    known, other = rules_named([stated.text, "Be kind."])
    assert known == stated
    assert not known.applies(HI)
    assert other.applies(HI)


# --- the explanation -----------------------------------------------------------------------------


def candidate(text, preference, kept, factor, *, ended=True):
    score = torch.tensor([factor, *kept.values()]).log().sum().item()
    return Candidate([1], text, ended, preference, kept, factor, score)


def test_the_reason_is_the_part_of_the_score_by_which_a_candidate_lost():
    best = candidate("no", 0.1, {"A": 0.9, "B": 0.9}, 0.4)
    others = [
        candidate("moon", 2.0, {"A": 0.9, "B": 0.1}, 0.8),
        best,
        candidate("nope", -9.0, {"A": 0.9, "B": 0.8}, 0.01),
        candidate("perhaps", 0.1, {"A": 0.6, "B": 0.9}, 0.4),
        candidate("well", 9.0, {"A": 0.9, "B": 0.9}, 0.9, ended=False),
    ]
    shown, chosen, notes = explained(Reranked(others, 1), 5)
    assert [one.why for one in shown] == [
        "likely breaks “B”", "chosen: no rule likely broken, the highest score", "less preferred",
        "less sure to keep “A”", "cut off by the limit",
    ]  # fmt: skip
    assert chosen == 1
    assert notes == (
        "5 rules, of which 2 apply here; answers considered: 5",
        "1 of them did not end within the limit",
        "by preference alone it would have been: moon",
    )


def test_the_best_of_bad_ones_is_called_so_and_what_is_said_twice_is_shown_once():
    bad = candidate("moon", 2.0, {"A": 0.1}, 0.5)
    (shown,), chosen, _ = explained(Reranked([bad, bad], 0), 1)
    assert shown.why == (
        "chosen, though it likely breaks “A”: nothing else was said (said 2 times)"
    )
    other = candidate("no", 2.0, {"A": 0.2}, 0.5)
    shown, chosen, _ = explained(Reranked([bad, other, bad, other], 3), 1)
    assert (len(shown), chosen) == (2, 1)
    assert shown[1].why.endswith("the highest score (said 2 times)")
    cut = candidate("moon", 2.0, {}, 0.5, ended=False)
    (shown,), _, _ = explained(Reranked([cut], 0), 0)
    assert shown.why == "chosen: none of them ended"
