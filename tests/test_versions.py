"""`make test-versions`: which releases its pairs are, and what it says of what it did not run."""

import configparser
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PINNED = re.compile(r"^(\w+)==(\d+)\.(\d+)\.\*$", re.MULTILINE)


@pytest.fixture
def versions(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    module = importlib.import_module("versions")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    return module


def pins(pair: str) -> dict[str, tuple[int, int]]:
    text = (ROOT / f".ci/requirements-{pair}.txt").read_text()
    return {name: (int(major), int(minor)) for name, major, minor in PINNED.findall(text)}


def bounds(name: str) -> list[tuple[int, int]]:
    """Return the lowest release that setup.cfg admits, and the first that it does not, if any."""
    config = configparser.RawConfigParser()
    config.read(ROOT / "setup.cfg")
    (line,) = re.findall(rf"^{name}(.*)$", config["options"]["install_requires"], re.MULTILINE)
    return [(int(a), int(b)) for a, b in re.findall(r"(\d+)\.(\d+)", line.partition(";")[0])]


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_setup_cfg_admits_from_the_oldest_to_the_newest_that_are_run(name):
    lowest, beyond = bounds(name)
    assert pins("oldest")[name] == lowest
    major, minor = pins("newest")[name]
    assert beyond == (major, minor + 1)


def test_numpy_begins_with_the_oldest_that_is_run():
    (lowest,) = bounds("numpy")  # no cap: NumPy keeps what it has said that it will
    assert pins("oldest")["numpy"] == lowest < pins("newest")["numpy"]


def test_the_readme_names_what_setup_cfg_admits(versions):
    text = " ".join((ROOT / "README.md").read_text().split())
    (oldest,) = versions.PAIRS["oldest"]
    assert f"Python {oldest} to 3." in text
    config = configparser.RawConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["options"]["python_requires"] == f">={oldest}"
    for title, name in (("PyTorch", "torch"), ("Triton", "triton")):
        lowest, newest = ("{}.{}".format(*pins(pair)[name]) for pair in ("oldest", "newest"))
        assert f"{title} ({lowest} to {newest}" in text


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_python_on_the_path_that_does_not_run_is_passed_over(versions, tmp_path, monkeypatch):
    """As pyenv's python3.13 does where another version is selected."""
    here = "{}.{}".format(*sys.version_info)
    executable(tmp_path / f"bin/python{here}", "exit 127")
    kept = executable(tmp_path / f"versions/{here}.9/bin/python", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert versions.find_python(here) == str(kept)
    assert versions.find_python("2.9") is None


def test_what_is_not_at_hand_is_named_and_fails_nothing(versions, monkeypatch):
    monkeypatch.setattr(versions, "find_python", lambda version: None)
    told, failed = versions.run_pair("newest", ("3.14", "3.13"), None)
    assert told == "NOT RUN: no Python 3.14, 3.13 on PATH or in pyenv" and not failed
    monkeypatch.setattr(versions, "find_python", lambda version: sys.executable)
    monkeypatch.setattr(versions, "make", lambda *_: False)
    told, failed = versions.run_pair("newest", ("3.14",), None)
    assert told.startswith("NOT RUN: pip cannot have these releases") and not failed


def test_a_check_that_fails_is_told_and_fails(versions, tmp_path, monkeypatch):
    executable(tmp_path / "oldest/bin/python", f'exec {sys.executable} "$@"')
    monkeypatch.setattr(versions, "find_python", lambda v: sys.executable if v == "b" else None)
    monkeypatch.setattr(versions, "make", lambda *_: True)
    checks = {"good": ("-c", ""), "bad": ("-c", "raise SystemExit(3)")}
    monkeypatch.setattr(versions, "CHECKS", checks)
    told, failed = versions.run_pair("oldest", ("a", "b"), None)
    assert re.match(r"Python 3\.\S+, numpy \d\S+, torch \d\S+, triton \d\S+", told)
    assert told.endswith(" (no Python a at hand): good passed, bad FAILED") and failed
