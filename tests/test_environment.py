"""`.ci/environment.py`: what every `make` does first."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_links_follow_the_folders_and_leave_what_python_keeps_there(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("environment", ROOT / ".ci/environment.py")
    assert spec is not None and spec.loader is not None
    environment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(environment)
    package = tmp_path / "gptwin"
    environment.link_parts(package)
    assert (package / "core").resolve() == ROOT / "core"
    (package / "__pycache__").mkdir()  # as soon as anything was imported
    (package / "gone").symlink_to(tmp_path / "a folder of another commit")
    (package / "core").unlink()
    environment.link_parts(package)
    assert (package / "core").exists() and (package / "__pycache__").is_dir()
    assert not (package / "gone").is_symlink()
