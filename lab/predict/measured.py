"""What a calibration on a GPU found, in place of what the table guesses.

`gptwin bench calibrate` writes measured.json beside this file, and machines.py reads it: a number
in it is "measured", with the device as its source. There is none until a GPU was at hand.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.checks import refuse
from ...records import write_whole

FILE = Path(__file__).with_name("measured.json")
# Numbers of the table that benchmarks/gpu/operations/calibration.py measures.
NAMES = ("clock", "hmma", "l2", "launch_seconds")


def read(path: Path = FILE) -> dict[tuple[str, str], tuple[float, str]]:
    """Return what is stored.

    Parameters
    ----------
    path : Path
        The file; it need not be there.

    Returns
    -------
    dict
        (name, architecture) to the number and its source.
    """
    if not path.is_file():
        return {}
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {
        (name, arch): (float(value), found["source"])
        for arch, found in stored.items()
        for name, value in found["numbers"].items()
    }


def write(arch: str, numbers: Mapping[str, float], source: str, path: Path = FILE) -> None:
    """Store numbers of one architecture, in place of those that were stored of it.

    Parameters
    ----------
    arch : str
        Such as "sm_90".
    numbers : dict
        By the table's names; what the table has not got is left out.
    source : str
        Which device, and when.
    path : Path

    Raises
    ------
    ValueError
        If there is none of the table's numbers, or one is not above 0.
    """
    kept = {name: numbers[name] for name in NAMES if name in numbers}
    if not kept or not all(value > 0 for value in kept.values()):
        refuse("numbers", f"some of {', '.join(NAMES)}, above 0", str(dict(numbers)),
               "a calibration that failed")  # fmt: skip
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    stored[arch] = {"source": source, "numbers": kept}
    write_whole(path, json.dumps(stored, indent=2) + "\n")
