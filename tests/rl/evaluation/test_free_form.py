"""Answers in the model's own words: exact match, pass@k, confidence, beams."""

import itertools

import numpy as np
import pytest
import tiny
import torch

from gptwin.rl.evaluation.asking import Chatting
from gptwin.rl.evaluation.beam import beam_search
from gptwin.rl.evaluation.choices import length_penalised
from gptwin.rl.evaluation.free_form import (
    FreeAnswer,
    answer_freely,
    most_confident,
    pass_at_k,
)
from gptwin.rl.evaluation.items import FreeItem
from gptwin.rl.stages.generation import generate


@pytest.mark.parametrize(
    ("n", "c", "k", "chance"),
    [(10, 3, 1, 0.3), (10, 3, 5, 0.916667), (10, 8, 5, 1.0), (10, 0, 5, 0.0), (5, 5, 5, 1.0)],
)
def test_pass_at_k(n, c, k, chance):
    assert pass_at_k(n, c, k) == pytest.approx(chance, abs=1e-6)


def test_pass_at_k_is_the_mean_over_all_draws():
    rights = [True] * 3 + [False] * 4
    draws = list(itertools.combinations(rights, 2))
    assert pass_at_k(7, 3, 2) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_refuses_more_tries_than_samples():
    with pytest.raises(ValueError, match="k: expected 1 to the 5 samples"):
        pass_at_k(5, 1, 6)
    with pytest.raises(ValueError, match="c: expected 0 to the 5 samples"):
        pass_at_k(5, 6, 1)


def answer(text, log_prob=0.0, wanted=("4", "four")):
    return FreeAnswer(FreeItem("2 + 2", wanted), (), [text], [log_prob], 0)


def test_an_answer_is_right_if_it_is_a_completion_spaces_apart():
    said = [" 4", "four ", "4.", "", "Four"]
    assert [answer(text).rights[0] for text in said] == [True, True, False, False, False]


def test_the_surest_answers():
    answers = [answer("5", -3.0), answer("4", -1.0), answer("4", -0.5), answer("5", -1.0)]
    assert most_confident(answers, 0.5) == [True, True]
    assert most_confident(answers, 0.01) == [True]
    assert most_confident(answers, 1.0) == [True, True, False, False]


ITEMS = [FreeItem("Say: moon", ("moon",), 1), FreeItem("Reverse: key bird", ("bird key",), 2)]


def test_a_greedy_answer_is_generations():
    model, asking = tiny.gpt(), Chatting(tiny.template())
    answers = answer_freely(model, asking, ITEMS, max_new_tokens=6)
    for item, found in zip(ITEMS, answers, strict=True):
        said = generate(
            model, [asking.context((), item.prompt)], max_new_tokens=6, temperature=0.0,
            stop_tokens=asking.stops(),
        )  # fmt: skip
        (ids,) = said.token_lists()
        assert found.texts == [asking.text(ids)]
        assert found.log_probs == pytest.approx([said.log_probs.sum().item()], abs=1e-4)
        assert found.n_cut == (ids[-1] not in asking.stops())


def test_samples_differ_and_do_not_depend_on_who_is_beside_them():
    model, asking = tiny.gpt(), Chatting(tiny.template())
    options = {"max_new_tokens": 5, "samples": 4, "temperature": 1.0, "seed": 3}
    both = answer_freely(model, asking, ITEMS, **options)
    (alone,) = answer_freely(model, asking, ITEMS[:1], at_once=2, **options)
    assert both[0].texts == alone.texts and len(set(alone.texts)) > 1


def test_options_without_a_meaning_together_are_refused():
    for options, said in (
        ({"samples": 2}, "above 0 with several samples"),
        ({"beams": 2, "temperature": 1.0}, "1 where answers are sampled"),
        ({"samples": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            answer_freely(tiny.gpt(), Chatting(tiny.template()), ITEMS, **options)


def test_a_prompt_without_room_for_an_answer_is_named_by_its_line():
    with pytest.raises(ValueError, match=r"line 2: question: expected at most 96 tokens"):
        answer_freely(tiny.gpt(), Chatting(tiny.template()), ITEMS, max_new_tokens=85)


# --- beams ---------------------------------------------------------------------------------------


def test_beams_that_keep_everything_find_the_best_of_all():
    """All answers of up to three tokens out of six, one of which ends."""
    from gptwin.core.model.presets import GPTConfig
    from gptwin.kernels.model.gpt import GPT

    vocabulary, end, longest = 6, 5, 3
    model = GPT(GPTConfig(vocabulary, 8, 1, 1, 8), torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20 if parameter.ndim == 2 else 1)

    def log_prob(ids):
        with torch.no_grad():
            logits = model.eval().logits(model(torch.tensor([[0, *ids]])))[0, :-1].double()
        return torch.log_softmax(logits, -1)[range(len(ids)), list(ids)].sum().item()

    others = range(vocabulary - 1)
    answers = [
        (*begun, last)
        for n in range(longest)
        for begun in itertools.product(others, repeat=n)
        for last in ((end,) if n < longest - 1 else range(vocabulary))
    ]
    scores = [length_penalised(log_prob(ids), len(ids)) for ids in answers]
    found, total = beam_search(model, [0], 200, max_new_tokens=longest, stops=[end])
    assert tuple(found) == answers[int(np.argmax(scores))]
    assert total == pytest.approx(log_prob(found), abs=1e-5)


def test_one_beam_is_greedy():
    model, asking = tiny.gpt(2), Chatting(tiny.template())
    context = asking.context((), "Say: moon")
    (ids,) = generate(
        model, [context], max_new_tokens=8, temperature=0.0, stop_tokens=asking.stops()
    ).token_lists()
    found, _ = beam_search(model, context, 1, max_new_tokens=8, stops=asking.stops())
    assert found == ids
