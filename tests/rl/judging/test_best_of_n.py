"""Best-of-n: the one the scores prefer, how far that is from the model, and what it is worth."""

import itertools
import json
import math

import numpy as np
import pytest
import tiny
import torch

from gptwin.rl.judging import plots
from gptwin.rl.judging.best_of_n import Choice, best_of_n, kl_bound, mean_of_best, measure, weights
from gptwin.rl.stages.generation import generate


def longest(prompts, responses):
    return torch.tensor([float(len(response)) for response in responses])


def test_it_is_the_best_of_what_the_model_says():
    prompts, template = tiny.prompts(3), tiny.template()
    choices = best_of_n(tiny.gpt(), template, longest, prompts, 5, max_response=6, seed=2)
    said = generate(
        tiny.gpt(), [p.ids for p in prompts for _ in range(5)], max_new_tokens=6,
        stop_tokens=(template.end,), seed=2,
    ).token_lists()  # fmt: skip
    for i, choice in enumerate(choices):
        assert choice.responses == said[5 * i : 5 * i + 5]
        assert len(choice.best) == max(map(len, choice.responses))
    assert Choice([[1], [2], [3]], [0.0, 7.0, 7.0]).best == [2]
    with pytest.raises(ValueError, match=r"^temperature: expected above 0 to say 5 different"):
        best_of_n(tiny.gpt(), template, longest, prompts, 5, max_response=6, temperature=0.0)


@pytest.mark.parametrize("n", [1, 2, 3, 16])
def test_the_bound_is_the_kl_where_no_two_answers_score_alike(n):
    # Of many equally likely answers the i-th best is the best of n with chance F(i)^n - F(i-1)^n.
    below = np.arange(20_001) / 20_000
    chances = np.diff(below**n)
    kl = (chances[chances > 0] * np.log(chances[chances > 0] * 20_000)).sum()
    assert kl_bound(n) == pytest.approx(kl, abs=2e-3)
    assert kl <= kl_bound(n) + 1e-12


def test_what_the_best_of_n_is_worth_is_the_mean_over_all_choices_of_n():
    scores, gold = [0.3, -1.0, 2.0, 0.1, 0.7], [1.0, 5.0, 2.0, 3.0, 4.0]
    for n in range(1, 6):
        drawn = list(itertools.combinations(range(5), n))
        expected = sum(gold[max(d, key=scores.__getitem__)] for d in drawn) / len(drawn)
        assert mean_of_best(scores, gold, n) == pytest.approx(expected)
        assert math.fsum(weights(5, n)) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"^n: expected from 1 to the 5 responses"):
        weights(5, 6)


def test_it_is_measured_and_drawn(tmp_path):
    template, prompts = tiny.template(), tiny.prompts(4)
    found = measure(tiny.gpt(), template, longest, prompts, 4, tmp_path, max_response=5, seed=1)
    assert [record["n"] for record in found] == [1, 2, 4]
    assert [record["proxy"] for record in found] == sorted(record["proxy"] for record in found)
    assert json.loads((tmp_path / "best_of_n.json").read_text()) == found
    assert plots.best_of_n(tmp_path).stat().st_size > 1000
    assert plots.best_of_n(tmp_path / "none") is None


def test_the_fit_finds_its_own_curve():
    d = np.linspace(0, 2, 7)
    assert plots.fitted_best_of_n(d, d * (3 - 0.5 * d)) == pytest.approx((3, 0.5))
