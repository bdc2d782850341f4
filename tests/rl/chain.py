"""A chain that the tests of kills, of damage and of full disks share, and what it left.

Its writes can be watched: each has a kind, and at a chosen one the process may be killed, or told
that the disk is full.
"""

import functools
import json
import multiprocessing
import os
import re
import signal
import sys
from pathlib import Path

import tiny
import torch

from gptwin.rl import pipeline, run_data
from gptwin.rl.formats import checkpoint
from gptwin.rl.judging import sampled_rankings
from gptwin.rl.pipeline import Pipeline
from gptwin.rl.training import log
from gptwin.rl.training.inputs import ENDED, read_ended
from gptwin.rl.training.run import CHECKPOINTS, LOG, SETTINGS, read_log

VARYING = ("seconds", "tokens_per_second")
# What a write is of, by its place; the first that fits.
KINDS = {
    "checkpoint": CHECKPOINTS,
    "log": re.escape(LOG),
    "settings": re.escape(SETTINGS),
    "plot": r"plots|\.png",
    "ended": f"{ENDED}|made.json",
    "export": "model|ema|tokenizer|scorer|best_of_n",
}


def few(setting=setattr):
    """Measure on few exercises: what is measured is not what these tests are about."""
    setting(run_data, "TOKENIZER_EXERCISES", 1000)
    setting(run_data, "VALIDATION_WINDOWS", 4)
    setting(pipeline, "VALIDATION_PROMPTS", 4)
    setting(sampled_rankings, "HELD_OUT_PROMPTS", 8)


def configuration(directory):
    """A chain whose text to pretrain on lies beside its folder, and is read quickly."""
    text = Path(directory).parent / "text.jsonl"
    if not text.exists():
        lines = [{"text": f"Some words to read, of line {i}, and more. " * 9} for i in range(40)]
        text.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tiny.configuration(
        directory, run={"checkpoint_every": 1}, pretrain={"data": str(text)},
        sft={"examples": 64}, reward={"epochs": 2}, ppo={"episodes": 32, "best_of": 2},
    )  # fmt: skip


def left(folder):
    """What a stage left: its files' checksums, its last weights, and its log but for the clock.

    Not the checksums of what tells the place and the time.
    """
    newest = checkpoint.newest_whole(folder / CHECKPOINTS)
    tensors = (newest / checkpoint.TENSORS).read_bytes()
    told = [{k: v for k, v in r.items() if k not in VARYING} for r in read_log(folder)]
    sums = read_ended(folder).outputs
    assert sums.keys() >= {LOG, SETTINGS}
    return {k: v for k, v in sums.items() if k not in (LOG, SETTINGS)}, tensors, told


def listening(file):
    """Let errors of this process and its children go to a file; return what reads its new lines."""
    flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_TRUNC
    os.dup2(os.open(file, flags), sys.stderr.fileno())

    def said():
        lines = [line for line in Path(file).read_text().splitlines() if line.strip()]
        os.truncate(file, 0)
        return lines

    return said


def in_a_process(*arguments):
    """Call `work` in a process of its own; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def work(directory, what, resume=False, disk=None):
    """Run a stage, or the chain; an error is told as the command line tells it."""
    few()
    torch.set_num_threads(1)
    if disk is not None:
        disk.watch()
    try:
        getattr(Pipeline(configuration(directory), resume=resume, quiet=True), what)()
    except (ValueError, RuntimeError, OSError) as error:
        print(f"gptwin: {error}", file=sys.stderr)
        sys.exit(2)


def opened(handle):
    return os.readlink(f"/proc/self/fd/{handle}")


def cut(handle):
    """Leave half of a file that is not in its place yet."""
    if os.path.isfile(opened(handle)) and ".writing" in opened(handle):
        os.truncate(opened(handle), os.path.getsize(opened(handle)) // 2)


def halved(write, to, content):
    """Write half of what was to be written."""
    write(to, content[: len(content) // 2])


class Disk:
    """Sees every write of a process before it is done: before a line is added or a file is written,
    before it is put on the disk, renamed to its place, or removed.

    Parameters
    ----------
    seen : pathlib.Path
        Gets the kind of every write, one a line.
    """

    def __init__(self, seen):
        self.seen, self.count = Path(seen), 0

    def watch(self):
        """Watch this process from now on."""
        self.seen.write_text("")
        os.replace = self.before(os.replace, lambda source, target: target)
        os.rename = self.before(os.rename, lambda source, target: source)
        os.fsync = self.before(os.fsync, opened, cut)
        for holder, name, place in (
            (log, "_write_all", lambda file, line: file.name),
            (Path, "write_bytes", lambda path, content: path),
            (Path, "write_text", lambda path, content: path),
        ):
            write = getattr(holder, name)
            setattr(holder, name, self.before(write, place, functools.partial(halved, write)))

    def before(self, write, place, halve=lambda *arguments: None):
        """Return `write` watched; `halve` does half of it."""

        def watched(*arguments, **options):
            where = str(place(*arguments))
            self.count += 1
            with self.seen.open("a") as file:
                file.write(kind(where) + "\n")
            self.happen(where, functools.partial(halve, *arguments))
            return write(*arguments, **options)

        return watched

    def happen(self, where, halve):
        """Let happen what this disk is made for."""

    def kinds(self):
        """Return the kind of every write that was seen."""
        return self.seen.read_text().split()


class Killing(Disk):
    """Kills the process at a write, half of what is being written on the disk."""

    def __init__(self, seen, at):
        super().__init__(seen)
        self.at = at

    def happen(self, where, halve):
        if self.count == self.at:
            halve()
            os.kill(os.getpid(), signal.SIGKILL)


class Full(Disk):
    """Has room for half a write of a kind, and none from there on."""

    def __init__(self, seen, kind):
        super().__init__(seen)
        self.kind = kind

    def happen(self, where, halve):
        if self.kind in self.kinds():
            halve()
            raise OSError(28, "No space left on device")  # which names no file


def kind(place):
    """Return what a write is of."""
    return next((name for name, words in KINDS.items() if re.search(words, place)), "folder")
