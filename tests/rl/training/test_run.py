"""What a run promises of every stage: a log, a clean stop, and going on as if never stopped."""

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from gptwin import records
from gptwin.kernels.common import launch
from gptwin.rl.configuration import (
    Configuration,
    ModelSettings,
    PretrainSettings,
    RunSettings,
    load,
)
from gptwin.rl.formats import checkpoint
from gptwin.rl.ranks.group import Group
from gptwin.rl.training import log as log_module
from gptwin.rl.training.lock import only_writer
from gptwin.rl.training.run import CHECKPOINTS, LOG, SETTINGS, Interrupted, read_log, train
from gptwin.rl.training.update import Update


class Walk:
    """A stage whose every step depends on the last, on its optimizer and on the random state."""

    name = "walk"

    def __init__(self, steps=12, seconds=0.0, bad_step=None):
        torch.manual_seed(0)
        self.steps, self.seconds, self.bad_step = steps, seconds, bad_step
        self.weight = torch.nn.Parameter(torch.zeros(4))
        self.optimizer = torch.optim.AdamW([self.weight], lr=0.1)

    def step(self, index):
        time.sleep(self.seconds)
        loss = ((self.weight - torch.randn(4)) ** 2).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        bad = index == self.bad_step
        return {"loss": float("nan") if bad else loss.item(), "tokens": 4}

    def evaluate(self):
        return {"norm": self.weight.norm().item()}

    def state_dict(self):
        return {"weight": self.weight.data, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.weight.data.copy_(state["weight"])
        self.optimizer.load_state_dict(state["optimizer"])


def settings(directory, **changes):
    run = RunSettings(str(directory), checkpoint_every=3, evaluate_every=5, **changes)
    return Configuration(run=run)


def whole(directory):
    stage = Walk()
    train(stage, settings(directory), quiet=True)
    return stage.weight.detach().clone(), losses(directory)


def losses(directory):
    return [(r["step"], r["loss"], r.get("validation_norm")) for r in read_log(directory / "walk")]


def test_a_run_leaves_settings_log_and_checkpoints(tmp_path):
    whole(tmp_path)
    folder = tmp_path / "walk"
    assert load(str(folder / SETTINGS)) == settings(tmp_path)
    assert [r["step"] for r in read_log(folder)] == list(range(1, 13))
    assert [r["step"] for r in read_log(folder) if "validation_norm" in r] == [5, 10, 12]
    assert [p.name for p in checkpoint.complete(folder / CHECKPOINTS)][-1] == "step-00000012"


def test_a_run_may_be_evaluated_before_it_begins_and_ten_times_on_its_way(tmp_path):
    changed = settings(tmp_path, evaluate_first=True)
    run = dataclasses.replace(changed.run, evaluate_every=0)
    train(Walk(steps=20), dataclasses.replace(changed, run=run), quiet=True)
    log = read_log(tmp_path / "walk")
    assert [r["step"] for r in log if "validation_norm" in r] == list(range(0, 21, 2))
    assert log[0] == {"step": 0, "seconds": 0.0, "validation_norm": 0.0}
    train(Walk(steps=20), dataclasses.replace(changed, run=run), resume=True, quiet=True)
    assert read_log(tmp_path / "walk") == log


def test_another_run_is_not_overwritten(tmp_path):
    whole(tmp_path)
    before = (tmp_path / "walk" / LOG).read_text()
    with pytest.raises(ValueError, match=r"run\.directory: .*--resume"):
        train(Walk(), settings(tmp_path), quiet=True)
    assert (tmp_path / "walk" / LOG).read_text() == before


def test_ctrl_c_keeps_the_step_and_the_run_goes_on_bit_for_bit(tmp_path):
    weight, expected = whole(tmp_path / "whole")

    class Stopped(Walk):
        def step(self, index):
            if index == 6:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(index)

    with pytest.raises(Interrupted, match="stopped after step 7, which is kept"):
        train(Stopped(), settings(tmp_path / "stopped"), quiet=True)
    torch.manual_seed(1234)
    resumed = Walk()
    torch.rand(3)
    train(resumed, settings(tmp_path / "stopped"), resume=True, quiet=True)
    torch.testing.assert_close(resumed.weight.detach(), weight, rtol=0, atol=0)
    assert losses(tmp_path / "stopped") == expected


def run_slowly(directory):
    train(Walk(seconds=0.02), settings(directory), quiet=True)


@pytest.mark.parametrize("after", [1, 4, 8])
def test_a_kill_in_a_step_loses_no_bit(tmp_path, after):
    weight, expected = whole(tmp_path / "whole")
    directory = tmp_path / "killed"
    process = multiprocessing.get_context("fork").Process(target=run_slowly, args=(directory,))
    process.start()
    while len(read_log(directory / "walk")) < after:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    resumed = Walk()
    train(resumed, settings(directory), resume=True, quiet=True)
    torch.testing.assert_close(resumed.weight.detach(), weight, rtol=0, atol=0)
    assert losses(directory) == expected


def test_a_number_that_is_not_finite_stops_the_run_and_is_named(tmp_path):
    with pytest.raises(
        FloatingPointError, match=r"^walk, step 8: loss is not finite: nan.*00006 is"
    ):
        train(Walk(bad_step=7), settings(tmp_path), quiet=True)
    kept = checkpoint.complete(tmp_path / "walk" / CHECKPOINTS)
    assert kept[-1].name == "step-00000006"
    assert len(read_log(tmp_path / "walk")) == 7


def test_other_settings_are_refused_by_name_and_how_often_is_free(tmp_path):
    whole(tmp_path)
    same = settings(tmp_path, keep_last=1)
    train(Walk(steps=14), same, resume=True, quiet=True)
    for change, name in (
        ({"run": dataclasses.replace(same.run, seed=1)}, r"run\.seed: expected 0, got 1"),
        ({"model": ModelSettings(n_layer=9)}, r"model\.n_layer: expected 4, got 9"),
    ):
        other = dataclasses.replace(same, **change)
        with pytest.raises(ValueError, match=rf"^{name} .*another setting than the run in"):
            train(Walk(), other, resume=True, quiet=True)


def test_tensorboard_gets_what_the_log_gets(tmp_path):
    pytest.importorskip("tensorboard")
    train(Walk(), settings(tmp_path, tensorboard=True), quiet=True)
    assert list((tmp_path / "walk/tensorboard").glob("events.*"))


def test_a_gradient_that_is_not_finite_is_named(tmp_path):
    class Overflowing(Walk):
        def __init__(self):
            super().__init__()
            self.module = torch.nn.Linear(2, 1)
            self.update = Update(self.module, PretrainSettings(), Group())

        def step(self, index):
            scale = float("inf") if index == 4 else 1.0
            (self.module(torch.ones(2)) * scale).sum().backward()
            return {"loss": self.update.apply(1e-3)}

    message = r"^walk, step 5: the gradient of weight: 2 of 2 .* inf .*step-00000003 is the last"
    with pytest.raises(FloatingPointError, match=message):
        train(Overflowing(), settings(tmp_path), quiet=True)


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    whole(tmp_path)
    log = Path(tmp_path / "walk" / LOG)
    log.write_text(log.read_text()[:-20])
    assert [r["step"] for r in read_log(tmp_path / "walk")] == list(range(1, 12))


# --- damage ----------------------------------------------------------------------------------


def stopped_at(directory, step=7):
    """A run that was stopped, with checkpoints of steps 6 and `step`."""

    class Stopped(Walk):
        def step(self, index):
            if index + 1 == step:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(index)

    with pytest.raises(Interrupted):
        train(Stopped(), settings(directory), quiet=True)
    return directory / "walk"


def flip(path, place=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a byte": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": Path.unlink,
}


def resumed(directory):
    stage = Walk()
    train(stage, settings(directory), resume=True, quiet=True)
    return stage.weight.detach()


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", [checkpoint.STATE, checkpoint.TENSORS, checkpoint.SUMS])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys, kind, name):
    weight, expected = whole(tmp_path / "whole")
    folder = stopped_at(tmp_path / "run")
    DAMAGE[kind](folder / CHECKPOINTS / "step-00000007" / name)
    torch.testing.assert_close(resumed(tmp_path / "run"), weight, rtol=0, atol=0)
    assert losses(tmp_path / "run") == expected
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "is damaged: going on from step-00000006" in said[0]
    assert (folder / CHECKPOINTS / "step-00000007.damaged").exists()


def test_where_all_checkpoints_are_damaged_nothing_is_lost(tmp_path):
    folder = stopped_at(tmp_path)
    for kept in checkpoint.complete(folder / CHECKPOINTS):
        flip(kept / checkpoint.TENSORS)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=r"a whole checkpoint, got damaged ones: step-00000007/"):
        resumed(tmp_path)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_damaged_checkpoint_is_written_anew_by_the_run_that_comes_to_it(tmp_path):
    weight, _ = whole(tmp_path)
    last = checkpoint.complete(tmp_path / "walk" / CHECKPOINTS)[-1]
    flip(last / checkpoint.TENSORS)
    torch.testing.assert_close(resumed(tmp_path), weight, rtol=0, atol=0)
    assert checkpoint.damage(last) is None


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda log: flip(log, log.read_bytes().index(b"{", 200)), r"log\.jsonl:3: expected a"),
        (lambda log: flip(log, log.read_bytes().index(b'"loss": ') + 8), r"its first 7 lines .*ot"),
        (DAMAGE["cut"], r"its first 7 lines as .* got only 3 of them"),
        (DAMAGE["emptied"], r"its first 7 lines as .* got only 0 of them"),
    ],
)
def test_a_damaged_log_is_named_and_nothing_is_deleted(tmp_path, harm, message):
    log = stopped_at(tmp_path) / LOG
    harm(log)
    before = log.read_bytes()
    with pytest.raises(ValueError, match=message):
        resumed(tmp_path)
    assert log.read_bytes() == before


def test_without_its_log_a_run_goes_on_and_says_so(tmp_path, capsys):
    weight, _ = whole(tmp_path / "whole")
    (stopped_at(tmp_path / "run") / LOG).unlink()
    torch.testing.assert_close(resumed(tmp_path / "run"), weight, rtol=0, atol=0)
    assert "begins anew, without the 7 lines" in capsys.readouterr().err
    assert [r["step"] for r in read_log(tmp_path / "run/walk")] == list(range(8, 13))


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_settings_are_written_anew(tmp_path, kind):
    folder = stopped_at(tmp_path)
    DAMAGE[kind](folder / SETTINGS)
    resumed(tmp_path)
    assert load(str(folder / SETTINGS)) == settings(tmp_path)


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    stopped_at(tmp_path)
    with pytest.raises(ValueError, match=r"^walk: expected at least the 7 steps .*, got 5"):
        train(Walk(steps=5), settings(tmp_path), resume=True, quiet=True)


@pytest.mark.parametrize("full", ["fsync", "line"])
def test_a_full_disk_is_one_error_and_the_run_goes_on_when_there_is_room(
    tmp_path, monkeypatch, full
):
    weight, expected = whole(tmp_path / "whole")
    count = iter(range(10**6))

    def failing(whole_write):
        def write(*arguments):
            if next(count) >= 9:
                raise OSError(28, "No space left on device")
            return whole_write(*arguments)

        return write

    with monkeypatch.context() as patch:
        if full == "fsync":
            patch.setattr(records.os, "fsync", failing(os.fsync))
        else:
            patch.setattr(log_module, "_write_all", failing(log_module._write_all))
        with pytest.raises(OSError, match=r"No space left .*: '.*/walk/(log\.jsonl|check.*\d)'$"):
            train(Walk(), settings(tmp_path / "run"), quiet=True)
    folder = tmp_path / "run/walk"
    assert not list(folder.rglob("*.writing*"))
    assert load(str(folder / SETTINGS)) == settings(tmp_path / "run")
    torch.testing.assert_close(resumed(tmp_path / "run"), weight, rtol=0, atol=0)
    assert losses(tmp_path / "run") == expected


# --- one writer ------------------------------------------------------------------------------


def hold(directory, ready):
    with only_writer(directory):
        ready.send(True)
        time.sleep(60)


def test_a_folder_has_one_writer_and_a_killed_one_holds_nothing(tmp_path):
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert mine.recv()
    with (
        pytest.raises(ValueError, match=rf"run\.directory: .*process {process.pid} on "),
        only_writer(tmp_path),
    ):
        pass
    process.kill()
    process.join()
    assert (tmp_path / ".lock").exists()
    with only_writer(tmp_path):
        pass


def test_who_shares_a_folder_waits_for_its_writer(tmp_path):
    told, entered = threading.Event(), threading.Event()
    holders = []

    def second():
        with only_writer(tmp_path, waits=lambda holder: (holders.append(holder), told.set())):
            entered.set()

    waiting = threading.Thread(target=second)
    with only_writer(tmp_path):
        waiting.start()
        assert told.wait(60) and not entered.is_set()
    waiting.join(60)
    assert entered.is_set() and holders == [(tmp_path / ".lock").read_text()]


def test_rows_of_the_same_bits_need_kernels(tmp_path):
    class Watching(Walk):
        def step(self, index):
            assert launch.door().batch_invariant
            return super().step(index)

    with (
        launch.backend("eager"),
        pytest.raises(RuntimeError, match=r"run\.batch_invariant: expected"),
    ):
        train(Watching(), settings(tmp_path, batch_invariant=True), quiet=True)
    with launch.backend("triton"):
        train(Watching(2), settings(tmp_path / "b", batch_invariant=True), quiet=True)
    assert not launch.door().batch_invariant
