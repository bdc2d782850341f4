"""What `gptwin prove --safe` stored of each twin, for the report.

Like the benchmarks' files it is read as a file: what was proved takes minutes to prove again.
"""

import dataclasses
from pathlib import Path

from ...core.checks import refuse
from .. import store


@dataclasses.dataclass(frozen=True)
class Safety:
    """What is proved of a twin's kernels at every size.

    Attributes
    ----------
    proved, accesses : int
        Loads, stores and atomics: proved in bounds, and all.
    left : list of str
        What is not proved, kernel by kernel.
    """

    proved: int
    accesses: int
    left: list[str]

    @property
    def share(self) -> float:
        """The part of the accesses that is proved."""
        return self.proved / self.accesses if self.accesses else 0.0


def read_safety(path: Path) -> dict[str, Safety]:
    """Read what `gptwin prove --safe --json` stored.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to Safety
        By twin; empty if there is no such file.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    if not path.exists():
        return {}
    found: dict[str, Safety] = {}
    try:
        for row in store.read_rows(path)["rows"]:
            if row["proof"] != "safe":
                continue
            known = found.get(row["operation"], Safety(0, 0, []))
            proved, accesses = row["bounds"]
            left = [f"{row['kernel']}: {text}" for text in row["not_proved"]]
            found[row["operation"]] = Safety(
                known.proved + proved, known.accesses + accesses, known.left + left
            )
    except (KeyError, TypeError, ValueError):
        refuse("results", "a file that gptwin prove --safe --json wrote", f"another: {path}")
    return found
