"""A kill in the middle of any write, in any stage: going on leaves what a whole run leaves.

`python tests/rl/test_kills.py 20 DIRECTORY` kills each stage so often; the suite does it once each.
"""

import collections
import itertools
import json
import shutil
import signal
import sys
from pathlib import Path

import chain
import pytest

from gptwin.records import WRITING
from gptwin.rl.pipeline import STAGES
from gptwin.rl.training.inputs import ENDED, read_ended


def begun(whole, stage, run):
    """Copy what the stages before one left."""
    before = STAGES[: STAGES.index(stage)]
    for part in ("tokenizer", *before) if before else ():
        shutil.copytree(whole / part, run / part)


def killed(whole, stage, run, at):
    """Kill a stage at a write, go on, and compare; return the kind of the write."""
    begun(whole, stage, run)
    disk = chain.Killing(run.parent / "seen", at)
    assert chain.in_a_process(run, stage, False, disk) == -signal.SIGKILL
    *_, last = disk.kinds()
    if last != "folder":  # that of the run, once its end is written
        assert read_ended(run / stage) is None
        # Whoever goes on is killed at the first write, too: as a rule that of the log.
        again = chain.Killing(run.parent / "seen", 1)
        assert chain.in_a_process(run, stage, True, again) == -signal.SIGKILL
    assert chain.in_a_process(run, stage, True) == 0
    assert chain.left(run / stage) == chain.left(whole / stage)
    assert not list(run.rglob(f"{WRITING}*"))
    assert not list(run.rglob("*.*ing"))
    shutil.rmtree(run)
    return last


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_in_a_write_loses_no_bit(whole, tmp_path, stage):
    assert killed(whole, stage, tmp_path / "run", at=21) in ("checkpoint", "log")


def test_a_chain_goes_on_after_a_kill_in_an_export(whole, tmp_path):
    """As found: killed when sft/model appeared, `--resume` was blocked for good."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "sft" / ENDED).unlink()
    for name in ("model.safetensors", "config.json"):
        (run / "sft/model" / name).unlink()
    assert chain.in_a_process(run, "all", True) == 0
    for stage in STAGES:
        assert chain.left(run / stage) == chain.left(whole / stage)


def main(n, scratch):
    """Kill each stage `n` times: in each kind of write, and evenly from the first to the last."""
    whole = scratch / "whole"
    for stage in STAGES:
        disk = chain.Disk(scratch / "seen")
        assert chain.in_a_process(whole, stage, False, disk) == 0
        seen = disk.kinds()
        places = {1 + seen.index(kind) for kind in seen}
        evenly = (1 + round(i * (len(seen) - 1) / n) for i in range(n + 1))
        places |= set(itertools.islice((at for at in evenly if at not in places), n - len(places)))
        kinds = [killed(whole, stage, scratch / "run", at) for at in sorted(places)]
        found = {"stage": stage, "writes": len(seen), "killed": len(kinds)}
        print(json.dumps(found | {"in": collections.Counter(kinds)}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
