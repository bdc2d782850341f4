"""A kill in the middle of any write, in any stage: going on leaves what a whole run leaves.

`python tests/rl/test_kills.py 20` kills each stage so often; the suite does it a few times.
"""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import tiny
import torch

from gptwin import records
from gptwin.rl import pipeline, run_data
from gptwin.rl.formats import checkpoint
from gptwin.rl.judging import sampled_rankings
from gptwin.rl.pipeline import STAGES, Pipeline
from gptwin.rl.training import log
from gptwin.rl.training.inputs import ENDED, read_ended
from gptwin.rl.training.run import CHECKPOINTS, read_log

VARYING = ("seconds", "tokens_per_second")


def few(patch):
    patch.setattr(run_data, "TOKENIZER_EXERCISES", 1000)
    patch.setattr(pipeline, "VALIDATION_PROMPTS", 4)
    patch.setattr(run_data, "VALIDATION_WINDOWS", 4)
    patch.setattr(sampled_rankings, "HELD_OUT_PROMPTS", 8)


def configuration(directory):
    return tiny.configuration(
        directory, run={"checkpoint_every": 1}, sft={"examples": 64},
        ppo={"episodes": 32, "best_of": 2},
    )  # fmt: skip


def work(directory, stage, resume=False, at=None):
    """Run a stage; with `at`, die at that write, half of it on the disk."""
    torch.set_num_threads(1)
    if at is not None:
        count = 0

        def dying(write):
            def counted(*arguments):
                nonlocal count
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(*arguments)

            return counted

        # before a file is renamed to its place, before it is on the disk, and before a log's line
        records.os.replace = dying(os.replace)
        records.os.fsync = dying(os.fsync)
        log._write_all = dying(log._write_all)
    getattr(Pipeline(configuration(directory), resume=resume, quiet=True), stage)()


def in_a_process(*arguments):
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def left(folder):
    """What a stage left: its files' checksums, its last weights, and its log but for the clock."""
    newest = checkpoint.newest_whole(folder / CHECKPOINTS)
    tensors = (newest / checkpoint.TENSORS).read_bytes()
    told = [{k: v for k, v in r.items() if k not in VARYING} for r in read_log(folder)]
    return read_ended(folder).outputs, tensors, told


def killed(whole, stage, scratch, at):
    """Kill a stage at a write, go on, and compare; return whether it was killed."""
    run = scratch / f"{stage}-{at}"
    before = STAGES[: STAGES.index(stage)]
    for part in ("tokenizer", *before) if before else ():
        shutil.copytree(whole / part, run / part)
    code = in_a_process(run, stage, False, at)
    if code != 0:
        assert code == -signal.SIGKILL
        assert read_ended(run / stage) is None
    assert in_a_process(run, stage, True) == 0
    assert left(run / stage) == left(whole / stage)
    assert not list(run.rglob(f"{records.WRITING}*"))
    shutil.rmtree(run)
    return code != 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        few(patch)
        directory = tmp_path_factory.mktemp("whole")
        assert in_a_process(directory, "all") == 0
        yield directory


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_in_a_write_loses_no_bit(whole, tmp_path, stage):
    assert killed(whole, stage, tmp_path, at=9)


def test_a_chain_goes_on_after_a_kill_in_an_export(whole, tmp_path):
    """As found: killed when sft/model appeared, `--resume` was blocked for good."""
    run = tmp_path / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("reward", "ppo"))
    (run / "sft" / ENDED).unlink()
    for name in ("model.safetensors", "config.json"):
        (run / "sft/model" / name).unlink()
    assert in_a_process(run, "all", True) == 0
    for stage in STAGES:
        assert left(run / stage) == left(whole / stage)


if __name__ == "__main__":
    few(pytest.MonkeyPatch())
    scratch = Path(sys.argv[2])
    assert in_a_process(scratch / "whole", "all") == 0
    for name in STAGES:
        n_killed, at = 0, 0
        while n_killed < int(sys.argv[1]):
            at += 3
            if not killed(scratch / "whole", name, scratch, at):
                break
            n_killed += 1
        print(json.dumps({"stage": name, "killed": n_killed, "last write": at}), flush=True)
