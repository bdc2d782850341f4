"""A disk that becomes full in any kind of write: one line names the file, and nothing is lost.

`python tests/rl/test_full_disk.py DIRECTORY` fills a real disk, a small one in memory that it
mounts (as root); the suite lets a write say that there is no room.
"""

import collections
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import chain
from test_kills import begun

from gptwin.records import WRITING
from gptwin.rl.configuration import load
from gptwin.rl.pipeline import STAGES
from gptwin.rl.training.inputs import ENDED, read_ended
from gptwin.rl.training.run import LOG, SETTINGS


def expect_nothing_half_done(run, stage):
    assert not list(run.rglob(f"{WRITING}*"))
    assert not list(run.rglob("*.writing"))
    assert read_ended(run / stage) is None


def test_a_full_disk_is_one_line_and_loses_nothing(whole, tmp_path, capfd):
    """Full at one kind of write after the other, with room in between: at last it ends."""
    run = tmp_path / "run"
    begun(whole, "reward", run)
    for kind, file in {
        "settings": SETTINGS,
        "log": LOG,
        "checkpoint": "checkpoints/step-0000000.",
        "plot": "plots/learning.png",
        "export": "scorer.safetensors",
        "ended": ENDED,
    }.items():
        capfd.readouterr()
        disk = chain.Full(tmp_path / "seen", kind)
        assert chain.in_a_process(run, "reward", kind != "settings", disk) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert re.fullmatch(rf"gptwin: .*No space left on device: '{run}/reward/{file}'", line)
        expect_nothing_half_done(run, "reward")
    disk = chain.Full(tmp_path / "seen", "settings")
    assert chain.in_a_process(run, "reward", True, disk) == 2
    assert load(str(run / "reward" / SETTINGS)) == chain.configuration(run)
    assert chain.in_a_process(run, "reward", True) == 0
    assert chain.left(run / "reward") == chain.left(whole / "reward")


class SmallDisk:
    """A disk in memory, of a size that can be changed."""

    def __init__(self, place):
        self.place = place
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)

    def room(self, kibibytes=None):
        """Leave so much room; without a number, enough."""
        taken = shutil.disk_usage(self.place).used // 1024
        size = f"{taken + kibibytes}k" if kibibytes else "1g"
        command = ["mount", "-o", f"remount,size={size}", self.place]
        subprocess.run(command, check=True)

    def gone(self):
        """Take it away."""
        subprocess.run(["umount", self.place], check=True)


def filled(whole, stage, disk, room, said):
    """Run a stage with so much room, and go on with more; return what was said in between."""
    run = disk.place / "run"
    begun(whole, stage, run)
    disk.room(room)
    said()
    code = chain.in_a_process(run, stage)
    lines = [line for line in said() if not line.startswith("Note")]
    disk.room()
    if code == 0:
        lines = ["enough"]
    else:
        assert code == 2 and len(lines) == 1 and "No space left" in lines[0], lines
        expect_nothing_half_done(run, stage)
        assert chain.in_a_process(run, stage, True) == 0
        assert chain.left(run / stage) == chain.left(whole / stage)
    shutil.rmtree(run)
    return lines[0].replace(str(run), "RUN")


def main(n, scratch):
    """Fill the disk in each stage at `n` sizes, from 8 KiB to what the stage writes."""
    whole = scratch / "whole"
    assert chain.in_a_process(whole, "all") == 0
    said = chain.listening(scratch / "said")
    disk = SmallDisk(scratch / "disk")
    shutil.copy(scratch / "text.jsonl", disk.place)
    try:
        for stage in STAGES:
            most = sum(p.stat().st_size for p in (whole / stage).rglob("*")) // 1024
            rooms = [8 + round(i * most / n) for i in range(n)]
            lines = collections.Counter(filled(whole, stage, disk, room, said) for room in rooms)
            print(json.dumps({"stage": stage, "said": lines}, indent=1), flush=True)
    finally:
        disk.gone()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
