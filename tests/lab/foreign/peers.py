"""What other people's sanitizers make of the same broken kernels: a table and its data.

    python tests/lab/foreign/peers.py --store FILE.jsonl NAME=COMMAND ...

COMMAND is what the peer is started with, before a script and its arguments, in whatever environment
it has: `ttsem="…/python -m ttsem.sanitize"`, `tilelens=…/tile-sanitizer`,
`triton-viz=…/triton-sanitizer`, `gptwin="…/gptwin sanitize -- python"`, `interpreter=…/python`.
Each runs peers_program.py: every broken kernel, and the same kernel mended.
"""

import argparse
import dataclasses
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import corpus

from gptwin.lab.store import made_with, write_rows

HERE = Path(__file__).resolve().parent
PROGRAM = HERE / "peers_program.py"

# How a peer says that it found something. What else ends a program is no finding.
REPORTS = {
    "ttsem": r"^(oob_write|oob_read|poison|race): ",
    "tilelens": r"ILLEGAL MEMORY ACCESS|Out-Of-Bounds Access Detected",
    "triton-viz": r"ILLEGAL MEMORY ACCESS|Out-Of-Bounds Access Detected",
    "gptwin": r": \d+ findings?\b",
    "interpreter": r"(?!)",  # never: it looks for nothing
}

# Asked of the peer's own Python.
VERSIONS = """
import importlib.metadata as m, json, platform, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return ""
print(json.dumps({n: version(n) for n in (sys.argv[1], "torch", "triton")}
                 | {"python": platform.python_version()}))
"""


@dataclasses.dataclass(frozen=True)
class Peer:
    """A sanitizer, and how it is started."""

    name: str
    command: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """Read NAME=COMMAND."""
        name, _, command = text.partition("=")
        if name not in REPORTS or not command:
            raise SystemExit(f"{text}: expected NAME=COMMAND, NAME one of {', '.join(REPORTS)}")
        return cls(name, tuple(shlex.split(command)))

    def versions(self) -> dict[str, str]:
        """Ask the Python beside its command what is installed there."""
        python = Path(self.command[0]).parent / "python"
        asked = [str(python), "-c", VERSIONS, self.name]
        return json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)


def outcome_of(peer: str, ended: str, said: str) -> str:
    """Say how a driver ended: reported, NaN, silent, failed (else than by a report) or killed."""
    return "reported" if re.search(REPORTS[peer], said, re.MULTILINE) else ended


def run_peer(peer: Peer, paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Run all drivers under a peer; a row for each kernel."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes.jsonl"
        words = [*peer.command, PROGRAM, outcomes, *paths]
        environment = os.environ | {
            # A peer that compiles does without the interpreter; all others live in it.
            "TRITON_INTERPRET": "0" if peer.name == "ttsem" else "1",
            "TRITON_CACHE_DIR": f"{folder}/cache",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [str(word) for word in words], cwd=folder, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if not outcomes.exists():
            raise SystemExit(f"{peer.name} did not run the program:\n{done.stdout}{done.stderr}")
        ended = [json.loads(line) for line in outcomes.read_text().splitlines()]
    rows = []
    for broken, mended in zip(ended[::2], ended[1::2], strict=True):
        both = {"broken": broken, "mended": mended}
        row = {"peer": peer.name, "kernel": broken["kernel"]}
        row |= {n: outcome_of(peer.name, e["ended"], e["said"]) for n, e in both.items()}
        row |= {f"{n}_said": _last_line(e["said"]) for n, e in both.items()}
        rows.append(row | {"cpu_seconds": [e["cpu_seconds"] for e in both.values()]})
    return rows


def _last_line(said: str) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[\d;]*m", "", said).splitlines()]
    return next((line for line in reversed(lines) if line), "")[:120]


def table(rows: Sequence[dict[str, Any]], versions: dict[str, dict[str, str]]) -> str:
    """Print a column for each peer."""
    lines = [
        "| | reported | NaN in its results | false alarms | could not be run, broken / mended "
        "| CPU seconds a kernel, median (most) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for peer in versions:
        mine = [row for row in rows if row["peer"] == peer]
        broken, mended = (Counter(row[which] for row in mine) for which in ("broken", "mended"))
        not_run = [outcomes["failed"] + outcomes["killed"] for outcomes in (broken, mended)]
        seconds = [s for row in mine for s in row["cpu_seconds"] if s is not None]
        version = versions[peer].get(peer) or ""
        lines.append(
            f"| {peer} {version} | {broken['reported']} of {len(mine)} | {broken['NaN']} "
            f"| {mended['reported'] + mended['NaN']} | {not_run[0]} / {not_run[1]} "
            f"| {statistics.median(seconds):.2f} ({max(seconds):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the peers that are named, print the table, and store what it was made of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="+", metavar="NAME=COMMAND", type=Peer.parse)
    parser.add_argument("--store", type=Path, metavar="FILE.jsonl")
    given = parser.parse_args()
    rows, versions = [], {}
    for peer in given.peers:
        versions[peer.name] = peer.versions()
        rows += run_peer(peer, corpus.BROKEN)
    print(table(rows, versions))
    if given.store:
        head = made_with()
        head.pop("sources")
        write_rows(given.store, head | {"peers": versions}, rows)


if __name__ == "__main__":
    sys.exit(main())
