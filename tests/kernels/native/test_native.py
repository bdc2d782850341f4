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
from broken_compiler import MUTANTS, break_of

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
        timeout=300,  # a compiled loop that never ends cannot be interrupted from within
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
        "gptwin", "verify", "softmax", "reward_loss", "--dtype", "float32", "--examples", "2",
    )  # fmt: skip
    assert "compiled for it" in printed and "all agree" in printed
    assert "The interpreter ran 2 of these cases as well; 0 of them" in printed


MINE = """
import gptwin, torch, triton, triton.language as tl

@triton.jit
def double_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2 * tl.load(x_ptr + at, mask=at < n), mask=at < n)

def double(x):
    y = torch.empty(x.shape, device="cuda")
    double_kernel[(1,)](x.contiguous(), y, x.numel(), BLOCK=16)
    return y

cases = [{"x": {"normal": [5]}}]
TWIN = gptwin.twin(double, lambda x: x + x, cases=cases, dtypes=["float32"])

def test_double():
    assert double(torch.ones(5, device="cuda")).is_cuda
    assert gptwin.check(TWIN, examples=1).kernels == ("double_kernel #0",)
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("gptwin", "verify", "mine:TWIN", "--examples", "1", "--on", "native"),
         "1 of these cases as well; 1 of them leave no rounding open"),
        (("pytest", "-q", "-p", "no:gptwin", "-p", "gptwin.lab.own.plugin", "-p",
          "no:cacheprovider", "-c", os.devnull, "--gptwin-native", "mine.py"), "1 passed"),
    ],
    ids=("verify", "check and plugin"),
)  # fmt: skip
def test_a_kernel_of_your_own_is_compiled_though_it_asks_for_a_gpu(command, said, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    assert said in run(*command, folder=tmp_path)


def test_mutants_are_told_from_the_kernel(tmp_path):
    # A cache of its own: what another checkout has compiled names the lines of its files.
    printed = run(
        "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "judge_tells",
        str(TESTS.parent / "lab/mutate/test_mutate.py"), GPTWIN_TESTS_ON="native",
        TRITON_CACHE_DIR=str(tmp_path),
    )  # fmt: skip
    assert "1 passed" in printed


def test_accesses_are_checked_unless_speed_is_asked_for():
    said = "from gptwin.kernels.native import compiler; print(compiler.settings)"
    printed = run("gptwin", "run", "--unchecked", "--", "python", "-c", said)
    assert "checked=False" in printed


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


def test_each_mutant_changes_the_compiler_as_it_stands():
    assert not [name for name in MUTANTS if break_of(name).is_stale], "write them anew"


def test_a_compiler_that_is_broken_is_noticed():
    assert len(MUTANTS) >= 15
    printed = run("broken_compiler", *IN_CI, folder=Path(__file__).parent)
    assert json.loads(printed.splitlines()[-1]) == dict.fromkeys(IN_CI, "noticed")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("verify", "softmax", "--on", "gpu"), "--on: expected interpreter or native"),
        (("run", "--", "ls"), "command: expected python or pytest"),
        (("run", "--", "python", "none.py"), "command: expected a script that exists"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(command, message):
    ran = subprocess.run(
        [sys.executable, "-m", "gptwin", *command], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2 and message in ran.stderr and len(ran.stderr.splitlines()) == 1
