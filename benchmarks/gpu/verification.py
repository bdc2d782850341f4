"""`gptwin verify` of one operation as a part: bounded, stored at once, and not done twice.

Where time is short (plan.py), it runs the corners and one random case in every configuration, and
then each size that people run, through the gate of operations/gate.py.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...kernels.common import launch
from ...kernels.hopper.answers import why_not_here
from ...lab.store import read_rows
from ...lab.twins.attention.hopper import DTYPES
from ...lab.twins.find import find_twin
from ..inputs import draw_arguments
from ..timing import Finding, describe, without_folders
from .operations.cells import Event, default_dtypes, free
from .operations.gate import expect_right, find_truth, run
from .operations.results import HOPPER, INVARIANCE
from .operations.shapes import tiny_shapes


def verify(operation: str, dry_run: bool, quick_on: str | None = None) -> Iterator[Event]:
    """Run `gptwin verify` and report its rows.

    Parameters
    ----------
    operation : str
    dry_run : bool
        With one random case.
    quick_on : str, optional
        With one random case, and then the real sizes on this device.

    Yields
    ------
    dict
        An event with the rows as findings, and one with the part's status.
    """
    yield {"begin": [operation]}
    document = _verify(operation, *(("--examples", "1") if dry_run or quick_on else ()))
    if isinstance(document, str):
        yield {"status": "failed", "reason": document}
        return
    yield {"finding": {"name": operation, "status": "measured", "reason": None, **document}}
    wrong = [] if document["passed"] else [f"gptwin verify {operation} disagrees"]
    if quick_on:
        for found in real_sizes(operation, quick_on, dry_run):
            yield {"finding": found}
            wrong += [found["reason"]] if found["status"] == "failed" else []
    status = "failed" if wrong else "measured"
    yield {"status": status, "reason": "; ".join(wrong)[:300] or None}


def verify_hopper() -> Iterator[Event]:
    """Run `gptwin verify attention` in this process's environment, which asks for Hopper's kernels.

    Yields
    ------
    dict
        As of `verify`; the part has failed, too, if no case ran these kernels.
    """
    yield {"begin": [HOPPER]}
    if here := why_not_here():
        yield {
            "status": "skipped",
            "reason": f"a GPU's of capability 9.0 alone, and here is {here}",
        }
        return
    dtypes = [word for dtype in DTYPES for word in ("--dtype", dtype)]
    document = _verify("attention", *dtypes, "--examples", "1")
    if isinstance(document, str):
        yield {"status": "failed", "reason": document}
        return
    yield {"finding": {"name": HOPPER, "status": "measured", "reason": None, **document}}
    reason = document["on_hopper"]["unproved"]
    if not (reason or document["passed"]):
        reason = "gptwin verify attention disagrees"
    yield {"status": "failed" if reason else "measured", "reason": reason[:300] or None}


def _verify(*arguments: str) -> dict[str, Any] | str:
    """Run `gptwin verify` in a process of its own; return what it stored, or its last words."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "verify.json"
        done = subprocess.run(
            [sys.executable, "-m", "gptwin", "verify", *arguments, "--json", str(path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not path.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return without_folders(last)[:300]
        document: dict[str, Any] = read_rows(path)
        return document


def verify_batch_invariance(dry_run: bool) -> Iterator[Event]:
    """Run `gptwin verify --batch-invariant` in two dtypes, and report its rows.

    Parameters
    ----------
    dry_run : bool
        Of one operation.

    Yields
    ------
    dict
        An event with each row as a finding, and one with the part's status.
    """
    yield {"begin": [INVARIANCE]}
    which = ("kl",) if dry_run else ("--dtype", "bfloat16", "--dtype", "float32")
    document = _verify("--batch-invariant", *which)
    if isinstance(document, str):
        yield {"status": "failed", "reason": document}
        return
    for row in document["rows"]:
        status = "failed" if row["faults"] else "skipped" if row["reason"] else "measured"
        reason = row["reason"] or "; ".join(row["faults"])[:300] or None
        name = f"{row['name']} | {row['dtype']}"
        about = {"name": name, "status": status, "reason": reason}
        yield {"finding": about | {"compared": row["n_compared"]}}
    differ = any(row["faults"] for row in document["rows"])
    wrong = "gptwin verify --batch-invariant: rows differ" if differ else None
    yield {"status": "failed" if wrong else "measured", "reason": wrong}


def real_sizes(operation: str, device: str, tiny: bool) -> Iterator[Finding]:
    """Send the kernel through the gate at each named size of its entry.

    Parameters
    ----------
    operation : str
    device : str
    tiny : bool
        Sizes of a dry run.

    Yields
    ------
    dict
        A finding for each size: which share of its error budget was used up.
    """
    twin = find_twin(operation)
    for dtype in default_dtypes(twin):
        for name, case in (tiny_shapes(twin) if tiny else twin.shapes).items():
            finding = {"name": f"{name} | {dtype}", "status": "measured", "reason": None}
            try:
                arguments = draw_arguments(twin, case, dtype, device)
                truth = find_truth(arguments)
                with launch.backend("triton"):
                    share = expect_right(arguments, truth, run(arguments, twin.kernel))
                yield finding | {"truth": truth.how, "share": share}
            except Exception as error:  # whatever it raises is what is found
                yield finding | {"status": "failed", "reason": f"{name}: {describe(error)}"}
            try:
                free(device)
            except Exception as error:  # no kernel runs in this process any more
                left = {"name": f"behind {name} | {dtype}", "status": "failed"}
                yield left | {"reason": f"{name}: {describe(error)}"}
                return
