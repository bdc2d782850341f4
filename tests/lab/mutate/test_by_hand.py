"""The suite has teeth: kernels broken by hand, each of which the twin's checks must notice.

A mutant (by_hand/) is one replacement that `gptwin mutate` does not derive: a fault of thought, one
or two for each operation. `gptwin mutate` judges the thousands of small ones.
"""

import ast
import dataclasses
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gptwin
from gptwin.lab.mutate import judge as mutation_judge
from gptwin.lab.mutate.mutants import Mutant, is_kernel, source_of
from gptwin.lab.twins.catalogue import TWINS

ROOT = Path(gptwin.__file__).resolve().parent

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS, FIRST = {}, []
for file in sorted((Path(__file__).parent / "by_hand").glob("*.py")):
    found = runpy.run_path(str(file))["MUTANTS"]
    MUTANTS |= found
    FIRST.append(next(iter(found)))
# The first of each file in CI, all of them in `make mutants`. Attention's cases alone take a minute
# and a half; `gptwin mutate` and the tests of the judge break it, too.
IN_CI = [name for name in FIRST if MUTANTS[name][0] != "attention"]
CHOSEN = MUTANTS if os.environ.get("GPTWIN_MUTANTS") == "all" else IN_CI


def function_around(source, line):
    """The function or method that a line lies in: its name, and whether Triton compiles it."""
    around = [
        (node, parent)
        for parent in ast.walk(ast.parse(source))
        for node in ast.iter_child_nodes(parent)
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= node.end_lineno
    ]
    node, parent = around[0]  # the outermost: code within it is compiled with it
    name = f"{parent.name}.{node.name}" if isinstance(parent, ast.ClassDef) else node.name
    return name, is_kernel(node)


def mutant_of(file, old, new):
    source = source_of(mutation_judge.ROOT / file)
    assert source.count(old) == 1, f"{file} has changed: write this mutant anew"
    first = source[: source.index(old)].count("\n") + 1
    start = len(source[: source.index(old)].encode())
    name, in_kernel = function_around(source, first)
    return Mutant(
        file, name, "by hand", old, new, 0, (first, first + old.strip("\n").count("\n")), in_kernel,
        ((start, start + len(old.encode()), new.encode()),),
    )  # fmt: skip


@pytest.mark.parametrize("name", CHOSEN)
def test_mutant_is_caught(name):
    operation, dtype, file, old, new = MUTANTS[name]
    twin = dataclasses.replace(TWINS[operation], dtypes=(dtype,), extremes=())
    trials = mutation_judge.make_trials(twin, 1, 0)
    ((_, verdict),) = mutation_judge.judge(twin, [mutant_of(file, old, new)], trials, processes=1)
    assert verdict.killed, verdict
    # Wrong results, or an input that is no longer used; not a kernel that does not even run.
    assert "beyond" in verdict.why or "not to have been used" in verdict.why, verdict


def test_a_user_sees_a_mutant_by_both_commands(tmp_path):
    """Verify and the tests run on a copy of the package that has the fault, as anyone would."""
    copy = tmp_path / "gptwin"
    ignored = shutil.ignore_patterns(".*", "build", "__pycache__", "*.egg-info", "runs")
    shutil.copytree(ROOT, copy, ignore=ignored)
    operation, dtype, file, old, new = MUTANTS["online softmax without its rescale"]
    source = (copy / file).read_text()
    (copy / file).write_text(source.replace(old, new))
    environment = {**os.environ, "PYTHONPATH": str(copy.parent), "COLUMNS": "200"}
    environment.pop("PYTEST_ADDOPTS", None)

    def run(*arguments):
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, check=False
        )

    verify = run("gptwin", "verify", operation, "--dtype", dtype, "--examples", "1")
    assert verify.returncode == 1, verify.stdout + verify.stderr
    assert "smallest failing case" in verify.stdout
    assert "reproduce: gptwin verify" in verify.stdout
    chosen = f"tests/test_twins.py::test_kernel_agrees_with_reference[{operation}-{dtype}]"
    tests = run("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", chosen)
    assert tests.returncode == 1, tests.stdout
    assert "1 failed" in tests.stdout
