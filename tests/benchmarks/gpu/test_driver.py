"""Parts in processes of their own: what is stored, what is not done twice, who dies, who hangs."""

import json
import math
import os
import subprocess
import sys
import threading
import time

import pytest
from typer.testing import CliRunner

from gptwin import records
from gptwin.benchmarks import result_file
from gptwin.benchmarks.gpu import driver
from gptwin.benchmarks.gpu import supervise as supervise_module
from gptwin.benchmarks.gpu.job import line_of
from gptwin.benchmarks.gpu.supervise import supervise
from gptwin.cli import app


def invoke(*arguments):
    return CliRunner().invoke(app, ["bench", "gpu", *map(str, arguments)])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dry.jsonl"


def test_the_command_measures_in_processes_and_goes_on_where_it_ended(path, monkeypatch):
    command = ("gelu", "--dry-run", "--provider", "gptwin", "--out", path)
    result = invoke(*command, "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "the figures mean nothing" in " ".join(result.output.split())
    parts = result_file.load(path)
    assert set(parts) == {"gelu/bfloat16", "roofline"}
    part = parts["gelu/bfloat16"]
    assert part["status"] == "measured" and part["settings"]["dry_run"]
    assert part["settings"]["peaks"].keys() >= {"copy", "bfloat16", "tf32", "datasheet"}
    assert {"device", "driver", "cuda", "torch", "triton", "commit"} <= set(part["environment"])
    assert all(found["status"] == "measured" for found in part["findings"])

    def no_process(*_):
        raise AssertionError("a process was started")

    monkeypatch.setattr(driver, "process", no_process)
    assert invoke(*command).exit_code == 0  # nothing is left
    monkeypatch.setattr(records, "commit", lambda: "another")
    assert isinstance(invoke(*command).exception, AssertionError)


EVENTS = """
import json, os, signal, sys, time
job = json.loads(sys.argv[1])
out = open(job["progress"], "a")
def say(**event):
    out.write(json.dumps(event) + "\\n"); out.flush()
def finding(name):
    return {"name": name, "status": "measured", "reason": None, "value": None, "unit": "seconds"}
def cell(name, do=lambda: None):
    if name not in job["done"]:
        say(begin=[name]); do(); say(finding=finding(name))
"""


class Clock:
    """Time passes only while b is at stake: a process may take as long to start as it likes."""

    def __init__(self, speed):
        self.now, self.speed, self.runs = 0.0, speed, False

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        time.sleep(seconds)
        self.now += seconds * self.speed * self.runs


def follow(path, monkeypatch, code, limit_s=30.0, left_s=60.0, speed=1):
    """Let a made-up process measure a part."""
    clock = Clock(speed)
    command = (sys.executable, "-c", EVENTS + code)

    def supervised(job, on_event, **options):
        def hear(event):
            clock.runs = event.get("begin") == ["s | forward | b"]
            on_event(event)

        clock.runs = False
        return supervise(job, hear, command=command, **options)

    monkeypatch.setattr(driver, "supervise", supervised)
    for module in (driver, supervise_module):
        monkeypatch.setattr(module, "time", clock)
    run = driver.Run(path, True, (), limit_s, clock.monotonic() + left_s, 0, "none: a dry run")
    driver.begin(run, "gelu/bfloat16", again=False)
    driver.one_part(run, "gelu/bfloat16", None, driver.Console(quiet=True))
    part = result_file.load(path)["gelu/bfloat16"]
    return part, {found["name"]: found for found in part["findings"]}


CRASH = """
cell("s | forward | a")
cell("s | forward | b", lambda: os.kill(os.getpid(), signal.SIGSEGV))
cell("s | forward | c")
say(end=True)
"""


def test_a_provider_that_kills_the_process_fails_alone(path, monkeypatch):
    part, found = follow(path, monkeypatch, CRASH)
    assert part["status"] == "measured"
    assert [found[f"s | forward | {who}"]["status"] for who in "abc"] == [
        "measured", "failed", "measured",
    ]  # fmt: skip
    died = found["s | forward | b"]
    assert died["reason"].startswith("killed by SIGSEGV") and died["provider"] == "b"


def test_a_provider_that_hangs_is_cut_off_and_the_rest_is_measured(path, monkeypatch):
    code = CRASH.replace("os.kill(os.getpid(), signal.SIGSEGV)", "time.sleep(600)")
    part, found = follow(path, monkeypatch, code, speed=1000)
    assert part["status"] == "measured"
    assert found["s | forward | b"]["reason"] == "cut off: nothing for 30 s"
    assert found["s | forward | c"]["status"] == "measured"
    assert driver.given_up(found) == ["b"]  # and is not waited for again at other sizes


def test_a_process_that_dies_of_what_it_found_costs_the_others_nothing(path, monkeypatch):
    """As after a kernel that leaves CUDA broken: it is reported, and nothing more runs there."""
    code = """
cell("s | forward | a")
if not job["done"]:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
cell("s | forward | b")
say(end=True)
"""
    part, found = follow(path, monkeypatch, code)
    assert part["status"] == "measured" and set(found) == {"s | forward | a", "s | forward | b"}


def test_a_figure_that_is_no_number_fails_and_the_part_is_stored():
    """A clock of the GPU may stand still; a result file has no word for infinity."""
    found = {"name": "s | forward | a", "status": "measured", "value": {"median": math.inf}}
    written = json.loads(line_of({"finding": found}))["finding"]
    assert written["status"] == "failed" and written["value"] is None
    assert written["provider"] == "a"
    assert json.loads(line_of({"begin": ["a"]})) == {"begin": ["a"]}


def test_who_is_interrupted_ends_the_processes_of_other_threads():
    stopped = threading.Event()
    stopped.set()
    outcome = supervise(
        {}, print, environment=os.environ, limit_s=60.0, deadline=math.inf, stopped=stopped,
        command=(sys.executable, "-c", "import time; time.sleep(600)"),
    )  # fmt: skip
    assert outcome.out_of_time


ORPHAN = """
import os, subprocess, sys, time
child = "from gptwin.lab.processes import end_with_parent"
child += f"; end_with_parent({os.getpid()})"
child += "; print('watches', flush=True); import time; time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
time.sleep(600)
"""


def test_a_process_ends_with_who_started_it():
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "watches\n"
    parent.kill()  # it can end nobody
    assert parent.stdout.read() == ""  # the child had it open, too
    parent.wait()


def test_a_run_without_time_keeps_what_it_has_and_goes_on_later(path, monkeypatch):
    code = CRASH.replace("os.kill(os.getpid(), signal.SIGSEGV)", "time.sleep(600)")
    part, found = follow(path, monkeypatch, code, limit_s=90.0, speed=1000)
    assert part["status"] == "running" and list(found) == ["s | forward | a"]
    part, found = follow(path, monkeypatch, CRASH)
    assert part["status"] == "measured" and len(found) == 3


def test_a_process_that_dies_before_it_begins_fails_the_part(path, monkeypatch):
    part, found = follow(path, monkeypatch, "raise MemoryError('too much in /opt/x/y')")
    assert (part["status"], found) == ("failed", {})
    assert part["reason"] == "ended with 1: MemoryError: too much in y"


def test_the_parts_that_goals_are_about_come_first():
    parts = driver.parts_of([], [])
    assert parts[0] == "attention/bfloat16" and "adamw/float32" in parts
    assert parts[-3:] == ["training", "generation", "ppo"]
    assert driver.parts_of(["verify", "ppo"], [])[:2] == ["ppo", "verify/softmax"]
    assert driver.parts_of(["kl", "softmax"], ["float16"]) == ["softmax/float16"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "operation: expected one of softmax"),
        (["kl", "--dry-run", "--dtype", "float16"], "dtype: expected one that an operation takes"),
        (
            ["kl", "--dry-run", "--provider", "Liger"],
            "provider: expected one of gptwin, eager, tor",
        ),
        (["kl", "--dry-run", "--out", result_file.RESULTS / "x.jsonl"], "another directory"),
        (["--dry-run", "--out", "no/such/file.jsonl"], "out: expected a .jsonl file"),
        (["kl", "--dry-run", "--out", "no/such/file.jsonl"], "out: expected a .jsonl file"),
        (["kl", "--budget", "0"], "budget"),
        (["--plan", "0"], "plan: expected a finite number above 0"),
        (["--plan", "nan"], "plan: expected a finite number above 0"),
        (["kl", "--plan", "15"], "OP: expected none beside --plan"),
        (["--within", "15", "--dtype", "float32"], "--dtype: expected none beside --within"),
        (["--within", "15", "--plan", "15"], "--within: expected none beside --plan"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if any("x.jsonl" in str(argument) for argument in arguments):
        monkeypatch.setattr(result_file, "RESULTS", tmp_path)
        arguments = [*arguments[:-1], tmp_path / "x.jsonl"]
    result = invoke(*arguments)
    assert isinstance(result.exception, ValueError) and message in str(result.exception)


def test_without_a_gpu_the_error_says_what_can_be_done(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = invoke("kl")
    assert "gptwin bench cpu" in str(result.exception) and "gpu --dry-run" in str(result.exception)
