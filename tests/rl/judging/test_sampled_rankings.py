"""Rankings that are sampled: what is left out is counted."""

import pytest
import tiny

from gptwin.rl.configuration import RewardSettings
from gptwin.rl.judging import sampled_rankings
from gptwin.rl.judging.evaluation import Grades

N = 12


@pytest.mark.parametrize("n_alike", [0, 5])
def test_prompts_whose_answers_are_all_alike_are_left_out_and_counted(monkeypatch, n_alike):
    def grade(_model, _template, prompts, **_options):
        """Answer the first `n_alike` prompts always with [1], the others ever differently."""
        alike = list(dict.fromkeys(map(id, prompts)))[:n_alike]
        answers = [[1] if id(prompt) in alike else [2, i] for i, prompt in enumerate(prompts)]
        n = len(prompts)
        return Grades([1.0] * n, [True] * n, answers, [""] * n)

    monkeypatch.setattr(sampled_rankings, "grade", grade)
    said = []
    found = sampled_rankings.sample_rankings(
        None, tiny.template(), RewardSettings(prompts=N, k_min=2, k_max=3), 8, 0,
        held_out=False, say=said.append,
    )  # fmt: skip
    assert len(found) == N - n_alike
    line = f"reward: {n_alike} of {N} prompts left out: all their answers are alike"
    assert said == ([line] if n_alike else [])
