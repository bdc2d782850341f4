"""A counterexample is a report only if running it shows the fault: here it is run, under sanitize.

A launch that is too large to be run (2^31 rows, say) is run for the programs and the turns of the
counterexample alone, and every access is answered with zeros: what is looked for there is an
integer that wraps, before any memory is reached.
"""

import dataclasses
import importlib
from collections.abc import Iterable, Sequence
from typing import Any

from .asked.launching import Replay, TensorLike

# What sanitize calls a fault, and the kind of question whose answer it confirms.
_CONFIRMS = {
    "out of bounds": "bounds", "outside the view": "bounds",
    "write race": "race", "read race": "race", "atomic order": "race", "order dependence": "race",
    "unwritten result": "written", "failure": "width",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Fault:
    """What a run showed: as sanitize's `Violation`, in plain data."""

    kind: str
    where: str
    tensor: str
    text: str

    def confirms(self, kind: str, where: str, tensor: str) -> bool:
        """Say whether this is the fault that was foretold.

        Parameters
        ----------
        kind, where : str
            Of the question.
        tensor : str
            Its tensor; "" if it is about none.
        """
        if _CONFIRMS.get(self.kind) != kind:
            return False
        if kind == "width":
            return "overflow detected" in self.text
        line = self.where.rpartition("/")[2]
        return line in where or self.tensor.removesuffix(".ptr") == tensor


def run_safely(replay: Replay) -> list[Fault]:
    """Run a launch; what cannot be run shows nothing."""
    try:
        return run(replay)
    except Exception as error:  # a launch that cannot be made confirms nothing
        return [Fault("not run", "", "", f"{type(error).__name__}: {error}")]


def run(replay: Replay) -> list[Fault]:
    """Run a launch in this process, which interprets, and say what was found."""
    from ...pretend.gpu import pretend_gpu
    from ...sanitize.sanitize import sanitize

    with pretend_gpu():
        kernel = _kernel(replay)
        if replay.vast:
            return _run_some(kernel, replay)
        report = sanitize(_Target(kernel, replay))
    found = [Fault(v.kind, v.where, v.tensor, str(v)) for v in report.violations]
    return found + ([Fault("not run", "", "", report.problem)] if report.problem else [])


def _kernel(replay: Replay) -> Any:
    """Find the kernel: under its autotuners."""
    from ...sanitize.drivers import load

    if replay.module.startswith("sanitized_") or replay.module == "__main__":
        module = load(replay.path)
    else:
        module = importlib.import_module(replay.module)
    kernel = vars(module)[replay.kernel]
    while hasattr(kernel, "configs") or hasattr(kernel, "values"):
        kernel = kernel.fn
    return kernel


class _Target:
    """A launch, as sanitize takes it."""

    def __init__(self, kernel: Any, replay: Replay) -> None:
        self.kernel, self.replay = kernel, replay
        self.name = f"the counterexample to {replay.kernel}"

    def run(self, storages: Any) -> dict[str, Any]:
        """Launch; return what must be written whole."""
        made = {
            name: _make(value) if isinstance(value, TensorLike) else value
            for name, value in self.replay.arguments.items()
        }
        arguments = _filled(self.replay.template, self._names(), made)
        self.kernel[self.replay.grid](**arguments, **self.replay.constants)
        return {
            name: made[name]
            for name, value in self.replay.arguments.items()
            if isinstance(value, TensorLike) and value.whole
        }

    def _names(self) -> list[str]:
        names = self.kernel.arg_names
        return [name for name in names if name not in self.replay.constants]

    def is_input(self, storage: Any) -> bool:
        """Let everything be written: what may be is not asked here."""
        return False

    def may_update(self, results: Any) -> list[Any]:
        """Allow it."""
        return []


def _filled(template: tuple[Any, ...], names: list[str], made: dict[str, Any]) -> dict[str, Any]:
    """Put tensors and numbers into a call's arguments."""

    def fill(name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            fields = getattr(value, "_fields", ())
            parts = [
                fill(f"{name}.{fields[i]}" if fields else f"{name}[{i}]", part)
                for i, part in enumerate(value)
            ]
            return type(value)(*parts) if fields else tuple(parts)
        return made.get(name, value)

    return {n: fill(n, v) for n, v in zip(names, template, strict=False)}


def _make(like: TensorLike) -> Any:
    """Make a tensor; a result begins unwritten."""
    import torch

    dtype = getattr(torch, like.dtype)
    if like.result:
        return torch.empty_strided(like.shape, like.strides, dtype=dtype)
    size = 0
    if 0 not in like.shape:
        extents = zip(like.shape, like.strides, strict=True)
        size = 1 + sum((n - 1) * stride for n, stride in extents)
    memory = torch.randn(size).to(dtype) if like.fill is None else torch.full((size,), like.fill)
    memory = memory.to(dtype)
    for offset, held in like.contents.items():
        if 0 <= offset < size:
            memory[offset] = held
    return memory.as_strided(like.shape, like.strides)


class _Some:
    """Runs the programs of a counterexample alone."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay

    def launch(self, launch: Any, run: Any) -> None:
        """Run them."""
        run()

    def order(self, n_programs: int) -> Sequence[int]:
        """Number them, with the last axis fastest."""
        _, ny, nz = self.replay.grid
        numbers = [(x * ny + y) * nz + z for x, y, z in self.replay.programs]
        return [n for n in numbers if n < n_programs]


def _run_some(kernel: Any, replay: Replay) -> list[Fault]:
    """Run some programs and turns without memory; an overflow ends the launch."""
    import torch
    from triton.runtime.errors import InterpreterError

    from ....kernels import interpreter

    interpreter.install()
    made = {
        name: torch.empty(1, dtype=getattr(torch, value.dtype))
        if isinstance(value, TensorLike)
        else value
        for name, value in replay.arguments.items()
    }
    names = [name for name in kernel.arg_names if name not in replay.constants]
    arguments = _filled(replay.template, names, made)

    def choose(turns: range) -> Iterable[int]:
        numbers = sorted({0, *replay.turns, len(turns) - 1})
        return [turns[n] for n in numbers if 0 <= n < len(turns)]

    with (
        interpreter.follow(_Some(replay)),
        interpreter.observe(lambda access: access.mask | True),
        interpreter.some_turns(choose),
    ):
        try:
            kernel[replay.grid](**arguments, **replay.constants)
        except InterpreterError as error:
            return [Fault("failure", "", "", str(error))]
    return []
