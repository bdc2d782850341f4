"""The program that a peer watches: every broken kernel and every mended one, each in a child.

It needs PyTorch and Triton alone, for it runs in the peer's environment: `python peers_program.py
OUTCOMES FILE...`. The peer is imported once; a child that crashes, hangs or is ended by the peer
takes no other along. One line of JSON is written for each child.
"""

import importlib.util
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

SECONDS = 20  # of a child's time, before it is ended
NAN = 3  # what a child returns if its results hold a NaN, which any test of the kernel would see


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of what a driver returned."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)


def drive(path: Path, which: str) -> int:
    """Run a driver as a script does."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    results = getattr(module, f"drive_{which}_kernel")()
    has_nan = any(t.is_floating_point() and bool(t.isnan().any()) for t in tensors(results))
    return NAN if has_nan else 0


def drive_all() -> None:
    """Fork a child for each driver, and write how each ended."""
    said = Path(sys.argv[1]).with_suffix(".said")
    with open(sys.argv[1], "w", encoding="utf-8") as outcomes:
        for path in map(Path, sys.argv[2:]):
            for which in ("broken", "fixed"):
                sys.stdout.flush()
                child = os.fork()
                if not child:
                    signal.alarm(SECONDS)
                    # A wait that sleeps is found by the clock, one that computes by the CPU's.
                    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
                    into = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                    os.dup2(into, 1)
                    os.dup2(into, 2)
                    sys.exit(drive(path, which))  # through the peer, which may have its say
                _, status, used = os.wait4(child, 0)
                outcome = {
                    "kernel": path.stem,
                    "which": which,
                    "code": os.waitstatus_to_exitcode(status),
                    "cpu_seconds": used.ru_utime + used.ru_stime,
                    "said": said.read_text(encoding="utf-8", errors="replace"),
                }
                outcomes.write(json.dumps(outcome) + "\n")
                outcomes.flush()


if __name__ == "__main__":
    drive_all()
