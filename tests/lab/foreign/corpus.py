"""What the sanitizer makes of kernels that this project did not write: two tables.

    python tests/lab/foreign/corpus.py           each broken kernel, and the same kernel mended
    python tests/lab/foreign/corpus.py FOLDER    other people's projects, unchanged

A broken kernel is a file with `broken_kernel` and `fixed_kernel`, and a driver of each; comments,
"finds: kind, tensor; ...", say what is to be found on their line. Those here are of kinds that were
found in public projects; those of `../sanitize/broken` are one for each check.
"""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
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


@dataclasses.dataclass
class Run:
    """One command of a project, under `gptwin sanitize --`."""

    project: str
    command: str
    ended: str  # "ok", or how else
    launches: int
    kernels: list[str]
    findings: list[dict]
    driver_lines: int
    output: str


def commands_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield projects and what is to be run in each."""
    listed = folder / "commands.txt"
    if listed.exists():
        for line in listed.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                project, _, command = line.partition(":")
                yield project.strip(), command.strip()
    else:
        for path in sorted(folder.iterdir()):
            if (path / "tests").is_dir():
                yield path.name, "python -m pytest -q -p no:cacheprovider tests"


def run_command(folder: Path, project: str, command: str, seconds: float = 600) -> Run:
    """Run a command where its project is, unchanged, and read what the sanitizer stored."""
    words = shlex.split(command)
    scripts = [folder / project / word for word in words if word.startswith("../")]
    with tempfile.TemporaryDirectory() as temporary:
        stored = Path(temporary) / "found.json"
        sanitizer = [sys.executable, "-m", "gptwin", "sanitize", "--json", str(stored), "--"]
        try:
            done = subprocess.run(
                [*sanitizer, *words], cwd=folder / project, capture_output=True, text=True,
                check=False, timeout=seconds,
            )  # fmt: skip
            ended, output = "ok" if done.returncode == 0 else "not ok", done.stdout + done.stderr
        except subprocess.TimeoutExpired as error:
            ended, output = "out of time", str(error.stdout)
        rows = json.loads(stored.read_text())["rows"] if stored.exists() else []
    return Run(
        project, command, ended,
        launches=sum(row["launches"] for row in rows),
        kernels=sorted({kernel for row in rows for kernel in row["kernels"]}),
        findings=[finding for row in rows for finding in row["findings"]],
        driver_lines=sum(len(script.read_text().splitlines()) for script in scripts),
        output=output,
    )  # fmt: skip


def print_projects(folder: Path) -> bool:
    """Print a row for each command, then the findings; return whether every command ended well."""
    runs = []
    print("| project | command | kernels | launches | findings | driver lines | ended |")
    print("|---|---|---|---|---|---|---|")
    for project, command in commands_of(folder):
        run = run_command(folder, project, command)
        print(
            f"| {project} | `{command}` | {len(run.kernels)} | {run.launches} | "
            f"{len(run.findings)} | {run.driver_lines} | {run.ended} |",
            flush=True,
        )
        runs.append(run)
    for run in runs:
        for found in run.findings:
            where = f"{found['kind']}, {found['kernel']}, {found['tensor']}, {found['where']}"
            print(f"{run.project}: {where} {found['rank']}")
        if run.ended != "ok" and not run.findings:
            print(f"{run.project}, {run.command}:\n{run.output[-1500:]}")
    launches, findings = sum(r.launches for r in runs), sum(len(r.findings) for r in runs)
    lines = sum(r.driver_lines for r in runs)
    print(f"\n{launches} launches, {findings} findings, {lines} driver lines")
    return all(run.ended == "ok" for run in runs)


if __name__ == "__main__":
    good = print_projects(Path(sys.argv[1]).resolve()) if sys.argv[1:] else print_broken()
    sys.exit(0 if good else 1)
