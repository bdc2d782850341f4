"""Mutants that change no result, whatever the input: who lists them, and why.

Those of this project stand in equivalent.toml. Beside a user's kernel file, such as `rms_norm.py`,
a file `rms_norm.equivalent.toml` lists that file's:

    [[equivalent]]
    reason = "The lanes beyond the row are not stored."
    mutants = ['rms_norm.py rms_norm_kernel | other changed | … -> … | 0']

by the names that `gptwin mutate` prints. They are judged all the same: one that a check notices is
a fault of the list.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.checks import refuse
from ..twins.find import is_own
from ..twins.twin import Twin
from .install import files_of
from .mutants import Mutant, derive

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EQUIVALENT_FILE = Path(__file__).parent / "equivalent.toml"
SUFFIX = ".equivalent.toml"


def load_equivalent(file: Path = EQUIVALENT_FILE) -> dict[str, str]:
    """Read a list.

    Parameters
    ----------
    file : Path

    Returns
    -------
    dict
        Name to reason.

    Raises
    ------
    ValueError
        If it is no such list.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        refuse(str(file), "TOML", str(error))
    entries = document.pop("equivalent", [])
    if document or not isinstance(entries, list) or not all(map(_is_entry, entries)):
        refuse(
            str(file),
            "[[equivalent]] tables alone, each with a reason and a list of mutants",
            ", ".join(document) or repr(entries),
        )
    return {m: " ".join(e["reason"].split()) for e in entries for m in e["mutants"]}


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("reason"), str)
        and isinstance(entry.get("mutants"), list)
        and all(isinstance(name, str) for name in entry["mutants"])
    )


def reasons_of(twin: Twin, mutants: Sequence[Mutant]) -> dict[str, str]:
    """Say which of a twin's mutants are listed as equivalent, and why.

    Parameters
    ----------
    twin : Twin
    mutants : sequence of Mutant

    Returns
    -------
    dict
        Identity to reason.

    Raises
    ------
    ValueError
        If a user's list cannot be read, or names what is no mutant of its file.
    """
    if not is_own(twin.name):
        listed = load_equivalent()
        return {m.identity: listed[m.name] for m in mutants if m.name in listed}
    reasons: dict[str, str] = {}
    for file in files_of(twin):
        beside = file.with_suffix(SUFFIX)
        listed = load_equivalent(beside) if beside.is_file() else {}
        unknown = listed.keys() - {m.name for m in derive(file, str(file))}
        if unknown:
            refuse(
                str(beside),
                f"names of mutants of {file.name}, as gptwin mutate prints them",
                ", ".join(map(repr, sorted(unknown))),
                "the line has changed since: judge it anew",
            )
        of_file = [m for m in mutants if m.file == str(file) and m.name in listed]
        reasons |= {m.identity: listed[m.name] for m in of_file}
    return reasons
