"""The kernels in Gluon on a GPU: switched on for their own piece alone, and past the gate."""

import subprocess
from pathlib import Path

import pytest

from gptwin.benchmarks.gpu import verification
from gptwin.benchmarks.gpu.driver import Run
from gptwin.benchmarks.gpu.operations import providers
from gptwin.benchmarks.gpu.operations.results import HOPPER, ON_HOPPER, OURS
from gptwin.benchmarks.gpu.plan import PIECES
from gptwin.benchmarks.inputs import draw_arguments
from gptwin.benchmarks.timing import Skipped
from gptwin.kernels.hopper import serving
from gptwin.lab.store import write_rows
from gptwin.lab.twins.catalogue import TWINS


@pytest.fixture(scope="module")
def arguments():
    case = {"batch": 1, "head": 2, "queries": 8, "d_head": 64, "causal": True}
    return draw_arguments(TWINS["attention"], case, "bfloat16", "cpu")


@pytest.mark.parametrize(("only", "switch"), [((ON_HOPPER,), "1"), ((OURS,), "0"), ((), "0")])
def test_a_process_is_switched_on_for_their_piece_alone(monkeypatch, only, switch):
    monkeypatch.setenv(serving.VARIABLE, "1")  # whatever the user's own shell says
    run = Run(Path("x"), False, only, 1.0, 0.0, 0, "NVIDIA H100")
    assert run.environment[serving.VARIABLE] == switch


def test_their_results_pass_the_gate_before_they_are_timed():
    (provider,) = (p for p in providers.providers("attention") if p.name == ON_HOPPER)
    assert not provider.yardstick
    (piece,) = (piece for piece in PIECES if piece.only == (ON_HOPPER,))
    assert piece.parts == (HOPPER, "attention/bfloat16") and piece.most_s <= 60


def test_where_they_cannot_run_the_plain_kernel_is_not_timed_in_their_name(monkeypatch, arguments):
    monkeypatch.delenv(serving.VARIABLE, raising=False)
    with pytest.raises(Skipped, match="GPTWIN_HOPPER is not set"):
        providers.on_hopper(arguments, "")
    monkeypatch.setenv(serving.VARIABLE, "1")
    with pytest.raises(Skipped, match="capability"):
        providers.on_hopper(arguments, "")
    monkeypatch.setattr(serving, "can_run", lambda x: True)
    assert callable(providers.on_hopper(arguments, ""))
    arguments.options["dropout"] = 0.1
    with pytest.raises(ValueError, match=r"GPTWIN_HOPPER=1 was asked for, .*: dropout"):
        providers.on_hopper(arguments, "")


@pytest.mark.parametrize(
    ("unproved", "passed", "status"),
    [("", True, "measured"), ("", False, "failed"), ("no case ran d_query", False, "failed")],
)
def test_they_are_verified_before_they_are_timed(monkeypatch, unproved, passed, status):
    """What `gptwin verify` does there is tested in tests/kernels/hopper/test_verified.py."""
    assert [event.get("status") for event in verification.verify_hopper()] == [None, "skipped"]

    def run(command, **_):
        head = {"passed": passed, "on_hopper": {"unproved": unproved}}
        write_rows(Path(command[-1]), head, [])
        return subprocess.CompletedProcess(command, int(not passed))

    monkeypatch.setattr(verification.subprocess, "run", run)
    monkeypatch.setattr(verification, "why_not_here", lambda: "")
    *_, last = verification.verify_hopper()
    assert last["status"] == status and (unproved or "disagrees" in str(last) or passed)
    assert unproved in (last["reason"] or "")
