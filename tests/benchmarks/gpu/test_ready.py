"""What would stop every part is said once, before any minute is counted."""

import subprocess
from types import SimpleNamespace

import pytest

from gptwin.benchmarks.gpu import driver
from gptwin.benchmarks.gpu.operations import ready as ready_module
from gptwin.benchmarks.gpu.operations.ready import LOOKS, ready
from gptwin.benchmarks.gpu.supervise import Outcome


def found(device="cpu"):
    return {e["finding"]["name"]: e["finding"] for e in ready(device) if "finding" in e}


def test_this_machine_runs_a_kernel_and_has_room():
    assert list(found()) == list(LOOKS)
    assert {one["status"] for one in found().values()} == {"measured"}


def test_each_lack_is_named_with_its_cause(monkeypatch):
    def no_compiler(x):
        raise subprocess.CalledProcessError(1, ["gcc", "main.c"])

    monkeypatch.setattr(ready_module, "softmax", no_compiler)
    monkeypatch.setattr(ready_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    monkeypatch.setattr(ready_module.torch.cuda, "mem_get_info", lambda: (2**30, 80 * 2**30))
    assert "python3-dev" in found()["a kernel"]["reason"]
    monkeypatch.setattr(ready_module, "softmax", lambda x: 1.1 * x)
    assert "is not PyTorch's" in found()["a kernel"]["reason"]
    assert "0.0 GiB are free" in found()["disk"]["reason"]
    assert ready_module._memory("cuda").startswith("1 of 80 GiB are free")


def test_nothing_begins_on_a_machine_that_is_not_ready(tmp_path, monkeypatch):
    run = driver.a_run(tmp_path / "x.jsonl", "none: a dry run", dry_run=True, limit_s=60.0)

    def process(run, name, peaks, done, on_event, compile_only):
        on_event({"finding": {"name": "disk", "status": "failed", "reason": "full"}})
        return Outcome(False, ["a kernel"], "killed by SIGSEGV: no message")

    monkeypatch.setattr(driver, "process", process)
    with pytest.raises(RuntimeError, match="got disk: full; a kernel: killed by SIGSEGV"):
        driver.expect_ready(run)
