"""`gptwin bench gpu --dry-run`: the list names every path, and what is not reached has failed."""

import pytest
from typer.testing import CliRunner

from gptwin.benchmarks.gpu import driver, dry_run
from gptwin.benchmarks.gpu.dry_run import FAILED, RUN, UNAVAILABLE
from gptwin.benchmarks.gpu.operations.providers import COMMON, PEERS, Provider
from gptwin.benchmarks.gpu.operations.results import not_measured
from gptwin.benchmarks.gpu.operations.shapes import _MORE, _TRAINING, shapes, stand_ins, tiny_shapes
from gptwin.cli import app
from gptwin.lab.twins.catalogue import TWINS
from gptwin.rl.studies.workloads import WORKLOADS


@pytest.fixture(scope="module")
def cells():
    return dry_run.expected_cells(WORKLOADS)


def test_every_twin_provider_and_named_size_is_on_the_list(cells):
    """A twin without a size, or a provider that no size is for, would not be."""
    for name, twin in TWINS.items():
        assert twin.shapes, f"{name} has no named size: nothing of it would be measured"
        assert (f"verify/{name}", "") in cells
        everyone = {p.name for p in (*COMMON, *PEERS.get(name, ()))}
        own = {path: names for path, names in cells.items() if path[0].startswith(f"{name}/")}
        assert {provider for _, provider in own} == everyone
        run = {cell.split(" | ")[0] for names in own.values() for cell in names}
        assert run == set(tiny_shapes(twin))
        named = {*twin.shapes, *_TRAINING.get(name, ()), *_MORE.get(name, ())}
        assert set(stand_ins(twin)) == set(shapes(twin)) == named
        note = dry_run.sizes_note(next(part for part, _ in own))
        assert all(size in note for size in named)
    assert set(PEERS) <= set(TWINS)


def test_what_is_end_to_end_is_on_the_list_too(cells):
    assert {provider for part, provider in cells if part == "training"} == {
        "gptwin", "gptwin, compiled", "nanoGPT", "nanoGPT, compiled", "nanoGPT, autocast, compiled",
        "transformers, compiled",
    }  # fmt: skip
    # Not "gptwin, batch-invariant", which needs kernels: a dry run computes in eager PyTorch.
    assert {provider for part, provider in cells if part == "generation"} == {
        "gptwin", "gptwin, static step", "gptwin, CUDA graphs", "eager",
        "transformers", "transformers, static cache",
    }  # fmt: skip
    assert {who for part, who in cells if part == "ppo"} == {"gptwin", "gptwin, CUDA graphs"}
    assert cells["roofline", ""] == ["copy", "bfloat16", "float16", "tf32", "float32"]


def test_a_new_twins_and_a_new_peers_cells_are_on_the_list(monkeypatch):
    """...by themselves, and fail until they are reached."""
    monkeypatch.setitem(TWINS, "gelu2", TWINS["gelu"])
    monkeypatch.setitem(PEERS, "kl", (Provider("somebody", None),))
    found = {o.path: o.status for o in dry_run.tried_paths(dry_run.expected_cells(WORKLOADS), {})}
    assert found["gelu2/bfloat16 | gptwin"] == found["kl/float32 | somebody"] == FAILED


def found(status, reason=None):
    return not_measured("a", status, reason)


@pytest.mark.parametrize(
    ("cells", "status", "note"),
    [
        ([found("measured")] * 2, RUN, "2 cells"),
        ([found("measured"), found("skipped", "takes no mask")], RUN, "1 cell; not made for 1"),
        ([found("skipped", "a GPU's alone")] * 2, UNAVAILABLE, "a GPU's alone"),
        ([found("measured"), found("failed", "gate: d_x")], FAILED, "gate: d_x"),
        ([found("rejected", "2 times the peak")], FAILED, "2 times the peak"),
        ([found("measured"), None], FAILED, "1 of 2 cells not reached"),
    ],
)
def test_a_path_has_run_if_nothing_of_it_failed(cells, status, note):
    assert dry_run.judge(cells) == (status, note)


def test_the_exit_code_is_1_if_a_path_failed(capsys):
    good, bad = (
        dry_run.TriedPath("a", RUN, ""),
        dry_run.TriedPath("gelu/float32 | b", FAILED, "why"),
    )
    assert dry_run.print_list([good]) == 0
    assert dry_run.print_list([good, bad]) == 1
    printed = capsys.readouterr().out
    assert "2 paths: 1 run, 1 FAILED" in printed and "so too gpt2-355M training" in printed


def test_without_names_the_command_lists_every_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {}
    monkeypatch.setattr(driver, "bench", lambda what, **o: asked.update(what=what, **o) or 0)
    monkeypatch.setattr(dry_run, "closing", lambda path, limit_s: ())
    result = CliRunner().invoke(app, ["bench", "gpu", "--dry-run"])
    assert asked["dry_run"] and asked["out"] == "build/dry-run.jsonl"
    assert {"operations", "training", "generation", "ppo", "verify"} == set(asked["what"])
    assert result.exit_code == 1 and "not reached" in result.output  # nothing was stored
    monkeypatch.setattr(driver, "bench", lambda what, **_: driver.OUT_OF_TIME)
    assert CliRunner().invoke(app, ["bench", "gpu", "--dry-run"]).exit_code == driver.OUT_OF_TIME


def test_goals_find_each_named_size_in_the_one_that_ran_for_it():
    cell = {"name": "x", "shape": "instructgpt minibatch"}
    whole = dry_run.at_every_size({"ppo_loss/float32": {"findings": [cell]}})
    names = [found["shape"] for found in whole["ppo_loss/float32"]["findings"]]
    assert names == list(shapes(TWINS["ppo_loss"])) and "instructgpt batch" in names
