"""What the sanitizer makes of kernels that this project did not write: two tables.

    python tests/lab/foreign/corpus.py          each broken kernel, and the same kernel mended

A broken kernel is a file with `broken_kernel` and `fixed_kernel`, and a driver of each; comments,
"finds: kind, tensor; ...", say what is to be found on their line. Those here are of kinds that were
found in public projects; those of `../sanitize/broken` are one for each check.
"""

import dataclasses
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported

from gptwin.kernels.common import launch  # noqa: E402, F401 (installs the interpreter)
from gptwin.lab.sanitize.drivers import DriverTarget, load  # noqa: E402
from gptwin.lab.sanitize.sanitize import Report, sanitize  # noqa: E402

BROKEN = sorted([*(HERE / "broken").glob("*.py"), *(HERE.parent / "sanitize/broken").glob("*.py")])
Finding = tuple[str, int, str]  # kind, line, tensor


def planted(path: Path) -> Iterator[Finding]:
    """Yield what the comments of a file say is to be found."""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        found = re.search(r"# finds( on the next line)?: (.*)", line)
        if found:
            for fault in found[2].split(";"):
                kind, _, tensor = fault.partition(",")
                yield kind.strip(), number + bool(found[1]), tensor.strip()


@dataclasses.dataclass
class Pair:
    """One broken kernel and the same kernel mended."""

    path: Path
    planted: set[Finding]
    broken: Report
    mended: Report
    seconds: float

    @property
    def found(self) -> set[Finding]:
        """What was found in the broken kernel."""
        return {
            (violation.kind, int(violation.where.rpartition(":")[2]), violation.tensor)
            for violation in self.broken.violations
        }


def try_both(path: Path) -> Pair:
    """Run a broken kernel and its mended form."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # block pointers are deprecated
        module = load(str(path))
        broken, mended = (
            sanitize(DriverTarget(module, f"drive_{which}_kernel")) for which in ("broken", "fixed")
        )
    return Pair(path, set(planted(path)), broken, mended, time.perf_counter() - started)


def print_broken() -> bool:
    """Print a row for each broken kernel; return whether all is as it should be."""
    pairs = []
    print("| broken kernel | to be found | found | in the mended form | seconds |")
    print("|---|---|---|---|---|")
    for path in BROKEN:
        pair = try_both(path)
        kinds = ", ".join(sorted({kind for kind, _, _ in pair.planted}))
        what = "all" if pair.found == pair.planted else f"{sorted(pair.found)}"
        clean = len(pair.mended.violations) or "nothing"
        print(f"| {path.stem} | {kinds} | {what} | {clean} | {pair.seconds:.2f} |", flush=True)
        pairs.append(pair)
    found = sum(pair.found == pair.planted for pair in pairs)
    false = sum(bool(pair.mended.violations) for pair in pairs)
    print(f"\n{len(pairs)} broken kernels: {found} found, {false} false alarms in mended ones")
    return found == len(pairs) and not false


if __name__ == "__main__":
    sys.exit(0 if print_broken() else 1)
