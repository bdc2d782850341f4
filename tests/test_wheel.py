"""An installed gptwin: built as a wheel, in an environment of its own, used from another folder.

The environment borrows every package of the one that runs the tests, but not the checkout.
"""

import configparser
import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from .own_md import write_project

ROOT = Path(__file__).resolve().parent.parent
LEAST_SETUPTOOLS = 77  # as pyproject.toml asks
# What a wheel is not made of. A build leaves traces where it works, so it works on a copy.
NO_PART = (".*", "__pycache__", "*.egg-info", "build", "results", "runs", "shared", "tests")
OWN = "PYTHONPATH", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER"
TINY = (
    "model.n_layer=1", "model.n_head=2", "model.d_model=16", "model.n_ctx=96",
    "model.vocab_size=300", "pretrain.steps=2", "pretrain.batch=2", "pretrain.time=16",
)  # fmt: skip


def call(arguments: list, folder: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=folder, env=environment | {"COLUMNS": "200"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def succeed(arguments: list, folder: Path) -> str:
    done = call(arguments, folder)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# Commands one after the other, in one process: what it imports takes longer than most of them.
TOGETHER = """
import contextlib, io, json, sys
from gptwin import cli

def run(words):
    sys.argv, status, said = ["gptwin", *words], 0, io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
    return status, said.getvalue()

print(json.dumps([run(words) for words in json.loads(sys.argv[1])]))
"""


def together(python: Path, commands: list[list[str]], folder: Path) -> list[tuple[int, str]]:
    """Run several commands of `gptwin`; return each one's exit code and what it printed."""
    said = succeed([python, "-c", TOGETHER, json.dumps(commands)], folder)
    return json.loads(said.splitlines()[-1])


def build(folder: Path) -> None:
    """Build the wheel, and an environment that has it and borrows the rest."""
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NO_PART))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps"]
    succeed([*pip, "wheel", *offline, "--no-build-isolation", "-w", ".", "./source"], folder)
    (wheel,) = folder.glob("*.whl")
    succeed([sys.executable, "-m", "venv", "--without-pip", "env"], folder)
    python = folder / "env/bin/python"
    succeed([*pip, "--python", python, "install", *offline, wheel], folder)
    (site_packages,) = (folder / "env/lib").glob("python*/site-packages")
    # A path in a .pth file brings a folder, not the .pth files in it: no checkout comes along.
    borrowed = [path for path in sys.path if path and not (Path(path) / "gptwin").exists()]
    (site_packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that holds the wheel and `env`; every worker of pytest-xdist uses one."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("no pip here, which builds the wheel")
    try:
        found = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        found = "0"
    if int(found.split(".")[0]) < LEAST_SETUPTOOLS:
        pytest.skip(f"setuptools {found} here: building needs {LEAST_SETUPTOOLS}")

    in_worker = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if in_worker else base) / "wheel"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            build(folder)
            (folder / "done").touch()
    return folder


@pytest.fixture
def gptwin(installed: Path) -> Path:
    """Return the installed command."""
    return installed / "env/bin/gptwin"


def test_the_wheel_holds_the_package_and_nothing_else(installed: Path) -> None:
    (wheel,) = installed.glob("*.whl")
    held = {
        name.removeprefix("gptwin/")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith("gptwin/")
    }
    config = configparser.RawConfigParser()
    config.read(ROOT / "setup.cfg")
    rooms = [ROOT.joinpath(*name.split(".")[1:]) for name in config["options"]["packages"].split()]
    expected = {str(path.relative_to(ROOT)) for room in rooms for path in room.glob("*.py")}
    data = ("lab/report/templates/*", "lab/study/static/*", "lab/*/*.toml", "docs/study/**/*.[mp]*")
    expected |= {str(path.relative_to(ROOT)) for found in data for path in ROOT.glob(found)}
    expected |= {"py.typed", "lab/trace/page.html"}
    assert held == expected


def test_import_brings_the_installed_package(installed: Path, tmp_path: Path) -> None:
    python = installed / "env/bin/python"
    where = succeed([python, "-c", "import gptwin; print(gptwin.reference.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed)


def test_figures_are_kept_below_the_working_folder(installed: Path, tmp_path: Path) -> None:
    code = "from gptwin.records import results_folder; print(results_folder('benchmarks/results'))"
    assert succeed([installed / "env/bin/python", "-c", code], tmp_path) == (
        "build/benchmarks/results\n"
    )


def test_verify_and_report(gptwin: Path, tmp_path: Path) -> None:
    """The report finds its templates, and none of the stored benchmarks of a checkout."""
    few = ("--dtype", "float32", "--examples", 1)
    said = succeed([gptwin, "verify", "softmax", *few, "--json", "found.json"], tmp_path)
    assert "all agree" in said
    said = succeed([gptwin, "report", "softmax", "--verification", "found.json"], tmp_path)
    assert "all agree" in said
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "softmax_forward_kernel" in page


def test_the_study_and_its_exercises(installed: Path, gptwin: Path, tmp_path: Path) -> None:
    pytest.importorskip("furo")
    commands = [
        ["study", "--out", "site"],
        ["exercise", "first_copy"],
        ["grade", "first_copy.py"],
        ["exercise", "first_copy", "--solution"],
    ]
    built, handed, graded, solved = together(installed / "env/bin/python", commands, tmp_path)
    assert [status for status, _ in (built, handed, graded, solved)] == [0, 0, 1, 0]
    assert "0 faults" in built[1]
    assert "hole 1 is not filled yet" in graded[1]
    (tmp_path / "first_copy.py").write_text(solved[1], encoding="utf-8")
    assert "passed" in succeed([gptwin, "grade", "first_copy.py"], tmp_path)


def test_train(gptwin: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "once upon a time there was a model"}\n' * 50)
    told = ("run.directory=run", "pretrain.data=texts.jsonl", *TINY)
    succeed([gptwin, "train", "pretrain", "--quiet", *told], tmp_path)
    assert list((tmp_path / "run/pretrain").iterdir())


def test_what_needs_a_checkout_says_so(gptwin: Path, tmp_path: Path) -> None:
    done = call([gptwin, "verify", "gelu", "--remember"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("gptwin: remember: expected a checkout")
    assert done.stderr.count("\n") == 1


def test_a_project_of_its_own_runs_its_tests(installed: Path, tmp_path: Path) -> None:
    """As docs/own.md says: the plugin comes with the package, and needs no variable."""
    write_project(tmp_path, mended=True)
    told = ("-q", "--gptwin-sarif", "found.sarif", "test_numbers.py")
    said = succeed([installed / "env/bin/python", "-m", "pytest", *told], tmp_path)
    assert "2 passed" in said
    assert "1 launches in 1 tests checked, 0 found" in said
    assert json.loads((tmp_path / "found.sarif").read_text())["runs"][0]["results"] == []


def test_the_python_of_the_readme_runs(installed: Path, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    (tmp_path / "typed.py").write_text("\n".join(blocks))
    succeed([installed / "env/bin/python", "typed.py"], tmp_path)
