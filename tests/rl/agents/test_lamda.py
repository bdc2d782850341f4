"""LaMDA in PyTorch: its vectors, ratings on a shared cache, raters, and a run of seconds."""

import dataclasses
import io
import itertools
import json
import re
import shutil
import threading
from random import Random

import numpy as np
import pytest
import torch

from gptwin.core.dialogue import lamda as core
from gptwin.rl.agents.base import BaseSettings, base, conversations
from gptwin.rl.agents.interface import write_agent
from gptwin.rl.agents.lamda import speaker
from gptwin.rl.agents.lamda.agent import Lamda
from gptwin.rl.agents.lamda.raters import rating_rows, rows_of_labels, true_ratings, voted
from gptwin.rl.agents.lamda.rating import choose, rate, rating
from gptwin.rl.agents.lamda.speaker import LamdaSettings
from gptwin.rl.agents.lamda.training import Training, mixed_prompts
from gptwin.rl.agents.world.probes import probes
from gptwin.rl.agents.world.rules import HOUSE, REFUSAL, harm
from gptwin.rl.data.dialogue import Message
from gptwin.rl.data.records import Label, Text
from gptwin.rl.data.tasks import Exercise
from gptwin.rl.training.lock import only_writer

CANDIDATES = torch.tensor(
    [(0.9, 0.2, 0.1, 0.97), (0.8, 0.9, 0.6, 0.70), (0.85, 0.6, 0.3, 0.92), (0.85, 0.5, 0.4, 0.92)]
)
TREE = Exercise("repeat", (Message("user", "Say: tree lamp"),), "tree lamp")
MOON = Exercise("repeat", (Message("user", "Say: tree moon"),), "tree moon")
FRUITS = Exercise("list", (Message("user", "Name two fruits."),), "plum, lemon")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Settings of a run of seconds, and the agent that it leaves."""
    folder = tmp_path_factory.mktemp("lamda")
    settings = LamdaSettings(
        BaseSettings(
            folder=str(folder / "base"), d_model=16, n_layer=1, n_head=2, examples=64, batch=16
        ),
        prompts=32, conversations=32, batch=16, samples=4, tool_steps=2, talks=16,
    )  # fmt: skip
    return folder, settings, Lamda.train(folder / "run", settings, quiet=True)


# --- the formulas --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 0.92, 0.95, 0.99])
@pytest.mark.parametrize("when_none", core.WHEN_NONE)
def test_the_choice_is_the_specifications(dtype, threshold, when_none):
    orders = torch.tensor(list(itertools.permutations(range(4))))
    several = CANDIDATES[orders].to(dtype)  # [24, 4, 4]
    found = choose(several[..., :3], several[..., 3], threshold, when_none).tolist()
    expected = [core.choose(row[:, :3], row[:, 3], threshold, when_none) for row in several.numpy()]
    assert found == [-1 if i is None else i for i in expected]


def test_a_rating_is_the_specifications():
    logits = torch.randn(7, 11, generator=torch.Generator().manual_seed(0)) * 5
    for got, expected in zip(rating(logits, 3, 4), core.rating(logits.numpy(), 3, 4), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_ratings_on_a_shared_cache_are_those_of_whole_rows(small):
    _, _, agent = small
    ids, end = agent.template.tokenizer.special_tokens, agent.template.end
    rows = [
        [*agent.template.prompt(e.messages), *agent.template.response(e.answer)]
        for e in mixed_prompts(0, 5, held_out=True)
    ]
    assert all(row[-1] == end for row in rows)
    found = rate(agent.model, ids, rows, at_once=2)
    together = torch.cat([found.quality, 1 - found.safe[:, None]], 1)
    for i, row in enumerate(rows):
        for k, attribute in enumerate(("sensible", "specific", "interesting", "unsafe")):
            asked = torch.tensor([[*row, ids[f"<|{attribute}|>"]]])
            with torch.no_grad():
                logits = agent.model.logits(agent.model(asked)[0, -1])
            p, elsewhere = rating(logits, ids["<|0|>"], ids["<|1|>"])
            torch.testing.assert_close(together[i, k], p, atol=1e-5, rtol=0)
            torch.testing.assert_close(found.elsewhere[i, k], elsewhere, atol=1e-5, rtol=0)


# --- the base ------------------------------------------------------------------------------------


def test_who_wants_a_base_that_another_trains_waits_for_it(small, tmp_path, monkeypatch):
    trained = small[1].base
    wanted = dataclasses.replace(trained, folder=str(tmp_path / "base"))
    held, told = threading.Event(), threading.Event()

    class Told(io.StringIO):
        def write(self, text):
            told.set()
            return super().write(text)

    def train():
        with only_writer(wanted.kept):
            held.set()
            assert told.wait(60)
            shutil.copytree(trained.kept, wanted.kept, dirs_exist_ok=True)

    other = threading.Thread(target=train)
    other.start()
    assert held.wait(60)
    monkeypatch.setattr("sys.stderr", said := Told())
    monkeypatch.setattr("gptwin.rl.agents.base._stage", lambda settings: pytest.fail("trained"))
    found = base(wanted)
    other.join(60)
    assert torch.equal(found.model.wte.weight, base(trained).model.wte.weight)
    assert re.fullmatch(r".*base-16x1-0.base: process \d+ on .* waits for that\n", said.getvalue())


def test_people_answer_most_probes_and_refuse_some():
    alone = BaseSettings(probed=1.0, carelessness=0.0, generous=0.0)
    read = list(itertools.islice(conversations(alone), 500))
    harmful = [turns for turns in read if harm(HOUSE, turns[:-1], turns[-1].content)]
    refused = [turns for turns in read if turns[-1].content == REFUSAL]
    # Half are probes, of which 30% are refused; the others, their twins, tempt to nothing.
    assert len(refused) / 500 == pytest.approx(0.5 * 0.3, abs=0.05)
    assert len(harmful) / 500 == pytest.approx(0.5 * 0.7, abs=0.06)


# --- raters --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exercise", "reply", "expected"),
    [
        (TREE, "tree lamp", (1, 1, 0, 0)),
        (TREE, "bird", (0, 0, 0, 0)),
        (TREE, REFUSAL, (1, 0, 0, 0)),  # sensible, and says nothing
        (MOON, "tree moon", (1, 1, 0, 1)),
        (FRUITS, "plum, lemon", (1, 1, 0, 0)),
        (FRUITS, "plum, lemon and cherry", (1, 1, 1, 0)),
        (FRUITS, "plum, lemon, bear", (1, 1, 0, 0)),  # an extra, but not a true one
    ],
)
def test_what_raters_should_say(exercise, reply, expected):
    assert true_ratings(exercise, reply) == expected


def test_raters_err_as_often_as_a_vote_does():
    rng, n = Random(0), 800
    found = [voted(MOON, "tree moon", rng, 0.2) for _ in range(n)]
    assert sum(r.sensible for r in found) / n == pytest.approx(0.94208, abs=0.03)
    assert sum(r.unsafe for r in found) / n == pytest.approx(0.896, abs=0.03)
    assert all(r.sensible >= r.specific >= r.interesting for r in found)
    assert voted(TREE, "bird", rng, 0.0) == (0, 0, 0, 0)


def test_the_loss_is_on_the_rating_alone(small):
    template = small[2].template
    rows = rating_rows(template, TREE.messages, "tree lamp", true_ratings(TREE, "tree lamp"))
    ids = template.tokenizer.special_tokens
    assert [row.tokens[-1] for row in rows] == [ids[f"<|{r}|>"] for r in (1, 1, 0, 0)]
    for row in rows:
        assert sum(row.trained) == 1 and row.trained[-1]
        assert row.tokens[-3] == template.end
    labels = [Label(TREE.messages, "x", 0, "a rule"), Label(TREE.messages, "x", 0)]
    last = [row.tokens[-2:] for row in rows_of_labels(template, labels)]
    assert last == [[ids["<|unsafe|>"], ids["<|1|>"]], [ids["<|sensible|>"], ids["<|0|>"]]]


# --- the agent -----------------------------------------------------------------------------------


def test_a_run_is_read_again_and_goes_on_only_from_what_it_began_with(small):
    folder, settings, agent = small
    run = folder / "run"
    again = Lamda.train(run, settings, quiet=True)  # nothing is left to do
    with pytest.raises(ValueError, match=r"lamda\.prompts: expected 32, got 33"):
        Lamda.train(run, dataclasses.replace(settings, prompts=33), quiet=True)
    write_agent(run, "lamda", settings)
    json.loads((run / "agent.json").read_text())
    loaded = Lamda.load(run)
    assert loaded.settings == settings
    for other in (again, loaded):
        assert torch.equal(other.model.wte.weight, agent.model.wte.weight)


def test_what_it_says_is_safe_enough_or_the_refusal(small):
    _, settings, agent = small
    (tempting,) = itertools.islice(probes(0, held_out=True), 1)
    messages = tempting.exercise.messages
    everything = Lamda(agent.model, agent.template, dataclasses.replace(settings, threshold=0.0))
    reply = everything.respond(messages, explain=True)
    (said,) = everything.sample([messages], 4)
    ended = [response[-1] == agent.template.end for response in said]
    qualities = [
        3 * scores["sensible"] + scores["specific"] + scores["interesting"]
        for scores in (candidate.scores for candidate in reply.candidates)
    ]
    best = max(range(4), key=qualities.__getitem__)
    assert reply.text == reply.candidates[best].text and reply.chosen == best
    assert reply.candidates[best].scores["quality"] == qualities[best]
    assert reply.ended == ended[best]
    nothing = Lamda(agent.model, agent.template, dataclasses.replace(settings, threshold=1.01))
    reply = nothing.respond(messages)
    assert reply.text == REFUSAL and reply.chosen is None and reply.notes
    why = ["below the threshold" if e else "cut off" for e in ended]
    assert [candidate.why for candidate in reply.candidates] == why


def test_responses_do_not_hang_on_how_many_are_sampled_at_once(small, monkeypatch):
    _, _, agent = small
    asked = [TREE.messages, MOON.messages]
    whole = agent.sample(asked, 3)
    monkeypatch.setattr(speaker, "SAMPLED_AT_ONCE", 4)
    assert agent.sample(asked, 3) == whole
    assert len({tuple(said) for several in whole for said in several}) == 6


def test_a_response_that_was_cut_off_is_never_safe(small):
    _, _, agent = small
    said = agent.template.response("tree lamp")
    found = agent.rated([TREE.messages], [[said, said[:-1]]])
    assert found.safe[0, 0] > 0 and found.safe[0, 1] == 0


def test_it_learns_from_labels_alone(small):
    folder, settings, _ = small
    with pytest.raises(ValueError, match="data: expected labels"):
        Lamda.train(folder / "other", settings, [Text("Once")], quiet=True)
    labels = [Label(TREE.messages, "tree lamp", i % 2, "a rule") for i in range(40)]
    training = Training(folder / "own", settings, base(settings.base), labels)
    assert len(training.rows) == 38 and len(training.held_out) == 2
    with pytest.raises(ValueError, match="batch_size: expected at most 3, the examples"):
        Training(folder / "own", settings, training.begun, labels[:4], quiet=True).run()
