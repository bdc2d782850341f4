"""Ceilings, the published fit, and scores from votes."""

import numpy as np
import pytest

from gptwin.core.dialogue.preferences import ceiling, fitted_accuracy, vote_score


def test_the_known_ceiling():
    for gap, chance in ((0.1, 0.622459), (0.5, 0.924142), (1.0, 0.993307), (0.0, 0.5)):
        assert ceiling(np.array([gap]), 0.2) == pytest.approx(chance, abs=1e-6)
        assert ceiling(np.array([-gap]), 0.2) == pytest.approx(chance, abs=1e-6)
    assert ceiling(np.array([0.1, 0.5, 1.0]), 0.2) == pytest.approx(0.846637, abs=1e-6)


def test_what_has_no_ceiling():
    with pytest.raises(ValueError, match="noise"):
        ceiling(np.array([1.0]), 0.0)
    with pytest.raises(ValueError, match="a pair at least"):
        ceiling(np.array([]), 0.2)


@pytest.mark.parametrize(
    ("parameters", "pairs", "accuracy"),
    [(13e6, 80e3, 0.657364), (52e9, 80e3, 0.715423), (52e9, 16e3, 0.691281)],
)
def test_the_published_fit(parameters, pairs, accuracy):
    assert fitted_accuracy(parameters, pairs) == pytest.approx(accuracy, abs=1e-6)


def test_the_fit_needs_sizes():
    for sizes in ((0, 10), (10, 0)):
        with pytest.raises(ValueError, match="above 0"):
            fitted_accuracy(*sizes)


@pytest.mark.parametrize(
    ("votes", "accepted", "score"),
    [(0, False, 0), (1, False, 1), (2, False, 2), (7, False, 3), (100, True, 8), (0, True, 1),
     (-1, False, -1), (-9, True, -1)],
)  # fmt: skip
def test_scores_from_votes(votes, accepted, score):
    assert vote_score(votes, accepted=accepted) == score


def test_votes_are_whole():
    with pytest.raises(ValueError, match="votes"):
        vote_score(1.5)
