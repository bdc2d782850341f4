"""Play a Gluon kernel on tensors of the CPU, one program after another, and say what was found."""

import contextlib
import dataclasses
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonJITFunction

from .language import source
from .language.functions import Functions, argument
from .machine.findings import Finding
from .machine.program import Program
from .machine.turns import Schedule, Turns

OPTIONS = {"num_warps", "num_stages", "num_ctas", "maxnreg", "stream", "warmup", "debug"}


@dataclasses.dataclass
class Played:
    """What the launches of some kernels showed.

    Attributes
    ----------
    findings : list of Finding
        One for each kind, line, partition and buffer.
    kernels : list of str
        Those that were launched, once for each launch.
    n_programs, n_events : int
        How much was run.
    """

    findings: list[Finding] = dataclasses.field(default_factory=list)
    kernels: list[str] = dataclasses.field(default_factory=list)
    n_programs: int = 0
    n_events: int = 0


def play(
    kernel: Any,
    grid: Any,
    *args: Any,
    schedule: str = "behind",
    changed: Mapping[types.CodeType, types.CodeType] | None = None,
    **named: Any,
) -> Played:
    """Run a kernel on every program of a grid.

    Parameters
    ----------
    kernel : GluonJITFunction
        What `gluon.jit` gives.
    grid : tuple of int or callable
        As in a launch.
    *args, **named : object
        As in a launch; tensors lie on the CPU and are written in place.
    schedule : str
        "behind", "ahead" or a seed; see `Schedule`.
    changed : mapping
        Code that is run in place of a function's own: a mutant's.

    Returns
    -------
    Played
    """
    played = Played()
    _launch(played, kernel, grid, args, named, schedule, changed)
    return played


@contextlib.contextmanager
def playing(schedule: str = "behind") -> Iterator[Played]:
    """Play every Gluon kernel that is launched meanwhile, `kernel[grid](...)`.

    Parameters
    ----------
    schedule : str
        "behind", "ahead" or a seed; see `Schedule`.

    Yields
    ------
    Played
        What the launches show, as they come.
    """
    played = Played()
    run = GluonJITFunction.__dict__.get("run")

    def launched(kernel: Any, *args: Any, grid: Any, warmup: bool = False, **named: Any) -> None:
        _launch(played, kernel, grid, args, named, schedule, None)

    GluonJITFunction.run = launched
    try:
        yield played
    finally:
        if run is None:
            del GluonJITFunction.run
        else:
            GluonJITFunction.run = run


def _launch(
    played: Played,
    kernel: Any,
    grid: Any,
    args: Sequence[Any],
    named: Mapping[str, Any],
    schedule: str,
    changed: Mapping[types.CodeType, types.CodeType] | None,
) -> None:
    parameters = inspect.signature(kernel.fn).parameters
    options = {name: named[name] for name in OPTIONS & {*named} - {*parameters}}
    given = {name: value for name, value in named.items() if name not in options}
    bound = inspect.signature(kernel.fn).bind(*args, **given)
    bound.apply_defaults()
    if options.get("num_ctas", 1) != 1:
        raise NotImplementedError("num_ctas: clusters of several programs are not modelled")
    received = {
        name: argument(value, _is_constant(parameters[name]))
        for name, value in bound.arguments.items()
    }
    grid = grid(dict(bound.arguments)) if callable(grid) else grid
    grid = (grid,) if isinstance(grid, int) else tuple(map(int, grid))
    body: Callable[..., Any] = Functions(changed).function(kernel.fn)
    findings: dict[tuple, Finding] = {f.key: f for f in played.findings}
    order = Schedule(schedule)
    for index in itertools.product(*map(range, grid)):
        program = Program(kernel.fn.__name__, index, grid, findings, source.line, source.line_of)
        program.agent.n_warps = int(named.get("num_warps", 4))
        with np.errstate(all="ignore"):
            Turns(program, order).run(functools.partial(body, **received))
        played.n_programs += 1
        played.n_events += program.n_events
    played.kernels.append(kernel.fn.__name__)
    played.findings[:] = findings.values()


def _is_constant(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    return annotation is gl.constexpr or str(annotation).endswith("constexpr")
