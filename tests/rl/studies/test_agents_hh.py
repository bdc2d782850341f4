"""The study of HH: its exact claim, how rows are pooled and fitted, and its pictures."""

import math

import pytest

from gptwin.rl.studies.agents import hh
from gptwin.rl.studies.agents.hh_claims import frontier


@pytest.fixture(scope="module")
def rows():
    return [{"claim": "frontier", "seed": 0, **row} for row in frontier(0, "")]


def test_the_slope_of_each_way_is_below_what_the_tilted_policies_reach(rows):
    for by in ("best of n", "PPO"):
        for row in hh.chosen(rows, "frontier", by=by):
            nearer = [r["gain"] for r in hh.chosen(rows, "frontier", by="tilted")
                      if r["kl"] >= row["kl"]]  # fmt: skip
            assert not nearer or row["gain"] <= min(nearer) + 1e-9
    far = hh.chosen(rows, "frontier", by="tilted")[
        -1
    ]  # the largest β: the nearest to the reference
    assert far["gain"] / math.sqrt(far["kl"]) == pytest.approx(far["limit"], rel=0.02)


def test_gain_is_fitted_over_the_root():
    rows = [{"kl": kl, "gain": 1.5 * math.sqrt(kl)} for kl in (0.01, 0.1, 0.5)]
    assert hh.linear_in_root(rows) == pytest.approx((1.5, 1.0))
    bent = [{"kl": kl, "gain": kl} for kl in (0.01, 0.1, 1.0)]
    assert hh.linear_in_root(bent)[1] < 0.95


def test_counts_of_all_seeds_are_added():
    share, low, high, n = hh.pooled([{"right": 8, "n": 10}, {"right": 1, "n": 20}])
    assert (share, n) == (0.3, 30) and low < 0.3 < high


def test_tournaments_of_all_seeds_are_rated_together():
    table = {"claim": "online", "part": "wins", "players": ["base", "new"]}
    rows = [{**table, "wins": [[0, 2], [3, 0]]}, {**table, "wins": [[0, 0], [3, 0]]}]
    players, ratings = hh.rated(rows)
    assert players == ["base", "new"] and ratings.nats[0] == 0 and not ratings.halves_added
    assert ratings.nats[1] == pytest.approx(math.log(6 / 2))


def test_what_was_measured_is_drawn(rows, tmp_path):
    assert [p.name for p in hh.draw(rows, tmp_path)] == ["agents-hh-frontier.png"]
