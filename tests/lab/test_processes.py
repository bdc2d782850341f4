"""Whoever is killed leaves no process behind."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTS = re.compile(r"ProcessPoolExecutor|Pool\(|os\.fork\(|\[?\(?sys\.executable, \"-[cm]\"")

# Two workers that are busy for ten minutes, and have their parent's standard output.
PARENT = """
import os, signal, time
from gptwin.lab.processes import Workers
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    with Workers(2) as workers:
        jobs = [workers.submit(time.sleep, 600 * n) for n in (0, 1, 1)]
        jobs[0].result()
        print("at work", flush=True)
        jobs[1].result()
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_workers_end_with_who_started_them(name: str, tmp_path: Path) -> None:
    file = tmp_path / "parent.py"
    file.write_text(PARENT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, str(file)], **pipes, start_new_session=True) as parent:
        try:
            assert parent.stdout.readline() == b"at work\n"
            parent.send_signal(signal.Signals[name])  # to it alone
            parent.communicate(timeout=60)  # until nobody has its output open
        finally:
            if parent.returncode is None:
                os.killpg(parent.pid, signal.SIGKILL)


def test_all_that_start_processes_let_them_end_so() -> None:
    """A pool is one of Workers; a fork, and a program of our own, call end_with_parent."""
    # Their processes are a group, which the job that leads it ends with itself: job.py.
    in_group = {"benchmarks/gpu/supervise.py", "benchmarks/gpu/verification.py"}
    starting = {
        str(path.relative_to(ROOT)): text
        for room in ("lab", "rl", "kernels", "benchmarks")
        for path in (ROOT / room).rglob("*.py")
        if STARTS.search(text := path.read_text(encoding="utf-8"))
    }
    assert starting.keys() >= in_group | {"lab/processes.py", "lab/mutate/judge.py"}
    ends = {path for path, text in starting.items() if "end_with_parent(" in text}
    assert starting.keys() == ends | in_group
