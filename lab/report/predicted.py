"""What the report shows of `gptwin predict --json`: times beside the roofline, and the loops."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.checks import refuse
from .. import store
from ..predict.console import shares, told
from ..predict.picture import legend, picture
from ..predict.predict import Call


@dataclasses.dataclass(frozen=True)
class Launched:
    """The fastest configuration of a launch.

    Attributes
    ----------
    kernel, direction, arch, configuration, busy, stalls : str
    seconds : float
    svg : str
        A turn of its hottest loop; empty if it has none.
    legend : list of dict
        Its source lines.
    """

    kernel: str
    direction: str
    arch: str
    configuration: str
    busy: str
    stalls: str
    seconds: float
    svg: str
    legend: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is predicted of one twin.

    Attributes
    ----------
    calls : list of str
        Each direction's time beside the roofline.
    launches : list of Launched
    """

    calls: list[str]
    launches: list[Launched]


def read_predictions(path: Path) -> tuple[Mapping[str, Any], dict[str, Prediction]]:
    """Read what was stored, if it was.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        What it was made with; empty without the file.
    dict of str to Prediction
        By twin.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    if not path.exists():
        return {}, {}
    try:
        document = store.read_rows(path)
        rows = document["rows"]
        calls = [_call(row) for row in rows if row["kind"] == "call"]
        launches = [row for row in rows if row["kind"] == "launch" and row["seconds"]]
        found = {
            name: Prediction(
                [told(call) for call in calls if call.operation == name],
                _fastest([row for row in launches if row["operation"] == name]),
            )
            for name in dict.fromkeys(call.operation for call in calls)
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        refuse("results", "a file that gptwin predict --json wrote", f"another: {path}")
    return document, found


def _call(row: Mapping[str, Any]) -> Call:
    return Call(**{field.name: row[field.name] for field in dataclasses.fields(Call)})


def _fastest(rows: list[dict[str, Any]]) -> list[Launched]:
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = row["arch"], row["direction"], row["launch"]
        if key not in best or row["seconds"][0] < best[key]["seconds"][0]:
            best[key] = row
    return [
        Launched(
            row["kernel"], row["direction"], row["arch"], str(row["configuration"]),
            shares(row["busy"]), shares(row["stalls"]), row["seconds"][0],
            picture(row["timeline"]) if row["timeline"] else "",
            legend(row["timeline"]) if row["timeline"] else [],
        )
        for row in best.values()
    ]  # fmt: skip
