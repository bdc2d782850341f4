"""A run's log: every statistic of every step, a JSON object a line.

A checkpoint notes how far the log had come and the checksum of it up to there (`Log.mark`). Going
on from that checkpoint, the lines after the mark are forgotten, since their steps will be done
again the same way, and the lines before it must be as they were.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ...core.checks import refuse
from ...records import flush, naming, write_whole

LOG = "log.jsonl"


class Log:
    """The log of a run that is writing it.

    Parameters
    ----------
    folder : pathlib.Path
        Of the stage's run.
    mark : dict, optional
        From `mark`, in the checkpoint that the run goes on from; without, the log begins anew.

    Raises
    ------
    ValueError
        If the log is not what it was at the mark: names the line. Nothing is deleted then.
    """

    def __init__(self, folder: Path, mark: dict[str, Any] | None = None) -> None:
        self.path = folder / LOG
        kept = b"" if mark is None else _kept(self.path, mark)
        write_whole(self.path, kept)
        self.lines, self.size = kept.count(b"\n"), len(kept)
        self.digest = hashlib.sha256(kept)

    def add(self, record: dict[str, Any]) -> None:
        """Write a line."""
        line = (json.dumps(record) + "\n").encode()
        with naming(self.path), self.path.open("ab", buffering=0) as file:
            _write_all(file, line)
        self.lines, self.size = self.lines + 1, self.size + len(line)
        self.digest.update(line)

    def mark(self) -> dict[str, Any]:
        """Put the log on the disk, and say how far it has come."""
        with naming(self.path):
            flush(self.path)
        return {"lines": self.lines, "bytes": self.size, "sha256": self.digest.hexdigest()}


def _write_all(file: BinaryIO, line: bytes) -> None:
    """Write a line by as few calls as there can be: one, unless the disk becomes full."""
    while line:
        line = line[file.write(line) :]


def _kept(path: Path, mark: dict[str, Any]) -> bytes:
    """Return the log up to the mark."""
    if not path.exists():
        if mark["lines"]:
            print(
                f"Warning: {path} is not there: it begins anew, without the {mark['lines']} lines "
                "of the steps before",
                file=sys.stderr,
            )
        return b""
    kept = path.read_bytes()[: mark["bytes"]]
    if hashlib.sha256(kept).hexdigest() != mark["sha256"]:
        _refuse_damaged(path, kept, mark["lines"])
    return kept


def _refuse_damaged(path: Path, kept: bytes, lines: int) -> NoReturn:
    """Name the line that is damaged, where that can be told."""
    way_out = "a damaged disk, or an editor: to go on without this log, move it away"
    for number, line in enumerate(kept.split(b"\n")[:-1], start=1):
        _parsed(path, number, line, way_out)
    n = kept.count(b"\n")
    got = f"only {n} of them" if n < lines else "other numbers"
    refuse(str(path), f"its first {lines} lines as the checkpoint knows them", got, way_out)


def read_log(folder: Path) -> list[dict[str, float]]:
    """Read a run's log.

    Parameters
    ----------
    folder : pathlib.Path
        Of the stage's run.

    Returns
    -------
    list of dict
        One a step; step 0, if it is there, is the evaluation before the first. A last line that a
        kill cut short, which has no line end, is left out. Without a log, none.

    Raises
    ------
    ValueError
        If another line is damaged: names the file and the line.
    """
    path = folder / LOG
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [_parsed(path, number, line) for number, line in enumerate(lines, start=1)]


def _parsed(path: Path, number: int, line: bytes, cause: str = "a damaged disk") -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        refuse(f"{path}:{number}", "a JSON object", str(error), cause)
    if not isinstance(record, dict) or "step" not in record:
        refuse(f"{path}:{number}", "a step's statistics", repr(line[:60]), cause)
    return record
