"""Ratings: known values, standard errors, and where there are none."""

import itertools
import math

import numpy as np
import pytest

from gptwin.core.dialogue.elo import (
    ELO_PER_NAT,
    elo_of_share,
    fit_ratings,
    win_probability,
)

# A:B 30-10, B:C 28-12, A:C 34-6
WINS = np.array([[0, 30, 34], [10, 0, 28], [6, 12, 0]])


@pytest.mark.parametrize(
    ("nats", "elo", "share"),
    [(0.1, 17.3718, 0.524979), (1, 173.7178, 0.731059), (2, 347.4356, 0.880797)],
)
def test_nats_elo_and_shares(nats, elo, share):
    assert ELO_PER_NAT * nats == pytest.approx(elo, abs=1e-4)
    assert win_probability(elo) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(
    ("share", "elo"), [(0.6, 70.4365), (0.75, 190.8485), (0.9, 381.697), (0.5, 0)]
)
def test_the_difference_that_explains_a_share(share, elo):
    difference, error = elo_of_share(share)
    assert difference == pytest.approx(elo, abs=1e-4) and math.isnan(error)
    assert win_probability(difference) == pytest.approx(share)


def test_the_error_of_a_share():
    assert elo_of_share(0.6, 200)[1] == pytest.approx(25.07, abs=0.01)
    for share in (0.0, 1.0, 1.2):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            elo_of_share(share)


def test_the_known_tournament():
    found = fit_ratings(WINS)
    np.testing.assert_allclose(found.nats, [1.829414, 0.792221, 0], atol=1e-6)
    np.testing.assert_allclose(found.elo, [317.8018, 137.6229, 0], atol=1e-4)
    assert found.log_likelihood == pytest.approx(-63.885885, abs=1e-6)
    assert not found.halves_added


def test_who_is_held_at_0_changes_no_difference():
    last, first = fit_ratings(WINS), fit_ratings(WINS, fixed=0)
    assert first.nats[0] == 0 and first.nats_errors[0] == 0
    np.testing.assert_allclose(first.nats - first.nats[2], last.nats, atol=1e-9)


def test_of_two_players_the_fit_is_the_share_with_its_error():
    found = fit_ratings(np.array([[0, 120], [80, 0]]))
    difference, error = elo_of_share(0.6, 200)
    assert found.elo[0] == pytest.approx(difference)
    assert found.elo_errors[0] == pytest.approx(error)


def test_the_errors_are_how_far_fits_of_drawn_tournaments_spread():
    rng, true, games = np.random.default_rng(0), np.array([1.0, 0.3, 0.0]), 60
    fits = []
    for _ in range(300):
        wins = np.zeros((3, 3))
        for i, j in itertools.combinations(range(3), 2):
            wins[i, j] = rng.binomial(games, 1 / (1 + math.exp(true[j] - true[i])))
            wins[j, i] = games - wins[i, j]
        fits.append(fit_ratings(wins))
    spread = np.std([fit.nats for fit in fits], axis=0)[:2]
    claimed = np.mean([fit.nats_errors for fit in fits], axis=0)[:2]
    np.testing.assert_allclose(spread, claimed, rtol=0.12)


def test_far_from_the_start_newton_still_arrives():
    found = fit_ratings(np.array([[0, 100_000], [1, 0]]))
    assert found.nats[0] == pytest.approx(math.log(100_000))


def test_who_has_arrived_does_not_stop_the_others():
    # By symmetry the second is never moved from where the last is held.
    found = fit_ratings(np.array([[0, 8, 8], [2, 0, 5], [2, 5, 0]]))
    np.testing.assert_allclose(found.nats, [math.log(4), 0, 0], atol=1e-12)


def test_no_top_is_refused_and_halves_are_added_only_on_request():
    always = np.array([[0, 10], [0, 0]])
    with pytest.raises(ValueError, match=r"a chain of wins.*add_half"):
        fit_ratings(always)
    with_halves = fit_ratings(always, add_half=True)
    assert with_halves.elo[0] == pytest.approx(528.888, abs=1e-3)
    assert with_halves.halves_added
    # Two who beat each other, and never a third, who beats both.
    group = np.array([[0, 3, 0], [3, 0, 0], [2, 2, 0]])
    with pytest.raises(ValueError, match="none from player 0 to player 2"):
        fit_ratings(group)


def test_players_who_never_met_are_refused_even_with_halves():
    apart = np.zeros((4, 4))
    apart[0, 1] = apart[1, 0] = apart[2, 3] = apart[3, 2] = 5
    for add_half in (False, True):
        with pytest.raises(ValueError, match="no games between 0 and 2"):
            fit_ratings(apart, add_half=add_half)
    apart[1, 2] = apart[2, 1] = 1
    assert fit_ratings(apart).nats.tolist() == pytest.approx([0, 0, 0, 0], abs=1e-9)


def test_a_long_ring_of_wins_connects_everyone():
    for n in (5, 8, 9):
        ring = np.roll(np.eye(n), 1, axis=1)  # each won once, against the next
        np.testing.assert_allclose(fit_ratings(ring).nats, 0, atol=1e-9)
        with pytest.raises(ValueError, match="a chain of wins"):
            fit_ratings(np.triu(ring))


@pytest.mark.parametrize(
    ("wins", "what"),
    [
        ([[0, 1, 2], [1, 0, 2]], "of two players"),
        ([[0]], "of two players"),
        ([[0, -1], [1, 0]], "from 0 on"),
        ([[3, 1], [1, 0]], "0 on the diagonal"),
        ([[0, float("nan")], [1, 0]], "finite"),
    ],
)
def test_what_is_no_tournament(wins, what):
    with pytest.raises(ValueError, match=what):
        fit_ratings(np.array(wins))
