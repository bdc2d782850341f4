"""Test gptwin on the oldest and on the newest Python, NumPy, PyTorch and Triton that it admits.

    python3 .ci/versions.py [oldest] [newest] [--torch-index URL] [--python 3.12]

The releases of a pair stand in `.ci/requirements-<pair>.txt`. It gets an environment of its own,
`build/versions/<pair>`, which is kept until its requirements change. What runs there is what a new
release breaks first: the tests of Triton's interpreter as gptwin mends it, and every kernel against
its reference on a few cases.

A Python that is not at hand, or a release that pip cannot have, is named and skipped. The last
lines say what was run and what was not; the exit code is 1 if something that was run failed.

Only the standard library is imported: the Python that runs this needs no packages.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import environment

FOLDER = environment.ROOT / "build/versions"
# Pythons that a pair can be tested on, the most wanted one first.
PAIRS = {"oldest": ("3.10",), "newest": ("3.14", "3.13", "3.12")}
CHECKS = {
    "interpreter": ("-m", "pytest", "-q", "tests/kernels/interpreter"),
    "twins": (
        "-m", "gptwin", "verify", "--dtype", "float32", "--examples", "5", "--on", "interpreter",
    ),
}  # fmt: skip
RELEASES = """
import platform
from importlib import metadata
found = {"Python": platform.python_version()}
found |= {name: metadata.version(name) for name in ("numpy", "torch", "triton")}
print(", ".join(f"{name} {version}" for name, version in found.items()))
"""


class Outcome(NamedTuple):
    """What became of a pair, in words, and whether a check failed."""

    told: str
    failed: bool = False


def main() -> None:
    """Read the command line, run the pairs, and say what was run."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("pairs", nargs="*", metavar="PAIR", help="oldest, newest; default: both")
    arguments.add_argument("--torch-index", metavar="URL", help="a further index, for PyTorch")
    arguments.add_argument("--python", metavar="3.x", help="this Python instead of the pair's own")
    chosen = arguments.parse_args()
    if unknown := set(chosen.pairs) - set(PAIRS):
        arguments.error(f"expected {' or '.join(PAIRS)}, got {', '.join(sorted(unknown))}")

    outcomes = {}
    for pair in chosen.pairs or PAIRS:
        wanted = (chosen.python,) if chosen.python else PAIRS[pair]
        outcomes[pair] = run_pair(pair, wanted, chosen.torch_index)
    for pair, outcome in outcomes.items():
        say(f"{pair}: {outcome.told}")
    sys.exit(any(outcome.failed for outcome in outcomes.values()))


def run_pair(pair: str, wanted: tuple[str, ...], torch_index: str | None) -> Outcome:
    """Make a pair's environment and run every check in it.

    Parameters
    ----------
    pair : str
        A key of `PAIRS`.
    wanted : tuple of str
        Versions of Python such as "3.13", the most wanted first.
    torch_index : str, optional
        A package index that pip looks at beside its own.
    """
    absent = []
    for version in wanted:
        if python := find_python(version):
            break
        absent.append(version)
        say(f"{pair}: Python {version} is not at hand")
    else:
        return Outcome(f"NOT RUN: no Python {', '.join(absent)} on PATH or in pyenv")

    folder = FOLDER / pair
    if not make(folder, python, requirements(pair), torch_index):
        return Outcome("NOT RUN: pip cannot have these releases for this Python; it says why above")
    inside = folder / "bin/python"
    releases = subprocess.run([inside, "-c", RELEASES], capture_output=True, text=True, check=True)
    told = releases.stdout.strip()
    say(f"{pair}: {told}")

    failed = [
        name
        for name, check in CHECKS.items()
        if subprocess.run([inside, *check], cwd=environment.ROOT, check=False).returncode
    ]
    verdicts = ", ".join(f"{name} {'FAILED' if name in failed else 'passed'}" for name in CHECKS)
    skipped = f" (no Python {', '.join(absent)} at hand)" if absent else ""
    return Outcome(f"{told}{skipped}: {verdicts}", bool(failed))


def find_python(version: str) -> str | None:
    """Return an executable of a version that can make environments, None if there is none.

    Parameters
    ----------
    version : str
        Such as "3.13".
    """
    # pyenv's own python3.13 on PATH is a script, which fails for a version that is not selected.
    pyenv = os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv"
    kept = sorted(glob.glob(f"{pyenv}/versions/{version}.*/bin/python"))
    question = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for place in filter(None, [shutil.which(f"python{version}"), *kept]):
        asked = [place, "-c", question]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        if answer.strip() == version:
            return place
    return None


def requirements(pair: str) -> list[str]:
    """Return a pair's releases and, after them, what setup.cfg asks for.

    Parameters
    ----------
    pair : str
        A key of `PAIRS`.
    """
    lines = (environment.ROOT / f".ci/requirements-{pair}.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    return pinned + environment.required("test")


def make(folder: Path, python: str, wanted: list[str], torch_index: str | None) -> bool:
    """Make an environment unless it is there; say whether pip could have all that it needs.

    Parameters
    ----------
    folder : Path
        Where.
    python : str
        What to make it with.
    wanted : list of str
        Requirements.
    torch_index : str, optional
        A package index that pip looks at beside its own.
    """
    record = folder / "made-from"
    made_from = hashlib.sha256("\0".join([python, *wanted]).encode()).hexdigest()
    if not record.exists() or record.read_text() != made_from:
        shutil.rmtree(folder, ignore_errors=True)
        say(f"{folder} is made with {python}; pip fetches PyTorch: this takes minutes")
        subprocess.run([python, "-m", "venv", folder], check=True)
        index = ["--extra-index-url", torch_index] if torch_index else []
        pip = [folder / "bin/python", "-m", "pip", "install", "--quiet"]
        options = ["--disable-pip-version-check", "--no-compile", *index]
        if subprocess.run([*pip, *options, *wanted], check=False).returncode:
            shutil.rmtree(folder)
            return False
        record.write_text(made_from)
    environment.link_parts(folder / "checkout/gptwin")
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "gptwin.pth").write_text(f"{folder}/checkout\n")
    return True


def say(message: str) -> None:
    """Print one line of progress."""
    print(f"versions: {message}", flush=True)


if __name__ == "__main__":
    main()
