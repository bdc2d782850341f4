"""A model of a few steps speaks: batches, limits, what is stored; and a policy learns its hints."""

import dataclasses

import pytest
import torch

from gptwin.rl.prompting import corpus, hints
from gptwin.rl.prompting.interface import Call
from gptwin.rl.prompting.speaker import Speaker, load_speaker
from gptwin.rl.studies import techniques as study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("prompting")
    few = dataclasses.replace(corpus.SMALL, steps=6, batch=16, warmup=2)
    corpus.teach(place, settings=few, quiet=True)
    return place


@pytest.fixture
def speaker(folder):
    return load_speaker(folder / corpus.MODEL)


def test_a_model_that_is_there_is_not_trained_again(folder):
    never = dataclasses.replace(corpus.SMALL, steps=10**9)
    found = corpus.teach(folder, settings=never, quiet=True)
    assert found.model.config.n_ctx == 64


def test_replies_do_not_depend_on_who_else_asks(speaker):
    calls = [Call("from 3 8 move", limit=4), Call("pet of bade answer", limit=4)]
    together = speaker.say(calls)
    alone = [speaker.say([call])[0] for call in calls]
    assert [[said.text for said in replies] for replies in together] == [
        [said.text for said in replies] for replies in alone
    ]
    (said,) = together[0]
    assert said.n_read == 4
    assert said.ended == (said.n_written < 4 or said.ended)
    assert said.log_prob < 0


def test_calls_of_different_kinds_get_their_own_replies(speaker):
    calls = [Call("from 1 2 move", 3, 1.0, limit=5), Call("from 1 2 value", limit=2),
             Call("from 1 2 move", 2, 1.0, limit=5)]  # fmt: skip
    replies = speaker.say(calls)
    assert [len(said) for said in replies] == [3, 1, 2]
    assert all(said.n_written <= 5 for said in replies[0])
    # The seed moves on, so that the same call asked later is drawn anew.
    before = speaker.seed
    speaker.say(calls)
    assert speaker.seed > before


def test_too_long_a_prompt_is_refused_by_name(speaker):
    with pytest.raises(ValueError, match="prompt: expected at most 60 tokens, to leave 4"):
        speaker.say([Call(" ".join(["from"] * 61), limit=4)])


def test_a_tokenizer_without_an_end_is_refused(speaker):
    bare = corpus.Tokenizer.train(["a b"], 256, ())
    with pytest.raises(ValueError, match="tokenizer: expected one that knows"):
        Speaker(speaker.model, bare)


def test_a_policy_is_trained_by_what_its_hints_are_worth(speaker):
    settings = dataclasses.replace(hints.PPO, episodes=16, batch=16, minibatches=2)
    before = speaker.model.wte.weight.clone()
    policy = hints.trained(speaker, hints.drawn(32, 1, held_out=False), settings=settings)
    assert torch.equal(before, speaker.model.wte.weight)  # the one that answers is frozen
    assert not torch.equal(before, policy.model.wte.weight)
    asked = hints.drawn(6, 0)
    assert {q.family for q in asked} == {"links", "story"}
    said = hints.written(policy, asked)
    assert len(said) == 6
    given = hints.shares(["steps"] * 3 + ["program"] * 3, asked)
    assert given == {"links": {"answer": 0, "steps": 1, "filler": 0, "program": 0},
                     "story": {"answer": 0, "steps": 0, "filler": 0, "program": 1}}  # fmt: skip


@pytest.mark.parametrize("name", study.EXPERIMENTS)
def test_every_experiment_runs_and_counts_its_cost(name, speaker):
    rows, answers = study.run(name, speaker, 2, 0)
    assert [row["arm"] for row in rows] == list(study.EXPERIMENTS[name].arms) == list(answers)
    for row in rows:
        assert row["n"] == 2
        assert row["calls"] >= 1
        assert 0 <= row["right"] <= 2
    assert study.table(name, rows).row_count == len(rows)


def test_wrong_facts_are_wrong_in_the_colour_alone():
    for question in corpus.questions("home", 20):
        right, wrong = study._true_facts(question).split(), study._wrong_facts(question).split()
        assert right[:-1] == wrong[:-1]
        assert right[-1] != wrong[-1]
