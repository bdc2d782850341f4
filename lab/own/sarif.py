"""Findings as SARIF 2.1.0, the form in which code hosts take them and show them at their line.

Source: Static Analysis Results Interchange Format (SARIF) Version 2.1.0, OASIS Standard, 2020.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ...records import write_whole
from ..sanitize.violation import KINDS, Violation

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
DISAGREEMENT = "disagreement"
_MEANINGS = {kind: meaning for kind, (meaning, _) in KINDS.items()} | {
    DISAGREEMENT: "a kernel's result is beyond its error budget",
}


def finding(violation: Violation, test: str) -> dict[str, Any]:
    """Make plain values of a violation, so that it can go from process to process.

    Parameters
    ----------
    violation : Violation
    test : str
        That found it.

    Returns
    -------
    dict
        "kind", "where" ("file:line") and "text".
    """
    return {
        "kind": violation.kind, "where": violation.where, "text": f"{violation}\n    in {test}",
    }  # fmt: skip


def write_sarif(path: Path, findings: Sequence[dict[str, Any]], root: Path) -> None:
    """Store findings; those of one kind at one line once.

    Parameters
    ----------
    path : Path
    findings : sequence of dict
        As `finding` makes them.
    root : Path
        Of the project: files below it are named from there.

    Raises
    ------
    OSError
        If the system does not let it be written.
    """
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for one in findings:
        first.setdefault((one["kind"], one["where"]), one)
    kinds = sorted({kind for kind, _ in first})
    driver = {
        "name": "gptwin",
        "version": __version__,
        "rules": [
            {"id": _id(kind), "name": kind, "shortDescription": {"text": _MEANINGS[kind]}}
            for kind in kinds
        ],
    }
    results = [
        {
            "ruleId": _id(one["kind"]),
            "level": "error",
            "message": {"text": one["text"]},
            "locations": _locations(one["where"], root),
        }
        for one in first.values()
    ]
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    write_whole(path, json.dumps(document, indent=1) + "\n")


def _id(kind: str) -> str:
    return kind.replace(" ", "-")


def _locations(where: str, root: Path) -> list[dict[str, Any]]:
    file, _, line = where.rpartition(":")
    if not file:
        return []
    place = Path(file).resolve()
    within = place.is_relative_to(root.resolve())
    uri = place.relative_to(root.resolve()).as_posix() if within else place.as_uri()
    region = {"startLine": int(line)}
    return [{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}]
