"""What the instruments store: documents with rows, and what made them."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.checks import refuse
from ..records import PACKAGE, json_lines, provenance, read_json_lines, write_whole

LINES = ".jsonl"


def expect_writable(argument: str, path: str) -> Path:
    """Refuse a file that could not be written, before the work that it is to hold.

    Parameters
    ----------
    argument : str
        What the user called it.
    path : str
        The file, which need not exist.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If it is a directory, or is in none that exists and may be written to.
    """
    wanted = Path(path)
    folder = wanted.resolve().parent
    if not folder.is_dir():
        refuse(argument, "a file in a directory that exists", path)
    if wanted.is_dir():
        refuse(argument, "a file", f"the directory {path}")
    if not os.access(folder, os.W_OK):
        refuse(argument, "a file in a directory that you may write to", path)
    return wanted


def write_rows(path: Path, head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Store what an instrument found, whole or not at all.

    Parameters
    ----------
    path : Path
        A name that ends in .jsonl gets a line for the head and one for each row; any other
        gets one JSON object, with the rows under "rows".
    head, rows : dict, sequence of dict
        What holds for all rows, such as `made_with()`, and the rows; ready for JSON, but for
        objects that `str` describes well enough.

    Raises
    ------
    OSError
        If the system does not let it be written.
    """
    if path.suffix == LINES:
        text = json_lines([head, *rows])
    else:
        text = json.dumps({**head, "rows": rows}, indent=1, default=str) + "\n"
    write_whole(path, text)


def read_rows(path: Path) -> Any:
    """Read what `write_rows` wrote, with the rows under "rows" in either case.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or is no JSON.
    """
    if path.suffix != LINES:
        return json.loads(path.read_text(encoding="utf-8"))
    lines = read_json_lines(path)
    return {**lines[0], "rows": lines[1:]} if lines else {}


def made_with() -> dict[str, Any]:
    """Say what this process is made of: versions, and under "sources" the twins' fingerprints."""
    return provenance("numpy", "torch", "triton") | {"sources": fingerprints()}


def fingerprints() -> dict[str, str]:
    """Tell the sources of the twins from earlier and later ones.

    Returns
    -------
    dict of str to str
        File, such as "kernels/layers/softmax.py", to a hash of what it says.
    """
    files = (path for folder in ("core", "kernels") for path in (PACKAGE / folder).glob("**/*.py"))
    return {
        path.relative_to(PACKAGE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for path in sorted(files)
    }
