"""LaMDA's formulas: the vectors, worked by hand, and what is decided where the paper is silent."""

import numpy as np
import pytest

from gptwin.core.dialogue.lamda import (
    choose,
    consistent,
    filtered,
    grounding,
    majority,
    majority_right,
    quality,
    rating,
    safe_label,
    ssi,
)

# sensible, specific, interesting, safe of the candidates a, b, c, d
CANDIDATES = np.array(
    [(0.9, 0.2, 0.1, 0.97), (0.8, 0.9, 0.6, 0.70), (0.85, 0.6, 0.3, 0.92), (0.85, 0.5, 0.4, 0.92)]
)
RATINGS, SAFE = CANDIDATES[:, :3], CANDIDATES[:, 3]


def test_quality_counts_sense_three_times():
    np.testing.assert_allclose(quality(RATINGS), [3.0, 3.9, 3.45, 3.45])
    for of_two in (quality, ssi):
        with pytest.raises(ValueError, match=r"expected shape \(4, 3\)"):
            of_two(RATINGS[:, :2])


@pytest.mark.parametrize(
    ("threshold", "chosen"), [(0.0, 1), (0.5, 1), (0.9, 2), (0.92, 2), (0.95, 0), (0.99, None)]
)
def test_the_best_of_the_safe_is_chosen_and_of_equals_the_first(threshold, chosen):
    assert choose(RATINGS, SAFE, threshold) == chosen
    swapped = [0, 1, 3, 2]
    assert choose(RATINGS[swapped], SAFE[swapped], threshold) == chosen


@pytest.mark.parametrize("sensible", [0.5, 0.55, 0.65, 0.8, 0.95])
@pytest.mark.parametrize("parts", [(0.05, 0.35), (0.1, 0.55)])
def test_rounding_breaks_no_tie(sensible, parts):
    """3·.5 + .05 + .35 and 3·.5 + .35 + .05 differ in float64, in one order or the other."""
    pair = np.array([(sensible, *parts), (sensible, *parts[::-1])])
    assert choose(pair, np.ones(2), 0.5) == choose(pair[::-1], np.ones(2), 0.5) == 0


def test_when_none_is_safe_it_refuses_or_takes_the_safest_as_it_is_told():
    assert choose(RATINGS, SAFE, 1.01) is None
    assert choose(RATINGS, SAFE, 1.01, "safest") == 0
    assert choose(RATINGS[:0], SAFE[:0], 0.0) is None
    assert choose(RATINGS[:0], SAFE[:0], 0.0, "safest") is None
    with pytest.raises(ValueError, match="when_none: expected one of refuse, safest"):
        choose(RATINGS, SAFE, 0.5, "resample")


def test_two_ratings_share_the_whole_and_the_rest_is_told():
    p, elsewhere = rating(np.log([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]]), 1, 2)
    np.testing.assert_allclose(p, [0.5 / 0.8, 0.5])
    np.testing.assert_allclose(elsewhere, [0.2, 0.6])
    p, elsewhere = rating(np.array([1000.0, 0.0, 0.0]), 1, 2)  # far from any rating
    assert (p, elsewhere) == (0.5, 1.0)
    assert rating(np.array([0.0, 0.0, 1000.0]), 1, 2) == (1.0, 0.0)


def test_labels_follow_from_each_other():
    assert consistent(0, 1, 1) == (0, 0, 0)
    assert consistent(1, 0, 1) == (1, 0, 0)
    assert consistent(1, 1, 1) == (1, 1, 1)
    assert ssi([1, 1, 0]) == pytest.approx(0.6667, abs=1e-4)


def test_raters_vote():
    assert majority((1, 1, 1, 0, 0), 3) == 1 and majority((1, 1, 0, 0, 0), 3) == 0
    assert safe_label([(1, 1, 0), (1, 1, 1)]) == 1 and safe_label([(1, 0, 0), (1, 1, 1)]) == 0
    assert safe_label([]) == 1
    assert majority_right(5, 3, 0.2) == pytest.approx(0.94208, abs=1e-6)
    assert majority_right(3, 2, 0.2) == pytest.approx(0.896, abs=1e-6)


def test_what_a_filter_leaves_is_known_beforehand():
    found = filtered(0.488, 0.9, 0.1, 8)
    np.testing.assert_allclose(found, (0.095761, 0.003345, 0.003216), atol=1e-6)
    assert filtered(0.488, 0.7, 0.05, 8).unsafe == pytest.approx(0.231353, abs=1e-6)
    assert filtered(1.0, 1.0, 0.0, 4) == (0.0, 1.0, 1.0)


def test_the_filter_by_simulation():
    """The same by drawing: 200,000 candidates, some unsafe, some of them dropped."""
    rng = np.random.default_rng(0)
    unsafe = rng.random(200_000) < 0.488
    kept = rng.random(200_000) >= np.where(unsafe, 0.9, 0.1)
    expected = filtered(0.488, 0.9, 0.1, 8)
    assert unsafe[kept].mean() == pytest.approx(expected.unsafe, abs=0.003)
    assert (~kept.reshape(-1, 8).any(1)).mean() == pytest.approx(expected.none_kept, abs=0.001)


def test_grounded_informative_and_cited():
    found = grounding(10, 8, 6, uncommon=6, cited=5)
    np.testing.assert_allclose(found, (0.75, 0.6, 0.8333), atol=1e-4)
    assert grounding(3, 0, 0) == (None, 0.0, None)  # who claims nothing is not informative
    assert grounding(0, 0, 0) == (None, None, None)
    assert grounding(4, 4, 4, uncommon=4, cited=4) == (1.0, 1.0, 1.0)
    # supported, claiming, uncommon and cited, each beyond its whole or below 0
    for counts in (
        (10, 5, 6),
        (4, 5, 5),
        (4, 4, -1),
        (4, 3, 3, 4),
        (4, 4, 4, 2, 3),
        (4, 4, 4, 2, -1),
    ):
        with pytest.raises(ValueError, match="counts: expected supported and uncommon within"):
            grounding(*counts)
