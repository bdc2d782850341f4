"""What a reader must open: the files and lines that a file of gptwin imports, directly or not.

    python tests/test_reading.py rl/stages/ppo.py core/rlhf/ppo.py kernels/attention/attention.py

Imports within gptwin count, wherever in a file they stand; an `__init__.py` is not counted, nor is
what stands in for a kernel where somebody asks for it: who reads the kernel need not open that.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAND_INS = "kernels/hopper"


def closure(file: Path, root: Path = ROOT) -> set[Path]:
    """Return a file and all that it imports of the package, relative to `root`."""
    found, waiting = set(), [file]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported(path, root)
    return found


def imported(file: Path, root: Path) -> Iterator[Path]:
    """Yield the files that a file imports by relative names."""
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = file.parents[node.level - 1] / (node.module or "").replace(".", "/")
            # What stands after `import` may be a file of the folder, or a name within the file.
            named = [folder / f"{alias.name}.py" for alias in node.names]
            named += [folder.with_suffix(".py")] if folder.name else []
            read = (path for path in named if not path.is_relative_to(STAND_INS))
            yield from (path for path in read if (root / path).is_file())


def count(files: set[Path], root: Path = ROOT) -> int:
    """Count the lines of files."""
    return sum(len((root / file).read_text(encoding="utf-8").splitlines()) for file in files)


@pytest.mark.parametrize(
    ("file", "files", "lines"),
    [
        ("core/rlhf/ppo.py", 12, 1_600),  # the whole of PPO in NumPy, its pieces with it
        ("core/attention/attention.py", 7, 1_100),
        ("kernels/attention/attention.py", 17, 3_378),
    ],
)
def test_little_must_be_opened(file, files, lines):
    opened = closure(Path(file))
    assert len(opened) <= files, sorted(map(str, opened))
    assert count(opened) <= lines


def test_the_page_of_ppo_is_a_page():
    assert count({Path("rl/stages/ppo.py")}) <= 280
    assert count({Path("core/rlhf/ppo.py")}) <= 200


def test_imports_are_followed_by_file_and_by_name(tmp_path):
    for path, text in {
        "a/x.py": "from .y import f\nfrom ..b import z\ndef g():\n    from ..gone import w\n",
        "a/y.py": "import os\n",
        "b/z.py": "from .. import top\n",
        "top.py": "\n\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    opened = closure(Path("a/x.py"), tmp_path)
    assert {str(path) for path in opened} == {"a/x.py", "a/y.py", "b/z.py", "top.py"}
    assert count(opened, tmp_path) == 4 + 1 + 1 + 2


if __name__ == "__main__":
    for name in sys.argv[1:]:
        opened = closure(Path(name))
        print(f"{name}: {len(opened)} files, {count(opened):,} lines")
