"""What the pages say is there: links, paths, commands, targets of make, and Python that runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from gptwin.cli import app

from .own_md import PAGE as OWN
from .own_md import write_project

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
README_LINES = 150  # what a stranger reads in three minutes

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w/.])(?:core|kernels|lab|rl|benchmarks|tests|docs|\.ci)/[\w./-]*")


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def shell(page: Path) -> list[str]:
    """List what a page tells the reader to type: code in a line, and blocks without a language."""
    spans = re.findall(r"`([^`]+)`", prose(page))
    blocks = FENCED.findall(page.read_text(encoding="utf-8"))
    typed = [line for language, block in blocks if not language for line in block.splitlines()]
    return [re.sub(r"\s+", " ", line.split("  #")[0]).strip() for line in (*spans, *typed)]


def heading_id(heading: str) -> str:
    """Return the name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    faults = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists():
            faults.append(link)
        elif heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            if heading not in map(heading_id, headings):
                faults.append(link)
    assert not faults


@each_page
def test_paths_exist(page: Path) -> None:
    paths = {path.rstrip(".") for path in PATH.findall(page.read_text(encoding="utf-8"))}
    assert not {path for path in paths if not (ROOT / path).exists()}


def test_the_tree_of_the_readme_exists() -> None:
    """A name at the edge is a folder of the root, every other one a folder of that."""
    (tree,) = (
        block
        for _, block in FENCED.findall((ROOT / "README.md").read_text(encoding="utf-8"))
        if block.startswith("reference.py")
    )
    top = ROOT
    for line in tree.splitlines():
        if re.match(r"\w+/", line):
            top = ROOT / line.split("/")[0]
            line = line.partition("/")[2]
        names = re.findall(r"(?<![\w/])(\w+)/", line)
        assert not [name for name in names if not (top / name).is_dir()], line
    rooms = [room for hall in ("core", "lab", "rl") for room in (ROOT / hall).glob("*/__init__.py")]
    assert not [room.parent.name for room in rooms if f"{room.parent.name}/" not in tree]


@each_page
def test_commands_parse(page: Path) -> None:
    """Every `gptwin ...` is one that the command line takes, its options included."""
    for line in shell(page):
        if not re.match("gptwin [a-z]", line):  # what it prints begins with its version
            continue
        command, arguments = typer.main.get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands"):
            assert arguments and arguments[0] in command.commands, line
            command = command.commands[arguments.pop(0)]
        if arguments:  # without any, the command itself is meant
            command.make_context(line, arguments)


@each_page
def test_targets_of_make_exist(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for line in shell(page):
        words = shlex.split(line) if line.startswith("make ") else []
        assert not [word for word in words[1:] if "=" not in word and word not in targets], line


@each_page
def test_no_page_speaks_of_what_founders_alone_have(page: Path) -> None:
    assert "shared/" not in page.read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_the_python_of_the_pages_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the README runs in test_wheel.py, that of own.md and native.md below."""
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        if page.name not in ("README.md", "own.md", "sanitize.md", "native.md"):
            for language, block in FENCED.findall(page.read_text(encoding="utf-8")):
                if language == "python":
                    exec(compile(block, page.name, "exec"), {"__name__": "typed"})


def test_the_program_of_native_md_runs(tmp_path: Path) -> None:
    pytest.importorskip("llvmlite")
    blocks = FENCED.findall((ROOT / "docs/native.md").read_text(encoding="utf-8"))
    (program,) = (block for language, block in blocks if language == "python")
    (tmp_path / "program.py").write_text(program)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "program.py"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)


def test_the_kernel_of_own_md_has_the_faults_that_it_shows(tmp_path: Path) -> None:
    """The rest of that project runs in tests/lab/own/test_project.py and test_wheel.py."""
    blocks = FENCED.findall(OWN.read_text(encoding="utf-8"))
    (shown,) = (block for _, block in blocks if block.startswith("rms_norm.py:"))
    write_project(tmp_path, mended=False)
    command = "sanitize -- python -m pytest -q test_rms_norm.py"
    assert f"gptwin {command}" in shell(OWN)
    done = subprocess.run(
        [sys.executable, "-m", "gptwin", *command.split()],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "PytestAssertRewriteWarning" not in done.stdout, "it says what it has itself imported"
    printed = [line.strip() for line in done.stdout.splitlines()]
    assert [line for line in shown.splitlines() if line.strip() not in printed] == []
