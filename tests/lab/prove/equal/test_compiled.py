"""Proofs need kernels that are not interpreted, as they are here: they run in another process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import breaks, study

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed"
)


def run(*command: str, expected: int = 0, **variables: str) -> str:
    """Run a Python module where kernels are not interpreted; return what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_"))}
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment | variables, capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert ran.returncode == expected, ran.stdout[-6000:] + ran.stderr[-2000:]
    return ran.stdout + ran.stderr


def test_proofs() -> None:
    printed = run(
        "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(HERE / "compiled"),
        GPTWIN_TESTS_ON="native",
    )  # fmt: skip
    assert " passed" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("softmaxx",), "operation: expected one of softmax, layer_norm"),
        (("nowhere.py::kernel",), "target: expected a Python file that exists"),
        (("--equal", "--seeds", "0"), "seeds: expected at least 1, got 0"),
        (("gae", "--json", "/nowhere/at/all"), "json: expected a file in a directory that exists"),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    printed = run("gptwin", "prove", *arguments, expected=2)
    assert printed.startswith(f"gptwin: {said}") and len(printed.splitlines()) == 1


def test_the_table_of_broken_kernels_says_what_was_found() -> None:
    rows = study.load()
    assert list(rows) == [f"{one.twin}: {one.what}" for one in breaks.BREAKS]
    for one, row in zip(breaks.BREAKS, rows.values(), strict=True):
        assert row["changes"] == one.changes == row["equal"].startswith("differs: ")
    text = (ROOT / "docs/prove.md").read_text(encoding="utf-8")
    assert study.table() in text
    seen = sum(row["changes"] and row["verify"] == "fails" for row in rows.values())
    n_changed = sum(one.changes for one in breaks.BREAKS)
    assert f"Of the {n_changed} that change the function" in text and f"sees {seen}." in text
