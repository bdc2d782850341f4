"""Sparrow's study: what is stored is whole, and what is said of it is in it."""

import numpy as np
import pytest

from gptwin.records import read_json_lines, results_folder
from gptwin.rl.agents.sparrow.rule_model import RuleLabel
from gptwin.rl.agents.world.rules import HOUSE
from gptwin.rl.data.dialogue import Message
from gptwin.rl.studies.agents import sparrow

STORED = results_folder("rl/studies/results") / "agents-sparrow.jsonl"


def shares(row):
    """Yield every share in a row, how many it counts, of how many, and its interval."""
    for found in (value for value in row.values() if isinstance(value, dict)):
        if "interval" in found:
            share = found.get("share", found.get("accuracy"))
            yield share, found.get("k", found.get("right")), found["n"], found["interval"]
        yield from shares(found)


def test_figures_are_stored_with_counts_intervals_and_what_made_them():
    head, *rows = read_json_lines(STORED)
    assert {"commit", "cpu", "date", "cpu_seconds"} <= head.keys()
    assert {row["part"] for row in rows} == {
        "rules", "preference", "policies", "reranked", "probing",
    }  # fmt: skip
    for seed in (0, 1, 2):
        mine = [row for row in rows if row["seed"] == seed]
        assert {(r["arm"], r["weight"]) for r in mine if r["part"] == "policies"} >= {
            ("base", 0.0), ("preference", 0.0), ("rules", 16.0), ("program", 64.0),
        }  # fmt: skip
    for row in rows:
        for share, right, n, (low, high) in shares(row):
            assert low <= share == right / n <= high
        if "auc" in row:
            low, high = row["auc_interval"]
            assert low <= row["auc"] <= high
    assert STORED.with_suffix(".png").is_file()


def test_the_area_of_known_ratings_and_its_interval():
    labels = [RuleLabel("", (), [], broken) for broken in (True, True, False, False)]
    found = sparrow._separated(labels, np.array([0.9, 0.4, 0.4, 0.1]))
    assert found["auc"] == 0.875
    assert found["right"]["right"] == 3
    # (A(1 − A) + (Q1 − A²) + (Q2 − A²))/4 with Q1 = .875/1.125, Q2 = 2·.765625/1.875
    assert found["auc_interval"] == [pytest.approx(0.875 - 1.96 * 0.207708, abs=1e-5), 1.0]


def test_the_program_knows_what_is_kept():
    program = sparrow.ProgramRules(lambda response: " ".join(map(str, response)), HOUSE)
    dialogue = (Message("user", "Say: key"),)
    kept, applies = program.kept([dialogue] * 2, [["key"], ["lamp"]])
    broken = [rule.id for rule, k in zip(HOUSE, kept[0].tolist(), strict=True) if not k]
    assert broken == ["R1 key"]
    assert kept[1].all()
    assert applies[0].tolist() == [rule.applies(dialogue) for rule in HOUSE]
