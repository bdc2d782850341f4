"""Runs the plan of plan.py: bounded by the minutes of all commands, and by those of this one.

How many seconds are gone, and what became of each piece, is stored as the part "plan" before and
after each piece; so whatever ends a command, the next one knows what is left of the time.
"""

import dataclasses
import os
import time

from rich.console import Console

from ...core.checks import expect_positive
from .. import result_file
from . import driver
from .operations.results import PLAN
from .plan import (
    COMMAND_S,
    LEAST_S,
    PIECES,
    STARTING_S,
    Ended,
    Piece,
    Spent,
    make_plan,
    run_plan,
)


def run_within(
    minutes: float,
    *,
    dry_run: bool = False,
    out: str | None = None,
    limit_s: float = 60.0,
    workers: int | None = None,
    carried: bool = False,
    command_s: float = COMMAND_S,
    pieces: tuple[Piece, ...] = PIECES,
) -> int:
    """Measure what matters most, within some minutes of all commands together.

    Parameters
    ----------
    minutes : float
    dry_run, out, limit_s, workers
        As in `driver.bench`.
    carried : bool
        Whether kernels were compiled ahead.
    command_s : float
        The longest that this command may take.
    pieces : tuple of Piece
        What there is to measure.

    Returns
    -------
    int
        0; 1 if a piece failed or a verification disagreed; 3 if pieces and minutes are left.

    Raises
    ------
    ValueError
        If an argument makes no sense, or there is no GPU.
    """
    expect_positive("within", minutes)
    expect_positive("limit", limit_s)
    device = driver.device_name(dry_run)
    path = driver.results_path(out, device, dry_run)
    base = driver.a_run(path, device, dry_run=dry_run, limit_s=limit_s, workers=workers)
    base = dataclasses.replace(base, quick=True)
    console = Console(highlight=False)
    record = _record(base, minutes)
    ended = {found["name"]: found for found in record["findings"]}
    # What was cut goes on after everything else has had its turn.
    todo = [one for one in pieces if one.name not in ended]
    todo += [one for one in pieces if ended.get(one.name, {}).get("status") == "cut"]

    def store(seconds: float, now_ended: Ended | None) -> None:
        if now_ended and now_ended.status != "left out":
            ended[now_ended.name] = dataclasses.asdict(now_ended)
        record["findings"] = list(ended.values())
        record["settings"]["spent_s"] = seconds
        result_file.save(path, PLAN, record)

    spent = Spent(record["settings"]["spent_s"], store)
    if todo:
        driver.expect_ready(base)
    left = 60 * minutes - spent.seconds
    console.print(f"{left:.0f} s of {minutes:g} minutes are left", soft_wrap=True)

    def execute(piece: Piece, seconds: float) -> str:
        run = dataclasses.replace(
            base, only=piece.only, sizes=() if dry_run else piece.sizes,
            deadline=time.monotonic() + seconds,
        )  # fmt: skip
        parts = [part for part in piece.parts if not driver.is_complete(run, part)]
        for part in parts:
            driver.begin(run, part, again=False)
        unfinished = driver.measure(run, parts, console)
        return f"{seconds:.0f} s were up at {', '.join(unfinished)}" if unfinished else ""

    planned = make_plan(max(left, 0.0), todo, carried=carried, command_s=command_s)
    late = []
    for piece in run_plan(
        planned, total_s=60 * minutes, spent=spent, execute=execute, now=time.monotonic,
        command_s=command_s, started_s=max(STARTING_S, seconds_since_start()),
    ):  # fmt: skip
        note = f": {piece.reason}" if piece.reason else ""
        console.print(f"[bold]{piece.name}[/bold] {piece.status}, {piece.seconds:.0f} s{note}",
                      soft_wrap=True)  # fmt: skip
        late += [piece.name] if piece.status in ("left out", "cut") else []
    console.print(f"stored in {path}; {spent.seconds:.0f} s used", soft_wrap=True)
    if late and 60 * minutes - spent.seconds >= 2 * LEAST_S:
        console.print("the same command goes on", soft_wrap=True)
        return driver.OUT_OF_TIME
    stored = result_file.load(path)
    parts = [part for one in pieces for part in one.parts if part in stored]
    failed = any(found["status"] == "failed" for found in ended.values())
    return driver.FAILED if failed or any(driver.bad(stored[p]) for p in parts) else driver.DONE


def seconds_since_start() -> float:
    """Return how long ago this process was started, imports included; 0 where Linux is not."""
    try:
        with open("/proc/self/stat", encoding="ascii") as stat:
            ticks = int(stat.read().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return 0.0


def _record(run: driver.Run, minutes: float) -> result_file.Part:
    """Return what is stored of this commit's plan on this device, or a new record."""
    part = result_file.load(run.path).get(PLAN)
    if part is not None and driver.is_current(run, part):
        return part
    return {
        "status": "measured", "reason": None,
        "settings": {"dry_run": run.dry_run, "minutes": minutes, "spent_s": 0.0},
        "environment": result_file.gpu_environment(run.device), "findings": [],
    }  # fmt: skip
