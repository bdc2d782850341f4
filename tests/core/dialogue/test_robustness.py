"""Two judges of one worth: known values, and the same by simulation."""

import math

import numpy as np
import pytest

from gptwin.core.dialogue.robustness import best_of_n_judged, mean_of_greatest


@pytest.mark.parametrize(
    ("n", "mean"), [(1, 0.0), (2, 0.56419), (4, 1.02938), (16, 1.76599), (64, 2.34373)]
)
def test_the_greatest_of_n_normals(n, mean):
    assert mean_of_greatest(n) == pytest.approx(mean, abs=1e-5)


def test_the_greatest_of_two_and_three_exactly():
    assert mean_of_greatest(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-12)
    assert mean_of_greatest(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-12)


def test_what_both_judges_say():
    assert best_of_n_judged(16, 1.0) == pytest.approx((2.49749, 1.24874), abs=1e-5)
    assert best_of_n_judged(64, 0.25) == pytest.approx((2.62037, 2.09630), abs=1e-5)
    assert best_of_n_judged(16, 0.0) == pytest.approx((1.76599, 1.76599), abs=1e-5)


def test_a_simulation_says_the_same():
    rng, n, variance = np.random.default_rng(0), 16, 1.0
    worth = rng.normal(size=(40_000, n))
    first, second = (worth + rng.normal(0, math.sqrt(variance), worth.shape) for _ in range(2))
    best = first.argmax(axis=1)[:, None]
    means = [np.take_along_axis(x, best, 1).mean() for x in (first, second, worth)]
    train, test = best_of_n_judged(n, variance)
    assert means == pytest.approx([train, test, test], abs=0.025)


def test_what_is_refused():
    with pytest.raises(ValueError, match="n: expected"):
        mean_of_greatest(0)
    for variance in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="error_variance"):
            best_of_n_judged(2, variance)
