"""Kernels compiled for the CPU. This process interprets kernels, so the tests run in another."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed"
)
TESTS = Path(__file__).resolve().parents[1]


def run(*command, **variables):
    """Run a Python module where kernels are not interpreted; return what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_"))}
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment | variables,
        capture_output=True,
        text=True,
        cwd=TESTS.parents[1],
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    return ran.stdout


@pytest.mark.parametrize(
    "what", ["native/compiled", "interpreter/test_arithmetic.py", "interpreter/test_blocks.py"]
)
def test_the_language_means_what_it_means_in_the_interpreter(what):
    printed = run(
        "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(TESTS / what),
        GPTWIN_TESTS_ON="native",
    )  # fmt: skip
    assert " passed" in printed


def test_twins_agree_with_their_reference():
    printed = run(
        "gptwin", "verify", "softmax", "linear", "reward_loss", "--dtype", "float32",
        "--examples", "2", "--on", "native",
    )  # fmt: skip
    assert "compiled for it" in printed and "all agree" in printed
