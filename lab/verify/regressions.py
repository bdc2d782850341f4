"""Cases that failed once: kept in tests/regressions.json, and replayed before all others.

The file is {twin: [{"dtype": ..., "case": ..., "note": ...}]}; the note says how the case came in.
`gptwin verify` and tests/test_twins.py replay what is there; `gptwin verify --remember` and a
failing test of a twin add to it. It is committed like any test. An installed gptwin has no such
file and remembers nothing.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.checks import refuse
from ...records import write_whole
from ..twins.catalogue import TWINS
from ..twins.twin import Case
from .check import case_inputs

FILE = Path(__file__).resolve().parents[2] / "tests" / "regressions.json"
Entry = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Failure:
    """A case that failed once.

    Attributes
    ----------
    dtype : str
        In which it did.
    case : Case
        With its `"configuration"`, unless that is 0.
    note : str
        When and how.
    """

    dtype: str
    case: Case
    note: str = ""


def failures(operation: str, file: Path | None = None) -> list[Failure]:
    """Recall what failed of a twin.

    Parameters
    ----------
    operation : str
        The twin's name.
    file : Path, optional
        Where it is kept; `FILE` unless given. None is there: nothing failed.

    Returns
    -------
    list of Failure
        In the order of the file.

    Raises
    ------
    ValueError
        If the file is not as described above, naming the place.
    """
    return _read(file or FILE).get(operation, [])


def remember(operation: str, failure: Failure, file: Path | None = None) -> bool:
    """Add a failure to the file, unless it is there.

    Parameters
    ----------
    operation : str
        The twin's name.
    failure : Failure
    file : Path, optional
        As in `failures`.

    Returns
    -------
    bool
        Whether it is new.

    Raises
    ------
    ValueError
        If the file is malformed, or there is no folder for it.
    """
    expect_place(file)
    file = file or FILE
    with _alone(file.parent):
        known = _read(file)
        own = known.setdefault(operation, [])
        if any((f.dtype, f.case) == (failure.dtype, failure.case) for f in own):
            return False
        own.append(failure)
        _write(file, known)
    return True


def expect_place(file: Path | None = None) -> None:
    """Refuse to remember where there is no folder for the file.

    Parameters
    ----------
    file : Path, optional
        As in `failures`.

    Raises
    ------
    ValueError
        If gptwin is installed, say.
    """
    folder = (file or FILE).parent
    if not folder.is_dir():
        refuse(
            "remember", "a checkout of gptwin, with its tests/", f"no folder {folder}",
            "gptwin is installed, not a checkout",
        )  # fmt: skip


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing: tests run in several."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(file: Path) -> dict[str, list[Failure]]:
    if not file.is_file():
        return {}
    cause = "edited by hand, or left by a merge"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        refuse(str(file), "JSON", str(error), cause)
    if not isinstance(document, dict):
        refuse(str(file), "an object {twin: [failure, ...]}", type(document).__name__, cause)
    known: dict[str, list[Failure]] = {}
    for operation, entries in document.items():
        if operation not in TWINS:
            refuse(f"{file}: {operation}", f"one of {', '.join(TWINS)}", "no twin", "renamed")
        if not isinstance(entries, list):
            refuse(f"{file}: {operation}", "a list", json.dumps(entries), cause)
        known[operation] = [
            _failure(f"{file}: {operation}[{i}]", operation, entry)
            for i, entry in enumerate(entries)
        ]
    return known


def _failure(place: str, operation: str, entry: Any) -> Failure:
    twin = TWINS[operation]
    if not isinstance(entry, dict) or entry.keys() - {"note"} != {"dtype", "case"}:
        refuse(place, '{"dtype": ..., "case": ..., "note": ...}', json.dumps(entry))
    dtype, case, note = entry["dtype"], entry["case"], entry.get("note", "")
    if dtype not in twin.dtypes:
        refuse(f"{place}.dtype", f"one of {', '.join(twin.dtypes)}", json.dumps(dtype))
    if not isinstance(note, str):
        refuse(f"{place}.note", "words", json.dumps(note))
    try:
        case_inputs(twin, case, None)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        example = json.dumps(twin.corners[0])
        refuse(
            f"{place}.case", f"such as {example}", f"{json.dumps(case)} ({error!r})",
            "the twin's cases have changed since",
        )  # fmt: skip
    return Failure(dtype, case, note)


def _write(file: Path, known: dict[str, list[Failure]]) -> None:
    """Replace the file in one step: a failure on each line, so that it merges and reads well."""
    blocks = []
    for operation in sorted(known):
        lines = (f"  {json.dumps(dataclasses.asdict(failure))}" for failure in known[operation])
        blocks.append(f" {json.dumps(operation)}: [\n" + ",\n".join(lines) + "\n ]")
    write_whole(file, "{\n" + ",\n".join(blocks) + "\n}\n")
