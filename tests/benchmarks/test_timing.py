"""How times are compared: in turns, behind a gate, with their noise. No test asserts a time."""

import json

import numpy as np
import pytest

from gptwin.benchmarks import timing
from gptwin.benchmarks.timing import (
    FASTER,
    LONGER,
    MINIMUM_ROUNDS,
    Claim,
    Contender,
    GateError,
    expect_same,
    finding,
    judge,
    measure,
    side_by_side,
    spread,
)


def provider(value, log=None, name=""):
    return Contender(lambda: log is not None and log.append(name), lambda: {"loss": value})


ONE_CLAIM = (Claim("ours", "other", 1.0),)


def measured(makers, claims=ONE_CLAIM):
    return measure(claims, makers, tolerances={"loss": 1e-6}, settings={"T": 1}, rounds=4)


def test_providers_take_turns_and_the_warm_up_does_not_count():
    log = []
    calls = {name: lambda name=name: log.append(name) for name in "ABC"}
    seconds = side_by_side(calls, rounds=4, warm_up=2)
    assert "".join(log) == "ABC" * 6
    assert {name: len(each) for name, each in seconds.items()} == dict.fromkeys("ABC", 4)


def test_a_spent_budget_ends_the_rounds_but_not_before_the_least():
    seconds = side_by_side({"A": lambda: None}, rounds=100, budget_s=0)
    assert len(seconds["A"]) == MINIMUM_ROUNDS


@pytest.mark.parametrize(
    ("unit", "expected"), [(FASTER, [3, 2, 4]), (LONGER, [1 / 3, 1 / 2, 1 / 4])]
)
def test_each_round_gives_a_ratio(unit, expected):
    seconds = {"ours": [1.0, 2.0, 1.0], "other": [3.0, 4.0, 4.0], "a third": [9.0, 9.0, 9.0]}
    found = judge(Claim("ours", "other", 1.0, unit), seconds, {"batch": 4})
    assert found["samples"] == len(expected)
    assert found["value"]["median"] == pytest.approx(np.median(expected))
    assert found["seconds"] == {name: spread(seconds[name]) for name in ("ours", "other")}
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("samples", "bound", "unit", "reached", "clear"),
    [
        ([11, 12, 13], 10, FASTER, True, True),
        ([8, 12, 13], 10, FASTER, True, False),
        ([8, 9, 9], 10, FASTER, False, True),
        ([10, 10, 10], 10, FASTER, True, True),
        ([1.2, 1.3, 1.4], 1.5, LONGER, True, True),
        ([1.6, 1.7, 1.4], 1.5, LONGER, False, False),
    ],
)
def test_the_median_decides_and_the_noise_is_told(samples, bound, unit, reached, clear):
    found = finding("x", samples, bound, unit, {})
    assert (found["reached"], found["clear"]) == (reached, clear)


def test_nobody_is_timed_who_computes_something_else():
    log = []
    [found] = measured(
        {"other": lambda: provider(1.0, log, "other"), "ours": lambda: provider(1.01, log, "ours")}
    )
    assert found["status"] == "not measured" and found["reached"] is None
    assert found["reason"].startswith("ours: gate: ours: loss: differs by 0.01")
    assert "ours" not in log


def test_who_fails_takes_only_its_own_claims_with_it():
    def absent():
        raise ImportError("No module named 'x'", name="x")

    def broken():
        raise RuntimeError("no compiler in /opt/a b/bin/g++ or /opt/x/y\nand more")

    makers = {"other": lambda: provider(1.0), "ours": lambda: provider(1.0), "absent": absent,
              "broken": broken}  # fmt: skip
    found = measured(makers, [Claim("ours", name, 1.0) for name in ("other", "absent", "broken")])
    assert [each["status"] for each in found] == ["measured", "not measured", "not measured"]
    assert found[1]["reason"] == "absent: not installed (x)"
    assert found[2]["reason"].startswith("broken: RuntimeError: no compiler")
    assert (
        "/opt" not in found[2]["reason"].replace("/opt/a b", "")
        and "more" not in found[2]["reason"]
    )


def test_without_a_yardstick_nobody_passes():
    def broken():
        raise RuntimeError("no")

    [found] = measured({"other": broken, "ours": lambda: provider(1.0)})
    assert "no yardstick: other failed" in found["reason"]


@pytest.mark.parametrize("actual", [[1.0, np.nan], [1.0, np.inf], [1.0], [1.0, 2.1]])
def test_the_gate_is_shut_for(actual):
    with pytest.raises(GateError, match="ours"):
        expect_same("ours", actual, [1.0, 2.0], 1e-2)


def test_the_gate_is_open_for_rounding():
    expect_same("ours", [1.0, 2.01], [1.0, 2.0], 1e-2)
    expect_same("ours", [], [], 0.0)


def test_paths_of_this_machine_are_cut_down():
    text = "File '/opt/x/y.py': a/b of 1/2 in /tmp/z/"
    assert timing.without_folders(text) == "File 'y.py': a/b of 1/2 in "
