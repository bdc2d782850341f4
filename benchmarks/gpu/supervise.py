"""Watches over the process that measures: it may crash, run out of memory, or hang in a compiler.

The process appends a line of JSON for each event to a file:

    {"begin": [names]}     from here on these cells are at stake, and the time runs anew
    {"finding": {...}}     one of them is found
    {"end": true}          all are

If it dies, or nothing comes for `limit_s`, those at stake have failed, and another process goes on
with the rest. A file and no pipe: a compiler's own processes would hold the pipe open.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..timing import without_folders

POLL_S = 0.05
CUT_OFF = "cut off"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes
    ----------
    ended : bool
        It did all that it should.
    at_stake : list of str
        Cells that it was at when it died or was ended.
    reason : str
        Why it did not end by itself.
    out_of_time : bool
        There was no more time for the whole run: nobody's fault.
    """

    ended: bool
    at_stake: list[str]
    reason: str = ""
    out_of_time: bool = False


def supervise(
    job: Mapping[str, Any],
    on_event: Callable[[dict[str, Any]], None],
    *,
    environment: Mapping[str, str],
    limit_s: float,
    deadline: float,
    stopped: threading.Event | None = None,
    command: tuple[str, ...] = (sys.executable, "-m", "gptwin", "bench", "job"),
) -> Outcome:
    """Run a job in a process of its own.

    Parameters
    ----------
    job : dict
        Ready for JSON; the process gets it with the name of the events' file as "progress", and
        this process's id as "parent".
    on_event : callable
        Called with each event but the end.
    environment : dict
        Of the process.
    limit_s : float
        The longest that nothing may come.
    deadline : float
        By time.monotonic(): when it is ended in any case.
    stopped : threading.Event, optional
        Once it is set, too.
    command : tuple of str
        To which the job is appended.

    Returns
    -------
    Outcome
    """
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "events.jsonl"
        progress.touch()
        with (Path(folder) / "messages").open("w+") as messages:
            child = subprocess.Popen(
                (*command, json.dumps({**job, "progress": str(progress), "parent": os.getpid()})),
                env=dict(environment), stdout=messages, stderr=messages, start_new_session=True,
            )  # fmt: skip
            try:
                outcome = _follow(child, progress, on_event, limit_s, deadline, stopped)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            if outcome.ended or outcome.reason:
                return outcome
            messages.seek(0)
            last = ([line for line in messages if line.strip()] or ["no message"])[-1].strip()
            code = child.returncode
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            return dataclasses.replace(outcome, reason=f"{how}: {without_folders(last)}"[:300])


def _follow(
    child: "subprocess.Popen[bytes]",
    progress: Path,
    on_event: Callable[[dict[str, Any]], None],
    limit_s: float,
    deadline: float,
    stopped: threading.Event | None,
) -> Outcome:
    """Hand on events until the process ends, or must be ended."""
    at_stake: list[str] = []
    heard = time.monotonic()
    with progress.open() as lines:
        rest = ""
        while True:
            over = child.poll() is not None  # asked before reading: nothing is missed
            rest += lines.read()
            *whole, rest = rest.split("\n")
            for line in whole:
                event = json.loads(line)
                heard = time.monotonic()
                if event.get("end"):
                    return Outcome(True, [])
                at_stake = event.get("begin", at_stake)
                if "finding" in event:
                    found = event["finding"]["name"]
                    at_stake = [name for name in at_stake if name != found]
                on_event(event)
            now = time.monotonic()
            if over:
                return Outcome(False, at_stake)
            if now > deadline or (stopped is not None and stopped.is_set()):
                return Outcome(False, at_stake, "out of time", out_of_time=True)
            if now - heard > limit_s:
                return Outcome(False, at_stake, f"{CUT_OFF}: nothing for {limit_s:.0f} s")
            time.sleep(POLL_S)
