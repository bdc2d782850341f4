"""A plan for some minutes of a GPU: never longer than they are, and nothing found is lost."""

import itertools
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from gptwin.benchmarks import result_file
from gptwin.benchmarks.gpu import driver, verification, within
from gptwin.benchmarks.gpu.operations.results import AS_ON_AMPERE, HOPPER, ON_HOPPER, PLAN
from gptwin.benchmarks.gpu.operations.shapes import shapes
from gptwin.benchmarks.gpu.plan import (
    COMMAND_S,
    LEAST_S,
    PIECES,
    Piece,
    Spent,
    calls_ahead,
    count_verification,
    expected_seconds,
    make_plan,
    print_plan,
    run_plan,
)
from gptwin.benchmarks.gpu.within import run_within
from gptwin.kernels.hopper import serving
from gptwin.lab.store import write_rows
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.verify.verify import Job, count_cases

ABC = tuple(
    Piece(name, (f"{name}/bfloat16",), most_s=100) for name in ("gelu", "linear", "softmax")
)


class Clock:
    """Time that passes when somebody says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Machine:
    """Runs plans by a clock of its own, command by command, and keeps what they store."""

    def __init__(self, total_s, command_s, takes):
        self.clock, self.total_s, self.command_s = Clock(), total_s, command_s
        self.takes, self.kept, self.spent = takes, {}, 0.0

    def store(self, seconds, ended):
        self.spent = seconds
        if ended and ended.status != "left out":
            self.kept[ended.name] = ended

    def execute(self, piece, seconds):
        wanted = self.takes[piece.name]
        if isinstance(wanted, BaseException):
            self.clock.now += 10
            raise wanted
        self.clock.now += min(wanted, seconds)  # what goes on longer is ended
        return "" if wanted <= seconds else f"{seconds:.0f} s were up"

    def command(self):
        began = self.clock.now
        todo = [piece for piece in ABC if piece.name not in self.kept]
        planned = make_plan(self.total_s - self.spent, todo, command_s=self.command_s,
                            estimate=lambda piece, carried: 50.0)  # fmt: skip
        ended = list(run_plan(
            planned, total_s=self.total_s, spent=Spent(self.spent, self.store),
            execute=self.execute, now=self.clock, command_s=self.command_s,
        ))  # fmt: skip
        assert self.clock.now - began <= self.command_s
        return {one.name: one.status for one in ended}


def test_what_takes_longer_is_cut_and_stored_as_such():
    machine = Machine(400, 400, {"gelu": 20, "linear": 1e9, "softmax": 30})
    assert machine.command() == {"gelu": "measured", "linear": "cut", "softmax": "measured"}
    assert machine.kept["linear"].seconds == 100
    assert "100 s were up" in machine.kept["linear"].reason
    assert machine.spent == pytest.approx(155)  # with the 5 that a command takes to start


def test_what_fails_costs_the_others_nothing():
    machine = Machine(400, 400, {"gelu": ValueError("no"), "linear": 1, "softmax": 1})
    assert machine.command() == {"gelu": "failed", "linear": "measured", "softmax": "measured"}
    assert machine.kept["gelu"].reason == "ValueError: no"


def test_a_crash_loses_nothing_and_counts_in_full():
    machine = Machine(250, 250, {"gelu": 20, "linear": KeyboardInterrupt(), "softmax": 1})
    with pytest.raises(KeyboardInterrupt):
        machine.command()
    assert set(machine.kept) == {"gelu"}
    assert machine.spent == 5 + 20 + 100  # all that linear might have taken
    machine.takes["linear"] = 50
    assert machine.command() == {"linear": "measured", "softmax": "measured"}


@pytest.mark.parametrize("takes", [1.0, 40.0, 1e9])
def test_all_commands_together_take_no_longer_than_they_may(takes):
    machine = Machine(170, 80, dict.fromkeys(("gelu", "linear", "softmax"), takes))
    for _ in range(4):
        machine.command()
        assert machine.clock.now <= machine.spent <= 170
    assert set(machine.kept) >= {"gelu"}


def test_nothing_begins_without_time_for_it():
    machine = Machine(30, 400, dict.fromkeys(("gelu", "linear", "softmax"), 12.0))
    found = machine.command()
    assert list(found.values()) == ["measured", "left out", "left out"]
    assert 30 - machine.spent < LEAST_S


def test_fifteen_minutes_are_two_commands_and_the_least_valuable_piece_comes_last():
    planned = make_plan(900)
    assert [one.piece for one in planned] == list(PIECES)
    assert max(one.command for one in planned) == 2
    for command, own in itertools.groupby(planned, lambda one: one.command):
        del command
        assert sum(min(one.seconds, one.expected_s) for one in own) <= COMMAND_S
    assert planned[0].piece.name.startswith("verification")
    verification = expected_seconds(PIECES[0], carried=True)
    assert verification < planned[0].seconds < 180  # in all its processes
    assert not make_plan(60)[-1].runs


def test_what_is_verified_is_counted():
    twin = TWINS["gelu"]
    dtypes, corners, configurations = len(twin.dtypes), len(twin.corners), 2
    compiled = dtypes * ((corners + 1) * configurations + 1) + len(twin.shapes)
    cases, compilations = count_verification("gelu")
    assert compilations == compiled + dtypes * len(twin.extremes)
    assert cases == compiled + 10 * len(twin.extremes) * 6 // 4
    some = ("gelu", "softmax", "linear", "attention")
    counted = [count_cases(Job(n, d, 1, 0, None)) for n in some for d in TWINS[n].dtypes]
    estimated = sum(count_verification(n)[0] - len(TWINS[n].shapes) for n in some)
    assert 0.7 < estimated / sum(counted) < 1.4


def test_what_is_compiled_ahead_is_what_the_pieces_call():
    small, real = calls_ahead(["gelu"])
    assert {dtype for dtype, _ in small.cases["gelu"]} == set(TWINS["gelu"].dtypes)
    assert len(real.cases["gelu"]) == len(shapes(TWINS["gelu"]))
    with pytest.raises(ValueError, match="op: expected one of"):
        calls_ahead(["gleu"])
    _, usual, *others = calls_ahead()
    own = [piece for piece in PIECES if piece.only in ((AS_ON_AMPERE,), (ON_HOPPER,))]
    *others, verified = others
    assert verified.switches == {serving.VARIABLE: "1"} and not verified.roots
    for piece, calls in zip(own, others, strict=True):
        run = driver.Run(Path("x"), False, piece.only, 1.0, 0.0, 0, "NVIDIA H100")
        assert calls.switches.items() <= run.environment.items()
        assert calls.switches != usual.switches
        for name, dtype in (part.split("/") for part in piece.parts if part != HOPPER):
            sizes = [case for size, case in shapes(TWINS[name]).items() if size in piece.sizes]
            assert sizes and {str((dtype, case)) for case in sizes} == set(
                map(str, calls.cases[name])
            )
    assert len(calls_ahead(["attention"])) == 5
    assert len(calls_ahead(["attention"], "sm_80")) == 2


def test_the_plan_is_printed_with_what_is_left_out():
    console = Console(record=True, width=100)
    print_plan(3, console=console)
    text = console.export_text()
    assert "verification: corners and real sizes" in text
    assert "left out: " in text and "generation" in text.partition("left out: ")[2]
    with pytest.raises(ValueError, match="plan: expected"):
        print_plan(0)


def test_the_command_stores_each_piece_and_goes_on(tmp_path, monkeypatch):
    """Parts of a dry run, by processes that are none: each says at once what became of it."""
    path, asked = tmp_path / "dry.jsonl", []

    def follow(run, name, *more, **options):
        asked.append((name, run.only, run.quick))
        return ("running", "the time was up") if name.startswith("linear") else ("measured", None)

    monkeypatch.setattr(driver, "follow", follow)
    monkeypatch.setattr(driver, "expect_ready", lambda run: asked.append(("ready", (), run.quick)))
    monkeypatch.setattr(within, "seconds_since_start", lambda: 0.0)  # pytest's may be many
    pieces = (Piece("one", ("gelu/bfloat16",), ("gptwin",), most_s=20),
              Piece("two", ("linear/bfloat16",), most_s=20))  # fmt: skip
    options = {"dry_run": True, "out": str(path), "pieces": pieces}
    assert run_within(5, **options) == driver.OUT_OF_TIME
    assert asked == [("ready", (), True),
                     ("roofline", ("gptwin",), True), ("gelu/bfloat16", ("gptwin",), True),
                     ("linear/bfloat16", (), True)]  # fmt: skip
    stored = result_file.load(path)[PLAN]
    assert [(f["name"], f["status"]) for f in stored["findings"]] == [
        ("one", "measured"), ("two", "cut"),
    ]  # fmt: skip
    assert 0 < stored["settings"]["spent_s"] < 60
    asked.clear()
    assert run_within(5, **options) == driver.OUT_OF_TIME
    assert asked == [("ready", (), True), ("linear/bfloat16", (), True)]  # what was cut alone


@pytest.mark.parametrize("differs", [False, True])
def test_batch_invariance_is_a_part(differs, monkeypatch):
    """`gptwin verify --batch-invariant` itself is tested where it is."""

    def run(command, **_):
        rows = [{"name": "kl", "dtype": "float32", "n_compared": 4, "reason": "",
                 "faults": ["kl differ"] if differs else []},
                {"name": "ema", "dtype": "float32", "n_compared": 0, "reason": "no rows",
                 "faults": []}]  # fmt: skip
        write_rows(Path(command[-1]), {"device": "none"}, rows)  # as the command stores them
        return subprocess.CompletedProcess(command, int(differs))

    monkeypatch.setattr(verification.subprocess, "run", run)
    _, first, second, last = verification.verify_batch_invariance(dry_run=True)
    assert first["finding"]["status"] == ("failed" if differs else "measured")
    assert second["finding"] == {"name": "ema | float32", "status": "skipped", "reason": "no rows",
                                 "compared": 0}  # fmt: skip
    assert last["status"] == ("failed" if differs else "measured")
