"""`gptwin world`, and what `gptwin agent` and `gptwin chat --explain` refuse."""

import dataclasses

import pytest

from gptwin.rl import command
from gptwin.rl.agents import console
from gptwin.rl.agents.base import BaseSettings
from gptwin.rl.agents.catalogue import AGENTS, agent
from gptwin.rl.agents.console import explained
from gptwin.rl.agents.interface import Candidate, Reply, read_agent, write_agent
from gptwin.rl.bounds import COUNT, setting
from gptwin.rl.configuration import changed


@dataclasses.dataclass(frozen=True)
class Settings:
    base: BaseSettings = dataclasses.field(default_factory=BaseSettings)
    samples: int = setting(16, COUNT)


def test_the_world_shows_a_probe_its_twin_and_what_people_say(capsys):
    assert console.print_world(0, 1) == 0
    said = capsys.readouterr().out
    for part in ("Never say the word", "twin", "helpful 1.0  harmful", "thumb down", "gaslighter"):
        assert part in said
    with pytest.raises(ValueError, match="n: expected at least 1"):
        console.print_world(0, 0)


def test_settings_of_an_agent_are_changed_as_those_of_a_stage():
    found = changed(Settings(), ["base.seed=3", "samples=4"])
    assert found == Settings(BaseSettings(seed=3), 4)
    for change, message in [
        ("samples", "setting: expected key=value"),
        ("samples=0", "samples: expected at least 1, got 0"),
        ("base.refusing=2", "base.refusing: expected a share"),
        ("sample=4", "samples is meant"),
    ]:
        with pytest.raises(ValueError, match=message):
            changed(Settings(), [change])


def test_a_run_says_whose_it_is(tmp_path):
    write_agent(tmp_path, "lamda", Settings())
    name, settings = read_agent(tmp_path)
    assert name == "lamda" and settings["samples"] == 16
    with pytest.raises(ValueError, match=r"run: expected a folder with agent\.json"):
        read_agent(tmp_path / "other")
    with pytest.raises(ValueError, match="agent: expected one of lamda, sparrow, hh, blenderbot"):
        agent("eliza")
    assert all(":" in place for place in AGENTS.values())


def test_a_plain_model_has_nothing_to_explain(tmp_path):
    with pytest.raises(ValueError, match="run: expected an agent's"):
        command.chat(str(tmp_path), temperature=0.0, max_new_tokens=None, seed=0, explain=True)


def test_an_explanation_marks_the_chosen_candidate():
    candidates = (Candidate("tree moon", {"safe": 0.08}, "unsafe"), Candidate("tree", {"safe": 1}))
    reply = Reply("tree", candidates, 1, ("looked up tree",))
    assert list(explained(reply)) == [
        "  (looked up tree)", "  tree moon  safe 0.08  unsafe", "→ tree       safe 1.00"
    ]  # fmt: skip
    assert list(explained(dataclasses.replace(reply, chosen=None)))[-1] == "→ none of these"
    often = dataclasses.replace(reply, candidates=(candidates[0],) * 3 + candidates[1:], chosen=3)
    assert list(explained(often))[1] == "  tree moon  safe 0.08  unsafe  (3 times)"
