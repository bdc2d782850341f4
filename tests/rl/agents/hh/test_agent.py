"""The agent: all stages at the smallest size, what it says of its candidates, and your own data."""

import dataclasses

import pytest
import tiny
import torch

from gptwin.rl.agents.base import BaseSettings
from gptwin.rl.agents.hh.agent import HH
from gptwin.rl.agents.hh.distillation import DistillationSettings
from gptwin.rl.agents.hh.instructions import InstructionSettings, conversations
from gptwin.rl.agents.hh.preference_model import PreferenceSettings
from gptwin.rl.agents.hh.stages import Run, Settings
from gptwin.rl.agents.run import save_model
from gptwin.rl.agents.world.rules import REFUSAL
from gptwin.rl.configuration import PPOSettings
from gptwin.rl.data.dialogue import Message
from gptwin.rl.data.records import Label, Preference

ASKED = (Message("user", "Say: lamp tree"),)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The agent of the smallest model, which has learnt nothing."""
    folder = tmp_path_factory.mktemp("base")
    save_model(folder, tiny.gpt(), tiny.template())
    return Settings(
        base=BaseSettings(weights=str(folder / "model")),
        instructions=InstructionSettings(examples=16, batch=8),
        distillation=DistillationSettings(prompts=8, kept=4, epochs=1, batch=8),
        preferences=PreferenceSettings(batch=4),
        policy=PPOSettings(episodes=8, batch=8, minibatches=1, max_response=6, ptx=0.0),
        prompt="Never say the word moon.", questions=8, rounds=2, comparisons=12, candidates=3,
        max_response=6,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hh")
    with pytest.MonkeyPatch.context() as patch:
        few(patch)
        return folder, HH.train(folder, settings, quiet=True)


def few(patch):
    from gptwin.rl.agents.hh import stages

    patch.setattr(stages, "HELD_OUT", 8)
    patch.setattr(stages, "PROMPTS", 120)
    # A model that has learnt nothing says nothing that is worth more than anything else.
    patch.setitem(stages.compare.__globals__["AXES"], "helpful", lambda e, reply: len(reply) / 99)
    patch.setitem(stages.compare.__globals__["AXES"], "harmless", lambda e, reply: -len(reply))
    patch.setitem(stages.voted.__globals__, "gold", lambda e, reply: len(reply) / 99)


def test_every_stage_leaves_a_folder(made):
    folder, _ = made
    stages = ("instructed", "distilled", "votes", "judge-1", "policy-1", "judge-2", "policy-2")
    for name in stages:
        assert (folder / name / "ended.json").exists(), name
    assert (folder / "agent.json").exists() and (folder / "detector.json").exists()


def test_stages_that_have_ended_rest(made, settings, monkeypatch):
    folder, agent = made
    few(monkeypatch)
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*/model/*")}
    again = HH.train(folder, settings, quiet=True)
    assert {file: file.stat().st_mtime_ns for file in folder.glob("*/model/*")} == before
    assert again.respond(ASKED, seed=3) == agent.respond(ASKED, seed=3)


def test_other_settings_are_refused(made, settings, monkeypatch):
    folder, _ = made
    few(monkeypatch)
    with pytest.raises(ValueError, match="harmless_weight"):
        Run(folder, dataclasses.replace(settings, harmless_weight=9.0), None, True).run()


def test_the_preferred_candidate_is_said_and_why(made):
    _, agent = made
    agent = dataclasses.replace(agent, n=8)
    reply = agent.respond(ASKED, explain=True, seed=1)
    assert len(reply.candidates) == 8 and reply.text == reply.candidates[reply.chosen].text
    scores = [c.scores["preference"] for c in reply.candidates]
    rivals = [s for s, c in zip(scores, reply.candidates, strict=True) if "cut off by" not in c.why]
    assert scores[reply.chosen] == max(rivals)
    assert reply.candidates[reply.chosen].why.startswith("preferred")
    assert all(c.why == "" for c in agent.respond(ASKED, seed=1).candidates)


def test_what_was_cut_off_is_taken_only_where_all_is(made, monkeypatch):
    from gptwin.rl.agents.hh import agent as module

    _, agent = made
    template = agent.template
    whole, cut = template.response("lamp"), template.response("lamp tree")[:-1]
    monkeypatch.setattr(module, "score_rows", lambda s, rows, pad: torch.tensor([0.0, 5.0, 5.0]))
    for said, chosen, why in (([whole, cut, cut], 0, "cut off"), ([cut, cut, cut], 1, "5.00")):
        monkeypatch.setattr(module, "say", lambda *a, said=said, **k: [said])
        reply = agent.respond(ASKED, explain=True)
        assert reply.chosen == chosen and reply.ended == (chosen == 0)
        assert why in reply.candidates[2 if chosen == 0 else 0].why


def test_a_strange_prompt_is_refused_before_anything_is_said(made):
    _, agent = made
    wary = dataclasses.replace(agent, detector=dataclasses.replace(agent.detector, threshold=-1e9))
    reply = wary.respond(ASKED)
    assert reply.text == REFUSAL and reply.chosen is None and not reply.candidates
    assert "unlike the prompts it knows" in reply.notes[0]


def test_the_oldest_turns_are_forgotten_but_what_the_system_says(made):
    _, agent = made
    turns = [Message("system", "The code is lamp.")]
    for _ in range(12):
        turns += [Message("user", "Say: lamp tree"), Message("assistant", "lamp tree")]
    kept = agent._prompt([*turns, *ASKED])
    assert len(kept) <= agent.model.config.n_ctx - agent.max_response
    assert kept[: len(agent.template.conversation(turns[:1]).tokens)] == (
        agent.template.conversation(turns[:1]).tokens
    )
    with pytest.raises(ValueError, match="message: expected at most"):
        agent._prompt([Message("user", "lamp " * 200)])


def test_your_own_comparisons_are_learnt_from_alone(settings, tmp_path, monkeypatch):
    few(monkeypatch)
    own = [
        Preference((Message("user", f"Say: {word}"),), (word, "no"), (0, 1))
        for word in ("lamp", "tree", "moon", "fish", "bird", "book", "door", "key")
    ] * 8
    plain = dataclasses.replace(settings, prompt="")
    agent = HH.train(tmp_path, plain, own, quiet=True)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["judge-1", "policy-1"]
    assert agent.respond(ASKED).text is not None
    with pytest.raises(ValueError, match="records: expected comparisons"):
        Run(tmp_path, plain, [Label(ASKED, "lamp", 1)], True)


def test_an_unfinished_run_is_not_read(settings, tmp_path):
    from gptwin.rl.agents.interface import write_agent

    write_agent(tmp_path, "hh", settings)
    with pytest.raises(ValueError, match="trained to its end"):
        HH.load(tmp_path)


def test_instructions_refuse_what_the_prompt_forbids_and_nothing_without_it():
    prompt = "Never say the word moon. Never say the word key."
    drawn, refused = conversations(InstructionSettings(), prompt, 0), 0
    for _ in range(200):
        *before, asked, reply = next(drawn)
        if not any(prompt in m.content for m in before):
            assert reply.content != REFUSAL
            continue
        refused += reply.content == REFUSAL
        said = asked.content.split(": ")[1]
        assert (reply.content == REFUSAL) == bool({"moon", "key"} & set(said.split()))
        assert reply.content in (REFUSAL, said)
    assert 40 < refused < 80
    with pytest.raises(ValueError, match="prompt: expected texts of rules"):
        next(conversations(InstructionSettings(), "Be kind.", 0))
