"""The program that a peer watches: every broken kernel and every mended one, each in a child.

It needs PyTorch and Triton alone, for it runs in the peer's environment: `python peers_program.py
OUTCOMES FILE...`. The peer is imported once, and has watched a launch before the first child is
made; a child that crashes, hangs or is ended by the peer takes no other along. One line of JSON is
written for each child.
"""

import atexit
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

SECONDS = 20  # by the clock, before a child is ended


@triton.jit
def double_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2 * tl.load(x_ptr + at))


def warm_up() -> None:
    """Launch a kernel that is right: what is done once alone is done here."""
    x = torch.ones(32)
    double_kernel[(2,)](x, torch.empty(32), BLOCK=16)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of what a driver returned."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)


def drive(path: Path, which: str) -> str:
    """Run a driver as a script does; a NaN in its results any test of the kernel would see."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    results = getattr(module, f"drive_{which}_kernel")()
    has_nan = any(t.is_floating_point() and bool(t.isnan().any()) for t in tensors(results))
    return "NaN" if has_nan else "silent"


def be_driven(path: Path, which: str, said: Path, told: Path) -> None:
    """Run a driver in this child: what is printed goes to `said`, how it ended to `told`."""
    signal.alarm(SECONDS)
    into = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(into, 1)
    os.dup2(into, 2)
    # To take PyTorch's modules apart costs more than a kernel does. Called last of all.
    atexit.register(lambda: (sys.stdout.flush(), sys.stderr.flush(), os._exit(0)))
    started, ended = time.process_time(), "failed"
    try:
        ended = drive(path, which)
    finally:
        told.write_text(json.dumps({"ended": ended, "cpu_seconds": time.process_time() - started}))
    sys.exit()  # through the peer, which may have its say


def drive_all() -> None:
    """Fork a child for each driver, and write how each ended."""
    warm_up()
    said, told = (Path(sys.argv[1]).with_suffix(f".{what}") for what in ("said", "told"))
    with open(sys.argv[1], "w", encoding="utf-8") as outcomes:
        for path in map(Path, sys.argv[2:]):
            for which in ("broken", "fixed"):
                # What a child that is killed leaves, by a signal of its own or by the alarm.
                told.write_text(json.dumps({"ended": "killed", "cpu_seconds": None}))
                sys.stdout.flush()
                child = os.fork()
                if not child:
                    be_driven(path, which, said, told)
                os.waitpid(child, 0)
                outcome = {"kernel": path.stem, "which": which} | json.loads(told.read_text())
                outcome["said"] = said.read_text(encoding="utf-8", errors="replace")
                outcomes.write(json.dumps(outcome) + "\n")
                outcomes.flush()


if __name__ == "__main__":
    drive_all()
