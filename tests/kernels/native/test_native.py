"""Kernels compiled for the CPU. This process interprets kernels, so the tests run in another."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import strangers
import torch
from broken_compiler import MUTANTS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed"
)
TESTS = Path(__file__).resolve().parents[1]
# Files of the interpreter's tests that are about the language; its conftest skips what is not.
LANGUAGE = ("arithmetic", "blocks", "casts", "language", "libdevice", "loops", "memory", "values")


def run(*command, folder=TESTS.parents[1], **variables):
    """Run a Python module where kernels are not interpreted; return what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_"))}
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment | variables,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    return ran.stdout


def test_the_language_means_what_it_means_in_the_interpreter():
    language = [TESTS / f"interpreter/test_{what}.py" for what in LANGUAGE]
    printed = run(
        "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
        *map(str, [TESTS / "native/compiled", *language]), GPTWIN_TESTS_ON="native",
    )  # fmt: skip
    assert " passed" in printed


def test_twins_agree_with_their_reference():
    printed = run(
        "gptwin", "verify", "softmax", "reward_loss", "--dtype", "float32",
        "--examples", "2", "--on", "native",
    )  # fmt: skip
    assert "compiled for it" in printed and "all agree" in printed


def test_a_stranger_s_test_suite_runs_unchanged():
    printed = run(
        "gptwin", "run", "--", "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c",
        os.devnull, "tests",
        folder=TESTS.parent / "lab/foreign/project",
    )  # fmt: skip
    assert " passed" in printed and "failed" not in printed


def test_kernels_of_others_give_what_they_give_in_the_interpreter(tmp_path):
    command = [sys.executable, str(strangers.__file__), str(tmp_path / "found.pt")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRITON_")}
    subprocess.run(command, env=environment, check=True)
    found, expected = torch.load(tmp_path / "found.pt"), strangers.results()
    assert found.keys() == expected.keys() and len(found) >= 70
    for name, tensors in expected.items():
        for compiled, interpreted in zip(found[name], tensors, strict=True):
            torch.testing.assert_close(compiled, interpreted, equal_nan=True, msg=name)


# A few in CI, all of them in `make mutants`: each takes a second or two.
IN_CI = list(MUTANTS)[:: 1 if os.environ.get("GPTWIN_MUTANTS") == "all" else 5]


def test_a_compiler_that_is_broken_is_noticed():
    assert len(MUTANTS) >= 15
    printed = run("broken_compiler", *IN_CI, folder=Path(__file__).parent)
    assert json.loads(printed.splitlines()[-1]) == dict.fromkeys(IN_CI, "noticed")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("verify", "softmax", "--on", "gpu"), "--on: expected interpreter or native"),
        (("verify", "mine:RMS", "--on", "native"), "interpreter for a twin of your own, mine:RMS"),
        (("run", "--", "ls"), "command: expected python or pytest"),
        (("run", "--", "python", "none.py"), "command: expected a script that exists"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(command, message):
    ran = subprocess.run(
        [sys.executable, "-m", "gptwin", *command], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2 and message in ran.stderr and len(ran.stderr.splitlines()) == 1
