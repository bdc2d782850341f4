"""The suite has teeth: kernels broken on purpose, each of which `verify` and the tests must catch.

Each mutant (mutants/) is one replacement in one file of a copy of the package. Both judges run on
the copy as a user would run them, and both must fail; on the copy without a replacement both must
pass.
"""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gptwin

ROOT = Path(gptwin.__file__).resolve().parent

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS, FIRST = {}, []
for file in sorted((Path(__file__).parent / "by_hand").glob("*.py")):
    found = runpy.run_path(str(file))["MUTANTS"]
    MUTANTS |= found
    FIRST.append(next(iter(found)))
# Two judges on every mutant take longer than CI may: the first of each file there, all of them in
# `make mutants`.
CHOSEN = MUTANTS if os.environ.get("GPTWIN_MUTANTS") == "all" else FIRST


@pytest.fixture
def copy(tmp_path):
    target = tmp_path / "gptwin"
    ignored = shutil.ignore_patterns(".*", "build", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, target, ignore=ignored)
    return target


def judge(copy, operation, dtype):
    """Run verify and the tests on a copy; return their exit codes and what verify printed."""
    environment = {**os.environ, "PYTHONPATH": str(copy.parent), "COLUMNS": "200"}
    environment.pop("PYTEST_ADDOPTS", None)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    verify = run("gptwin", "verify", operation, "--dtype", dtype, "--examples", "1")
    chosen = f"tests/test_twins.py::test_kernel_agrees_with_reference[{operation}-{dtype}]"
    tests = run("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", chosen)
    return verify, tests


@pytest.mark.parametrize("name", CHOSEN)
def test_mutant_is_caught(name, copy):
    operation, dtype, file, old, new = MUTANTS[name]
    source = (copy / file).read_text()
    assert source.count(old) == 1, f"{file} has changed: write this mutant anew"
    (copy / file).write_text(source.replace(old, new))
    verify, tests = judge(copy, operation, dtype)
    assert verify.returncode == 1, verify.stdout + verify.stderr
    assert "smallest failing case" in verify.stdout
    assert "reproduce: gptwin verify" in verify.stdout
    assert tests.returncode == 1, tests.stdout
    assert "1 failed" in tests.stdout


def test_the_copy_itself_passes(copy):
    verify, tests = judge(copy, "softmax", "float32")
    assert verify.returncode == 0, verify.stdout + verify.stderr
    assert tests.returncode == 0, tests.stdout
