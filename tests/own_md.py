"""The project that docs/own.md has its reader write."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs/own.md"
BLOCK = re.compile(
    r"((?:[^\n]+\n)+)\n```(?:python|toml)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE
)
NAME = re.compile(r"`(\w+\.(?:py|toml))`")


def write_project(folder: Path, *, mended: bool) -> None:
    """Write the page's files: a block's name is the last one in the paragraph before it.

    Parameters
    ----------
    folder : Path
    mended : bool
        Whether a file that the page gives a second time is as it is there.
    """
    written = set()
    for paragraph, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        name = NAME.findall(paragraph)[-1]
        if mended or name not in written:
            (folder / name).write_text(block, encoding="utf-8")
        written.add(name)
    assert written == {
        "rms_norm.py", "test_rms_norm.py", "twins.py", "pyproject.toml", "test_numbers.py",
    }  # fmt: skip
