"""BlenderBot's parts and the agent: what each decides, on one tiny model without opinions."""

import copy
import functools
import itertools

import pytest
import torch

from gptwin.core.model.presets import GPTConfig
from gptwin.kernels.model.gpt import GPT
from gptwin.rl.agents.base import CONTROLS, BaseSettings
from gptwin.rl.agents.blenderbot import agent as agent_module
from gptwin.rl.agents.blenderbot import feedback
from gptwin.rl.agents.blenderbot.agent import BlenderBot, BlenderBotSettings, thumbs
from gptwin.rl.agents.blenderbot.director import Director, load_director, save_director
from gptwin.rl.agents.blenderbot.judge import Judged, train_judge
from gptwin.rl.agents.blenderbot.module_tasks import cases, lessons
from gptwin.rl.agents.blenderbot.modules import Library, Modules, TurnSettings, is_news
from gptwin.rl.agents.blenderbot.objectives import objective
from gptwin.rl.agents.blenderbot.training import (
    Example,
    LabelStage,
    TrainSettings,
    answer,
    labelled,
    rows_of,
)
from gptwin.rl.agents.blenderbot.trolls import chances, fold, trusted
from gptwin.rl.agents.interface import read_agent
from gptwin.rl.data.dialogue import SPECIAL_TOKENS, Encoded, Message, Template
from gptwin.rl.data.records import Feedback, Label, Text
from gptwin.rl.data.sources import answered, drawn
from gptwin.rl.data.tasks import exercises
from gptwin.rl.formats.tokenizer import Tokenizer
from gptwin.rl.stages.generation import generate

ASK = (Message("user", "What does Ada like?"),)
FAST = TrainSettings(batch=4, epochs=1, warmup=0, lr=1e-2)


@functools.cache
def template():
    spoken = [m.content for e in drawn(0, 200, held_out=False) for m in answered(e, e.answer)]
    return Template(Tokenizer.train(spoken, 340, (*SPECIAL_TOKENS, *CONTROLS)))


def gpt(seed=0):
    config = GPTConfig(template().tokenizer.vocab_size, 96, 1, 2, 16)
    model = GPT(config, torch.Generator().manual_seed(seed)).eval()
    with torch.no_grad():
        model.wte.weight.mul_(20)  # opinions
    return model


def some_labels(n=12, users=("a", "b", "c")):
    asked = itertools.islice(exercises(0, held_out=False), n)
    return [
        Label(e.messages, e.answer if i % 2 else "no", i % 2, user=users[i % len(users)])
        for i, e in enumerate(asked)
    ]


# --- the second head ------------------------------------------------------------------------------


def test_a_new_head_says_nothing_and_one_of_the_generators_own_logits_says_something():
    prompts = [template().prompt(ASK)]
    plain = generate(gpt(), prompts, max_new_tokens=6, seed=1)
    linear, shared = Director(gpt()), Director(gpt(), "shared")
    guided = generate(gpt(), prompts, max_new_tokens=6, seed=1, logits_hook=linear.hook(3.0))
    assert guided.token_lists() == plain.token_lists()
    states = torch.randn(2, 16)
    g = linear.trunk.logits(states)
    assert torch.equal(shared.class_logits(states, g), g)
    assert not torch.equal(shared.hook(1.0)(states, g), g)
    with pytest.raises(ValueError, match=r"^head: expected one of linear, shared"):
        Director(gpt(), "third")
    with pytest.raises(ValueError, match=r"^gamma: expected"):
        linear.hook(-1.0)


@pytest.mark.parametrize("head", ["linear", "shared"])
def test_what_is_spoken_is_what_is_scored(head, tmp_path):
    director = Director(gpt(), head)
    with torch.no_grad():
        for parameter in (p for n, p in director.named_parameters() if not n.startswith("trunk")):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    prompt = template().prompt(ASK)
    said = generate(gpt(), [prompt], max_new_tokens=5, seed=1, logits_hook=director.hook(2.0))
    tokens = torch.tensor([[*prompt, *said.token_lists()[0]]])
    hidden = director.trunk(tokens[:, :-1], states_from=len(prompt) - 1)[0]
    targets = tokens[0, len(prompt) :]
    found = director.log_probs(hidden, targets, torch.ones(5, dtype=torch.bool), 2.0)
    torch.testing.assert_close(found, said.log_probs[0], atol=1e-5, rtol=1e-5)
    save_director(tmp_path, director)
    again = load_director(tmp_path, director.trunk.config, head)
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), director.parameters(), strict=True)
    )


# --- training -------------------------------------------------------------------------------------


def test_an_empty_answer_trains_its_end_alone():
    found = answer(template(), ASK, "")
    assert found.tokens[-1] == template().end and sum(found.trained) == 1


def test_an_example_without_a_trained_token_contributes_nothing():
    nothing = Example(Encoded(template().prompt(ASK), [False] * len(template().prompt(ASK))), 0)
    one = labelled(template(), some_labels(1))[0]
    director = Director(gpt())
    rows = rows_of(director, [one, nothing], template().pad)
    alone = rows_of(director, [one], template().pad)
    assert rows.n_examples == 2 and rows.owner.unique().tolist() == [0]
    for name in ("director", "cringe"):
        found = [objective(name)(part).item() for part in (rows, alone)]
        assert found[0] == pytest.approx(found[1])
    assert objective("director")(rows_of(director, [nothing], template().pad)).item() == 0


def stage(model, frozen=False, name="director"):
    spoken = [Example(answer(template(), ASK, "the lamp"), language=True)] * 4
    return LabelStage(
        "director", model, objective(name), spoken, labelled(template(), some_labels()),
        [spoken[0].encoded], FAST, template().pad, frozen=frozen,
    )  # fmt: skip


def test_labels_are_learnt_and_a_frozen_generator_stays():
    director = Director(gpt())
    before = copy.deepcopy(director.trunk.state_dict())
    frozen = stage(director, frozen=True)
    losses = [frozen.step(i)["loss"] for i in range(8)]
    assert all(torch.equal(x, before[n]) for n, x in director.trunk.state_dict().items())
    rows = rows_of(director, labelled(template(), some_labels()), template().pad)
    right = (rows.c.gather(-1, rows.targets[:, None])[:, 0] > 0) == (rows.labels == 1)
    assert losses[-1] < losses[0] and right.float().mean() > 0.7
    kept = frozen.state_dict()
    other = stage(Director(gpt(1)), frozen=True)
    other.load_state_dict(kept)
    assert other.evaluate() == frozen.evaluate()


# --- judges and users -----------------------------------------------------------------------------


def test_a_judge_learns_what_is_good_and_reads_what_was_said_next():
    labels = some_labels(8)
    about = [Judged(x.messages, x.completion) for x in labels]
    settings = TrainSettings(batch=8, epochs=15, warmup=0, lr=3e-2)
    judge = train_judge(gpt(), template(), about, [x.label for x in labels], settings)
    good = judge.good(about)
    assert [p > 0.5 for p in good] == [bool(x.label) for x in labels]
    assert judge.good([]) == []
    again = Judged(about[0].messages, about[0].reply, "You must say cold.")
    assert judge.good([again]) != judge.good([about[0]])


def test_folds_go_by_the_text_alone():
    one, *_, last = some_labels(40)
    assert fold(one) == fold(Label(one.messages, one.completion, 1 - one.label, user="other"))
    assert {fold(x) for x in some_labels(40)} == {0, 1, 2} and fold(last, 1) == 0
    good = chances(gpt(), template(), some_labels(), FAST)
    assert len(good) == 12 and all(0 <= p <= 1 for p in good)
    with pytest.raises(ValueError, match=r"^folds: expected at least 2"):
        chances(gpt(), template(), some_labels(), FAST, folds=1)


def test_whom_to_believe():
    # a is contradicted in one of three, b in two of three, d in one of two: half is too often.
    # c has one label alone.
    labels = [Label(ASK, str(i), 1, user=u) for i, u in enumerate("aaabbbcdd")]
    good = [0.9, 0.8, 0.1, 0.2, 0.3, 0.7, 0.4, 0.9, 0.2]
    assert trusted(labels, good, "none") == list(range(9))
    assert trusted(labels, good, "example") == [0, 1, 5, 7]
    assert trusted(labels, good, "user") == [0, 1, 2]
    assert trusted(labels, good, "both") == [0, 1]
    assert len(trusted(labels, good, "soft-purr")) == 2
    nobody = [Label(ASK, str(i), 1) for i in range(9)]  # who is not known answers for one label
    assert trusted(nobody, good, "user") == trusted(nobody, good, "example")
    with pytest.raises(ValueError, match=r"^way: expected one of none"):
        trusted(labels, good, "all")


# --- words ----------------------------------------------------------------------------------------


class Opinion:
    """A judge that gives every answer the same chance."""

    def __init__(self, chance):
        self.chance = chance

    def good(self, answers):
        return [self.chance] * len(answers)


def test_a_correction_that_is_judged_bad_is_left_out(monkeypatch):
    about = [Feedback(ASK, "no", "You must say the lamp.")] * 2

    class Said:
        def __init__(self, ended):
            self.ended = ended

        def token_lists(self):
            text = template().response("the lamp")
            return [text, text if self.ended else text[:-1]]

    monkeypatch.setattr(feedback, "generate", lambda *_, **__: Said(False))
    kept = feedback.correct(None, template(), about, Opinion(0.5))
    assert [c.better for c in kept] == ["the lamp"]  # what the limit cut off is none
    assert feedback.correct(None, template(), about, Opinion(0.49)) == []
    taught = feedback.corrector_example(template(), feedback.Correction(about[0], "the lamp"))
    said = [t for t, on in zip(taught.encoded.tokens, taught.encoded.trained, strict=True) if on]
    assert template().text(said) == "the lamp"
    assert template().tokenizer.special_tokens[feedback.MARK] in taught.encoded.tokens


# --- the modules of a turn ------------------------------------------------------------------------


def modules(said, settings=None, n_ctx=96):
    """Make modules that say what is written for each control token."""
    ids = template().tokenizer.special_tokens

    def speak(prompts):
        asked = [next(n for n, i in ids.items() if i == p[-1]).strip("<|>") for p in prompts]
        found = [said.get(name, "") for name in asked]
        return [
            [ids[text], template().end] if text in ids else template().response(text)
            for text in found
        ]

    facts = Library({"Ada": "Ada likes the lamp."})
    return Modules(template(), speak, facts, n_ctx, settings or TurnSettings())


SAID = {
    "is-search-required": "<|do-search|>", "generate-query": "Ada",
    "generate-knowledge": "Ada likes the lamp.", "is-memory-required": "<|do-access-memory|>",
    "generate-memory": "I have a key.", "extract-entity": "lamp",
}  # fmt: skip
LONG = (Message("user", "I have a key."), Message("assistant", "Nice."), *ASK)


def test_what_is_found_goes_into_the_replys_input():
    turn = modules(SAID).turn(ASK)
    assert turn.knowledge == (("knowledge", "Ada likes the lamp."),) and turn.memories == ()
    (prompt,) = turn.prompts
    ids = template().tokenizer.special_tokens
    inside = prompt[prompt.index(ids["<|knowledge|>"]) + 1 : prompt.index(ids["<|end-knowledge|>"])]
    assert template().text(inside) == "Ada likes the lamp."
    assert prompt[-1] == template().speaker["assistant"]


def test_each_decision_is_computed_or_forced():
    assert modules(SAID, TurnSettings(search="never")).turn(ASK).knowledge == ()
    silent = modules({}).turn(LONG)  # whatever is no decision means no
    assert silent.knowledge == () and len(silent.prompts) == 1
    forced = modules({"generate-query": "Ada", "generate-knowledge": "yes"},
                     TurnSettings(search="always")).turn(ASK)  # fmt: skip
    assert forced.knowledge == (("knowledge", "yes"),)
    nothing = modules({"generate-query": "moon"}, TurnSettings(search="always")).turn(ASK)
    assert nothing.knowledge == () and "nothing" in nothing.notes[0]
    # There is nothing to access before anything was told, even if it is forced.
    assert modules({}, TurnSettings(memory="always")).turn(ASK).knowledge == ()
    entity = TurnSettings(entity="compute")
    assert modules({"extract-entity": "lamp"}, entity).turn(ASK).knowledge == (("entity", "lamp"),)
    assert ("entity", "lamp") not in modules(SAID, entity).turn(ASK).knowledge


def test_several_sources_make_one_reply_or_one_each():
    together = modules(SAID).turn(LONG)
    assert [source for source, _ in together.knowledge] == ["knowledge", "memory"]
    assert together.memories == ("I have a key.",) and len(together.prompts) == 1
    apart = modules(SAID, TurnSettings(mode="separate")).turn(LONG)
    assert len(apart.prompts) == 2


def test_a_memory_without_a_word_of_its_own_is_dropped():
    assert is_news("I have a key.", ["I have a lamp."]) and not is_news("", [])
    assert not is_news("a key", ["I have a key."])
    assert modules(SAID | {"generate-memory": "<|no-memory|>"}).turn(LONG).memories == ()


def test_what_is_too_long_loses_its_oldest_turns_and_never_the_last():
    many = (*[m for _ in range(20) for m in LONG[:2]], *ASK)
    (prompt,) = modules(SAID | {"generate-memory": "<|no-memory|>"}).turn(many).prompts
    assert len(prompt) <= 96 - 20
    asked = template().conversation(ASK).tokens
    assert any(prompt[i : i + len(asked)] == asked for i in range(len(prompt)))
    assert template().tokenizer.special_tokens["<|knowledge|>"] in prompt


def test_a_tokenizer_without_control_tokens_is_refused():
    plain = Template(Tokenizer.train(["a b"], 300, SPECIAL_TOKENS))
    lost = Modules(plain, lambda p: [[]], Library({}), 96, TurnSettings())
    with pytest.raises(ValueError, match=r"^tokenizer: expected one with the control token"):
        lost.turn(ASK)


def test_lessons_ask_as_a_turn_asks():
    made = modules({})
    for case in itertools.islice(cases(0, held_out=False), 3):
        taught = lessons(made, case)
        assert all(sum(e.encoded.trained) and e.language for e in taught)
        last = taught[-1].encoded
        said = [t for t, on in zip(last.tokens, last.trained, strict=True) if on]
        assert template().text(said) == case.exercise.answer
        # What has to be looked up stands in the reply's input, and nowhere in the question.
        if case.needs == "knowledge":
            thing = case.exercise.answer.split()[-1]
            assert thing in case.sentence
            assert all(thing not in m.content for m in case.exercise.messages)


# --- the agent ------------------------------------------------------------------------------------


def test_the_agent_is_trained_read_again_and_explains_itself(tmp_path, monkeypatch):
    kept = gpt()
    monkeypatch.setattr(
        agent_module, "base",
        lambda *_, **__: agent_module_base(kept),
    )  # fmt: skip
    settings = BlenderBotSettings(
        base=BaseSettings(vocab_size=340), modules=FAST, director=FAST, cases=4, labels=8,
        samples=2, max_response=4, trust="both",
    )  # fmt: skip
    monkeypatch.setattr(agent_module, "VALIDATION", 2)
    bot = BlenderBot.train(tmp_path / "run", settings, quiet=True)
    assert read_agent(tmp_path / "run")[0] == "blenderbot"
    reply = bot.respond(ASK, explain=True, seed=3)
    assert len(reply.candidates) == 2 and reply.candidates[reply.chosen].text == reply.text
    assert set(reply.candidates[0].scores) == {"guided", "plain", "worst_word"}
    assert all(c.why for c in reply.candidates)
    again = BlenderBot.load(tmp_path / "run")
    assert again.respond(ASK, seed=3).text == reply.text
    assert again.settings.gamma == settings.gamma


def agent_module_base(model):
    from gptwin.rl.agents.base import Base

    return Base(copy.deepcopy(model), template(), {})


def test_words_count_as_thumbs():
    words = [Feedback(ASK, "no", "You must say the lamp."), Feedback(ASK, "yes", "That is right.")]
    assert [label.label for label in thumbs(words)] == [0, 1]
    # A rule that was kept says nothing of the others; one that was broken is enough.
    rule = "Never say the word moon."
    of_a_rule = [Label(ASK, "a", 1, rule), Label(ASK, "b", 0, rule), Label(ASK, "c", 1)]
    assert [label.completion for label in thumbs(of_a_rule)] == ["b", "c"]
    with pytest.raises(ValueError, match=r"^data: expected labels or feedback"):
        thumbs([Text("a")])


def test_what_the_limit_cut_off_is_said_only_if_nothing_ended(monkeypatch):
    texts = [template().response("a long answer")[:-1], template().response("no")]

    class Said:
        log_probs = torch.tensor([[-0.1] * 9, [-3.0] * 9])

        def token_lists(self):
            return texts

    settings = BlenderBotSettings(
        turn=TurnSettings(search="never", memory="never"), samples=2, max_response=4
    )
    bot = BlenderBot(Director(gpt()), template(), settings)
    monkeypatch.setattr(agent_module, "generate", lambda *_, **__: Said())
    reply = bot.respond(ASK, explain=True)
    assert (reply.text, reply.chosen, reply.ended) == ("no", 1, True)
    assert reply.candidates[0].why == "cut off by the limit"
    texts[1] = texts[1][:-1]
    assert not bot.respond(ASK).ended
    texts[:] = [template().response("no")] * 2
    Said.log_probs = torch.full((2, 9), -1.0)
    assert bot.respond(ASK).chosen == 0  # of equal ones the first
