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
    functions : list of callable
        The kernels' own, as they are met.
    """

    findings: list[Finding] = dataclasses.field(default_factory=list)
    kernels: list[str] = dataclasses.field(default_factory=list)
    n_programs: int = 0
    n_events: int = 0
    functions: list[Callable[..., Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class How:
    """How kernels are played.

    Attributes
    ----------
    schedule : str
        "behind", "ahead" or a seed; see `Schedule`.
    strict : bool
        Whether a fence must stand where Triton's compiler would add it, too; see `Program`.
    to_the_end : bool
        Whether to go on after a finding.
    changed : mapping or None
        Code that is run in place of a function's own: a mutant's.
    wrap : callable or None
        Given an operation of the model, returns what is called in its place.
    """

    schedule: str = "behind"
    strict: bool = False
    to_the_end: bool = True
    changed: Mapping[types.CodeType, types.CodeType] | None = None
    wrap: Callable[[Any], Any] | None = None


def play(
    kernel: Any,
    grid: Any,
    *args: Any,
    schedule: str = "behind",
    strict: bool = False,
    **named: Any,
) -> Played:
    """Run a kernel on every program of a grid.

    Parameters
    ----------
    kernel : GluonJITFunction
        What `gluon.jit` gives.
    grid : int, tuple of int or callable
        As in a launch.
    *args, **named : object
        As in a launch; tensors lie on the CPU and are written in place.
    schedule, strict
        See `How`.

    Returns
    -------
    Played
    """
    played = Played()
    _launch(played, kernel, grid, args, named, How(schedule, strict))
    return played


@contextlib.contextmanager
def playing(
    schedule: str = "behind",
    strict: bool = False,
    to_the_end: bool = True,
    changed: Mapping[types.CodeType, types.CodeType] | None = None,
    wrap: Callable[[Any], Any] | None = None,
) -> Iterator[Played]:
    """Play every Gluon kernel that is launched meanwhile, `kernel[grid](...)`.

    Parameters
    ----------
    schedule, strict, to_the_end, changed, wrap
        See `How`.

    Yields
    ------
    Played
        What the launches show, as they come.
    """
    played, how = Played(), How(schedule, strict, to_the_end, changed, wrap)
    run = GluonJITFunction.__dict__.get("run")

    def launched(kernel: Any, *args: Any, grid: Any, warmup: bool = False, **named: Any) -> None:
        _launch(played, kernel, grid, args, named, how)

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
    how: How,
) -> None:
    signature = inspect.signature(kernel.fn)
    options = {name: named[name] for name in OPTIONS & {*named} - {*signature.parameters}}
    if options.get("num_ctas", 1) != 1:
        raise NotImplementedError("num_ctas: clusters of several programs are not modelled")
    bound = signature.bind(*args, **{n: v for n, v in named.items() if n not in options})
    bound.apply_defaults()
    functions = Functions(how.changed, how.wrap)
    received = {
        name: functions.model(argument(value, _is_constant(signature.parameters[name])))
        for name, value in bound.arguments.items()
    }
    grid = grid(dict(bound.arguments)) if callable(grid) else grid
    grid = (grid,) if isinstance(grid, int) else tuple(map(int, grid))
    body = functions.function(kernel.fn)
    findings: dict[tuple, Finding] = {finding.key: finding for finding in played.findings}
    order, name = Schedule(how.schedule), kernel.fn.__name__
    for index in itertools.product(*map(range, grid)):
        if findings and not how.to_the_end:
            break
        program = Program(
            name, index, grid, findings, how.strict, how.to_the_end, source.line, source.line_of
        )
        program.agent.n_warps = int(named.get("num_warps", 4))
        with np.errstate(all="ignore"):
            Turns(program, order).run(functools.partial(body, **received))
        played.n_programs += 1
        played.n_events += program.n_events
    played.kernels.append(name)
    played.functions += [own for own in functions.own if own not in played.functions]
    played.findings[:] = findings.values()


def _is_constant(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    return annotation is gl.constexpr or str(annotation).endswith("constexpr")
