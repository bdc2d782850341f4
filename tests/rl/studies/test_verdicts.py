"""What a verdict rests on: differences prompt by prompt, and baselines that are what they say."""

import math

import numpy as np
import pytest

from gptwin.rl.judging.evaluation import Grades, gain, mean_with_interval
from gptwin.rl.judging.plots import fitted, over_optimisation


def grades(golds):
    return Grades(golds, [g == 1 for g in golds], [[]] * len(golds), ["a", "b"] * (len(golds) // 2))


def test_an_interval_covers_the_mean_in_19_of_20_draws():
    rng = np.random.default_rng(0)
    found = [mean_with_interval(rng.normal(3.0, 2.0, 100).tolist()) for _ in range(2000)]
    covered = sum(abs(mean - 3.0) <= interval for mean, interval in found) / len(found)
    assert covered == pytest.approx(0.95, abs=0.02)
    assert mean_with_interval([0.5]) == (0.5, 0.0)


def test_a_gain_is_judged_prompt_by_prompt():
    rng = np.random.default_rng(1)
    hardness = rng.uniform(0, 0.9, 400)
    before, after = grades(hardness.tolist()), grades((hardness + 0.05).tolist())
    mean, interval = gain(after, before)
    assert mean == pytest.approx(0.05)
    assert interval < 1e-9 < before.interval  # two separate intervals would have hidden it
    assert after.mean - before.mean < math.hypot(before.interval, after.interval) * 2


def test_families_are_graded_apart():
    assert grades([1.0, 0.0, 0.5, 0.5]).by_family() == {"a": 0.75, "b": 0.25}
    assert grades([1.0, 0.0]).pass_rate == 0.5


def test_the_fit_finds_the_curve_it_was_drawn_from(tmp_path):
    d = np.linspace(0, 4, 9)
    reward = np.where(d > 0, d * (0.5 - 0.3 * np.log(np.maximum(d, 1e-9))), 0.0)
    assert fitted(d, reward) == pytest.approx((0.5, 0.3))
    curve = [
        {"step": i, "validation_kl": x * x, "validation_score": y, "validation_gold": y}
        for i, (x, y) in enumerate(zip(d.tolist(), reward.tolist(), strict=True))
    ]
    assert over_optimisation({"one": curve[:1]}, tmp_path / "none.png") is None
    drawn = over_optimisation({"one": curve, "two": curve}, tmp_path / "two.png")
    assert drawn.stat().st_size > 1000
