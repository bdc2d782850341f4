"""Two kinds of processes: in one kernels are compiled, in the other they are interpreted.

Triton decides when it is imported, and so do the kernels: nothing here may import them.
"""

import contextlib
import os
from typing import Any

from ...processes import Workers

# PyTorch and Triton's interpreter alone reserve some of it.
LEAST_MEMORY = 8 * 2**30


def compiling(size: int = 1) -> Workers:
    """Start processes in which kernels are compiled; `prove` runs there."""
    return Workers(size, _to_compile)


def interpreting() -> Workers:
    """Start a process in which kernels are interpreted; `replay` runs there."""
    return Workers(1, _to_interpret)


def _to_compile() -> None:
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.pop("GPTWIN_BACKEND", None)


def _to_interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    with contextlib.suppress(ImportError):  # not on Windows
        _limit_memory()


def _limit_memory() -> None:
    """Let a counterexample fail that takes half of the machine's memory, not the whole command."""
    import resource

    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    wanted, (_, most) = max(half, LEAST_MEMORY), resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or wanted < most:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, most))


# A process that proves a variant of a target needs its launches, and keeps them.
_targets: dict[str, Any] = {}


def prove(name: str) -> Any:
    """Prove a target; see `prove.prove_target`."""
    from .prove import prove_target

    return prove_target(name)


def prepare(name: str) -> tuple[Any, list[Any]]:
    """Collect a target's launches; return its outcome, without results, and its tasks."""
    from .launches.compile import compiling
    from .prove import tasks_of

    with compiling():
        target = _target(name)
        return target.outcome, tasks_of(name, target)


def prove_task(task: Any) -> Any:
    """Prove one variant; see `prove.prove_task`."""
    from .launches.compile import compiling
    from .prove import prove_task as prove_here

    with compiling():
        return prove_here(task, _target(task.target))


def _target(name: str) -> Any:
    from .prove import target_of

    if name not in _targets:
        _targets[name] = target_of(name)
    return _targets[name]


def replay(launch: Any) -> Any:
    """Run a counterexample; see `replay.run_safely`."""
    from .replay import run_safely

    return run_safely(launch)
