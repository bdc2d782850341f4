"""Learning rates at the steps that papers name."""

import pytest

from gptwin.rl.training.schedule import constant_after_warmup, cosine


def test_cosine_rises_and_falls_to_a_tenth():
    rates = [cosine(i, 101, 2.0, 10, 0.1) for i in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[-1] == pytest.approx(0.2)
    assert rates[55] == pytest.approx(2 * (0.1 + 0.9 / 2))
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_no_warm_up_begins_at_the_peak():
    assert cosine(0, 100, 3.0, 0, 0.1) == 3.0
    assert cosine(0, 1, 3.0, 0, 0.1) == 3.0


def test_instructgpts_ppo_rises_from_a_tenth_and_stays():
    rates = [constant_after_warmup(i, 1.0, 10) for i in range(30)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(0.55)
    assert rates[10:] == [1.0] * 20
    assert constant_after_warmup(0, 1.0, 0) == 1.0
