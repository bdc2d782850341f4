"""`.ci/environment.py`: what every `make` does first."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def environment() -> Any:
    spec = importlib.util.spec_from_file_location("environment", ROOT / ".ci/environment.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_machine_with_pytorch_is_asked_for_what_it_lacks_alone(
    environment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network, the rest cannot be had: not what developers use, and no pip of its own."""
    asked = []
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "RECORD", tmp_path / "gptwin.json")
    monkeypatch.setattr(environment, "unmet", lambda _: ["tomli-w>=1 (not found)"])
    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == "ensurepip" else 1)
    monkeypatch.setattr(environment, "command", lambda words, _: asked.append(words))
    for step in ("link_checkout", "borrow_packages"):
        monkeypatch.setattr(environment, step, lambda: None)
    environment.write_record(None)
    environment.build(None)
    venv, pip = asked
    assert "--without-pip" in venv
    assert pip[:5] == [sys.executable, "-m", "pip", "--python", str(tmp_path / "bin/python")]
    assert pip[-1] == "tomli-w>=1" and pip[-2].startswith("--disable")


def test_links_follow_the_folders_and_leave_what_python_keeps_there(
    environment: Any, tmp_path: Path
) -> None:
    package = tmp_path / "gptwin"
    environment.link_parts(package)
    assert (package / "core").resolve() == ROOT / "core"
    (package / "__pycache__").mkdir()  # as soon as anything was imported
    (package / "gone").symlink_to(tmp_path / "a folder of another commit")
    (package / "core").unlink()
    environment.link_parts(package)
    assert (package / "core").exists() and (package / "__pycache__").is_dir()
    assert not (package / "gone").is_symlink()
