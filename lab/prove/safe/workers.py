"""Two kinds of processes: in one kernels are compiled, in the other they are interpreted.

Triton decides when it is imported, and so do the kernels: nothing here may import them.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def compiling(workers: int = 1) -> ProcessPoolExecutor:
    """Start processes in which kernels are compiled; `prove` runs there."""
    return _fresh(workers, _to_compile)


def interpreting() -> ProcessPoolExecutor:
    """Start a process in which kernels are interpreted; `replay` runs there."""
    return _fresh(1, _to_interpret)


def _fresh(workers: int, prepare: Any) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=prepare)


def _to_compile() -> None:
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.pop("GPTWIN_BACKEND", None)


def _to_interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"


# What a process has proved before is not proved again.
_known: set[Any] = set()


def prove(name: str) -> Any:
    """Prove a target; see `prove.prove_target`."""
    from .prove import prove_target

    return prove_target(name, _known)


def replay(launch: Any) -> Any:
    """Run a counterexample; see `replay.run_safely`."""
    from .replay import run_safely

    return run_safely(launch)
