"""`gptwin verify` of one operation as a part: bounded, stored at once, and not done twice."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..timing import without_folders
from .operations.cells import Event


def verify(operation: str, dry_run: bool) -> Iterator[Event]:
    """Run `gptwin verify` and report its rows.

    Parameters
    ----------
    operation : str
    dry_run : bool
        With one random case.

    Yields
    ------
    dict
        An event with the rows as findings, and one with the part's status.
    """
    yield {"begin": [operation]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "verify.json"
        command = [sys.executable, "-m", "gptwin", "verify", operation, "--json", str(path)]
        command += ["--examples", "1"] if dry_run else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not path.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            yield {"status": "failed", "reason": without_folders(last)[:300]}
            return
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    yield {"finding": {"name": operation, "status": "measured", "reason": None, **document}}
    if done.returncode:
        yield {"status": "failed", "reason": f"gptwin verify {operation} disagrees"}
    else:
        yield {"status": "measured", "reason": None}
