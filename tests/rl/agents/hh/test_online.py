"""Rounds of collecting, and the tournament that says whether they helped."""

import pytest

from gptwin.core.dialogue.elo import fit_ratings
from gptwin.rl.agents.hh.online import iterated, tournament


def test_each_round_learns_from_all_so_far_and_begins_anew():
    seen = []

    def collect(policies, number):
        seen.append((list(policies), number))
        return [f"pair {number}"]

    rounds = iterated(
        "first", 3, collect, lambda pairs: ("judge", tuple(pairs)),
        lambda judge: f"policy by {len(judge[1])}",
    )  # fmt: skip
    assert seen == [
        (["first"], 0),
        (["first", "policy by 1"], 1),
        (["policy by 1", "policy by 2"], 2),
    ]
    assert [r.judge[1] for r in rounds] == [
        ("pair 0",), ("pair 0", "pair 1"), ("pair 0", "pair 1", "pair 2")
    ]  # fmt: skip
    assert rounds[-1].comparisons == ["pair 2"] and rounds[-1].policy == "policy by 3"


def test_a_tournament_rates_by_worth_over_noise():
    worths = [[0.9] * 1500, [0.7] * 1500, [0.5] * 1500]
    found = fit_ratings(tournament(worths, noise=0.2, seed=0))
    assert found.nats[:2].tolist() == pytest.approx([2, 1], abs=0.15)
    assert (abs(found.nats - [2, 1, 0]) < 4 * found.nats_errors + 1e-9).all()


def test_answers_worth_the_same_are_no_game():
    wins = tournament([[1.0, 0.5, 0.2], [1.0, 0.5, 0.9]], noise=1e-3, seed=0)
    assert wins.tolist() == [[0, 0], [1, 0]]
