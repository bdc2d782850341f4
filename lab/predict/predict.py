"""Estimate what the launches of a twin's call take on a GPU that need not be there.

A call is one shape in one dtype, forward and then backward. Each of its launches is compiled with
each configuration (lab/inspect), read, and played through; the fastest one counts for the call, and
its time stands beside the roofline's. For architectures whose pipes are not known there is the
roofline alone.
"""

import concurrent.futures
import dataclasses
import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...core.checks import refuse
from ..inspect.assembly import Resources, expect_tools, listing, read_resources
from ..inspect.inspect import (
    DTYPES,
    TWINS_MODULE,
    compile_case,
    expect_triton,
    find,
    options_of,
    processors,
    worker_pool,
)
from ..inspect.sass import loops, parse
from ..inspect.targets import architecture, occupancy
from ..twins.roofline import DATASHEETS, ITEMSIZE, Device, predicted_seconds, ridge
from .machines import AHEAD, BOUNDS_ALONE, MACHINES
from .specialised import WARPS, on_most_turns, warpgroup_loops
from .timeline import Timeline, short, timeline
from .whole import Compiled, Estimate, estimate

FORWARD, BACKWARD = "forward", "backward"


@dataclasses.dataclass(frozen=True)
class Loop:
    """What is told of one innermost loop: see `LoopEstimate`."""

    where: str
    addresses: tuple[int, int]
    instructions: int
    cycles: tuple[float, float, float]
    turns: float | None
    bound: tuple[str, float]
    busy: dict[str, float]
    rate: float
    unit: str


@dataclasses.dataclass(frozen=True)
class Row:
    """One launch with one configuration.

    Attributes
    ----------
    arch, operation, dtype, shape, direction : str
    launch : int
        Which one of its direction, from 0.
    kernel : str
    configuration : int
    options : dict
    resources : Resources or None
        None if it did not compile.
    occupancy : float
    programs, blocks : int
        Of the launch, and resident on a multiprocessor.
    loops : tuple of Loop
        The hottest first.
    busy, stalls : dict of str to float
        Of the hottest loop, or of the whole run where there is none.
    seconds : (mean, least, most) or None
        Over the phases of resident blocks.
    unknown : str
        Why there is no time, or why the kernel could not be compiled or read.
    timeline : Timeline or None
        Of the hottest loop; of the fastest configuration alone.
    """

    arch: str
    operation: str
    dtype: str
    shape: str
    direction: str
    launch: int
    kernel: str
    configuration: int
    options: dict[str, Any]
    resources: Resources | None = None
    occupancy: float = 0.0
    programs: int = 0
    blocks: int = 0
    loops: tuple[Loop, ...] = ()
    busy: dict[str, float] = dataclasses.field(default_factory=dict)
    stalls: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: tuple[float, float, float] | None = None
    unknown: str = ""
    timeline: Timeline | None = None


@dataclasses.dataclass(frozen=True)
class Call:
    """A direction of a call: the sum of its launches, beside the roofline.

    Attributes
    ----------
    arch, operation, dtype, shape, direction : str
    seconds : float or None
        The launches' fastest configurations together; None if one is unknown.
    least_seconds : float or None
        That the roofline allows; None if the twin declares no cost.
    limit : str
        "memory" or "arithmetic".
    device : str
        Whose peaks the roofline has.
    """

    arch: str
    operation: str
    dtype: str
    shape: str
    direction: str
    seconds: float | None
    least_seconds: float | None
    limit: str
    device: str


@dataclasses.dataclass(frozen=True)
class _Job:
    twins: str
    operation: str
    dtype: str | None
    shape: str | None
    arch: str


# --- in a worker process -------------------------------------------------------------------------


def _run(job: _Job) -> tuple[list[Row], list[Call]]:
    """Compile, read and estimate what one call launches."""
    twin = find(job.twins, job.operation)
    shape, case, dtype = _chosen(twin, job)
    every: list[Any] = []
    both: list[Any] = []
    compile_case(twin, case, dtype, every, backward=False)
    compile_case(twin, case, dtype, both)
    rows: list[Row] = []
    calls: list[Call] = []
    for direction, log in ((FORWARD, both[: len(every)]), (BACKWARD, both[len(every) :])):
        if direction == BACKWARD and not log:
            continue
        about = {
            "arch": job.arch, "operation": job.operation, "dtype": dtype, "shape": shape,
            "direction": direction,
        }  # fmt: skip
        own = [
            row for n, group in enumerate(_launches(log)) for row in _rows(about, n, group)
        ]  # fmt: skip
        rows += own
        calls.append(_call(twin, case, about, own))
    return rows, calls


def _chosen(twin: Any, job: _Job) -> tuple[str, dict[str, Any], str]:
    shape = job.shape or next(iter(twin.shapes))
    if shape not in twin.shapes:
        refuse("shape", f"one of {job.operation}'s: {', '.join(twin.shapes)}", repr(shape))
    dtype = job.dtype or twin.dtypes[-1]
    if dtype not in twin.dtypes:
        refuse("dtype", f"one of {job.operation}'s: {', '.join(twin.dtypes)}", repr(dtype))
    return shape, twin.shapes[shape], dtype


def _launches(log: Sequence[Any]) -> Iterator[list[Any]]:
    """Put the configurations of one launch together: they follow each other in the log."""
    group: list[Any] = []
    for entry in log:
        if group and (entry.kernel, True) != (
            group[-1].kernel, entry.configuration > group[-1].configuration,
        ):  # fmt: skip
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _rows(about: dict[str, Any], number: int, group: Sequence[Any]) -> list[Row]:
    rows = [estimate_launch(about, number, entry) for entry in group]
    timed = [i for i, row in enumerate(rows) if row.seconds is not None and row.loops]
    if timed:
        best = min(timed, key=lambda i: rows[i].seconds or ())
        rows[best] = dataclasses.replace(rows[best], timeline=_timeline(rows[best], group[best]))
    return rows


def estimate_launch(about: dict[str, Any], number: int, entry: Any) -> Row:
    """Estimate one configuration of a launch.

    Parameters
    ----------
    about : dict
        Arch, operation, dtype, shape and direction, as in `Row`.
    number : int
        Which launch of its direction.
    entry : gptwin.kernels.common.launch.Launch
        Compiled in compile-only mode.

    Returns
    -------
    Row
    """
    row = Row(
        **about, launch=number, kernel=entry.kernel, configuration=entry.configuration,
        options=dict(entry.options),
    )  # fmt: skip
    if entry.error:
        return dataclasses.replace(row, unknown=entry.error)
    resources = read_resources(entry.compiled, count=False)
    on = architecture(row.arch)
    share = occupancy(on, warps=resources.warps, registers=resources.registers,
                      shared_bytes=resources.shared_bytes,
                      tensor_memory_columns=resources.tensor_memory_columns)  # fmt: skip
    row = dataclasses.replace(
        row, options=options_of(entry), resources=resources, occupancy=share,
        programs=math.prod(entry.programs), blocks=round(share * on.warps / resources.warps),
    )  # fmt: skip
    if row.arch in BOUNDS_ALONE:
        return dataclasses.replace(row, unknown=f"{row.arch}'s pipes are not modelled")
    if not row.blocks:
        return dataclasses.replace(row, unknown="no block of it fits on a multiprocessor")
    found = estimate(_compiled(entry, resources), MACHINES[row.arch])
    return dataclasses.replace(row, **_told(found))


def _compiled(entry: Any, resources: Resources) -> Compiled:
    asm = entry.compiled.asm
    tensors = {name: t.numel() * t.element_size() for name, t in entry.tensors.items()}
    return Compiled(
        parse(listing(entry.compiled)), resources, asm["ttir" if "ttir" in asm else "ttgir"],
        entry.programs,
        _numbers_of(entry), tensors,
    )  # fmt: skip


def _told(found: Estimate) -> dict[str, Any]:
    hottest = found.hottest()
    order = sorted(found.loops, key=lambda one: one is not hottest)
    return {
        "blocks": found.blocks, "programs": found.programs, "seconds": found.seconds,
        "unknown": found.unknown, "stalls": found.stalls,
        "busy": hottest.busy() if hottest else found.busy,
        "loops": tuple(
            Loop(
                _place(one.where), (one.loop.first, one.loop.last), one.bounds.instructions,
                (one.steady.mean, one.steady.least, one.steady.most), one.turns, one.bounds.limit,
                one.busy(), one.rate, "FLOP/s" if one.work.flops else "B/s",
            )
            for one in order
        ),
    }  # fmt: skip


def _place(where: str) -> str:
    """Shorten "file:line"."""
    file, _, line = where.rpartition(":")
    return f"{short(file)}:{line}" if file else ""


def _timeline(row: Row, entry: Any) -> Timeline | None:
    assert row.resources is not None
    program = parse(listing(entry.compiled))
    blocks, warps = row.blocks, row.resources.warps
    if alike := warpgroup_loops(program):
        program, hottest = on_most_turns(program, alike[0])
        blocks, warps = blocks * len(alike), WARPS
    else:
        hottest = next(x for x in loops(program) if (x.first, x.last) == row.loops[0].addresses)
    return timeline(program, hottest, MACHINES[row.arch], blocks=blocks, warps=warps)


def _call(twin: Any, case: dict[str, Any], about: dict[str, Any], rows: list[Row]) -> Call:
    """Add up the fastest configurations, and ask the roofline."""
    arch, dtype, direction = about["arch"], about["dtype"], about["direction"]
    best: dict[int, float | None] = {}
    for row in rows:
        before = best.setdefault(row.launch, None)
        if row.seconds is not None:
            best[row.launch] = min(row.seconds[0], before or row.seconds[0])
    times = [t for t in best.values() if t is not None]
    seconds = sum(times) if len(times) == len(best) and times else None
    device = next(d for d in DATASHEETS if d.arch == arch)
    least, limit = _roofline(twin, case, dtype, direction, device)
    return Call(**about, seconds=seconds, least_seconds=least, limit=limit, device=device.name)


def _roofline(
    twin: Any, case: dict[str, Any], dtype: str, direction: str, device: Device
) -> tuple[float | None, str]:
    if "cost" in getattr(twin, "undeclared", ()):
        return None, ""
    forward, backward = twin.cost(case, ITEMSIZE[dtype])
    cost = forward if direction == FORWARD else backward
    if cost is None:
        return None, ""
    by_memory = cost.flops / max(1, cost.bytes) < ridge(dtype, device)
    return predicted_seconds(cost, dtype, device), "memory" if by_memory else "arithmetic"


# --- in the calling process ----------------------------------------------------------------------


def predict(
    names: Sequence[str] = (),
    archs: Sequence[str] = ("sm_90",),
    *,
    dtype: str | None = None,
    shape: str | None = None,
    twins: str = TWINS_MODULE,
    on_progress: Callable[[str, int, int], None] = lambda arch, done, of: None,
) -> tuple[list[Row], list[Call]]:
    """Estimate what calls of some twins take.

    Parameters
    ----------
    names : sequence of str
        Operations, or a user's own; none means all.
    archs : sequence of str
        Of `targets.ARCHITECTURES`; those in `machines.BOUNDS_ALONE` get the roofline alone.
    dtype : str, optional
        A twin's last one if left out: bfloat16 if it takes that.
    shape : str, optional
        One of the twin's named shapes; its first if left out.
    twins : str
        Module whose `TWINS` to walk.
    on_progress : callable
        Called as `(arch, jobs done, jobs in all)`.

    Returns
    -------
    list of Row
    list of Call

    Raises
    ------
    ValueError
        If a name, architecture, dtype or shape is unknown, or a kernel holds an instruction that
        the model does not know.
    RuntimeError
        If Triton, or a program that reads its binaries, is missing.
    """
    on = [architecture(name) for name in archs]
    if dtype is not None and dtype not in DTYPES:
        refuse("dtype", f"one of {', '.join(DTYPES)}", repr(dtype))
    known = importlib.import_module(twins).TWINS
    for name in names:
        twin = find(twins, name)
        _chosen(twin, _Job(twins, name, dtype, shape, ""))
    expect_triton()
    for arch in on:
        expect_tools(arch.backend)
    rows: list[Row] = []
    calls: list[Call] = []
    for arch in on:
        jobs = [_Job(twins, name, dtype, shape, arch.name) for name in names or known]
        on_progress(arch.name, 0, len(jobs))
        with worker_pool(arch.name, min(len(jobs), processors())) as pool:
            futures = [pool.submit(_run, job) for job in jobs]
            for done, future in enumerate(concurrent.futures.as_completed(futures), start=1):
                future.result()
                on_progress(arch.name, done, len(jobs))
        for future in futures:
            own, of_calls = future.result()
            rows += own
            calls += of_calls
    return rows, calls


def ahead(rows: Sequence[Row]) -> str:
    """Say which configuration of a launch is ahead by more than the model's error.

    Parameters
    ----------
    rows : sequence of Row
        Of one launch.

    Returns
    -------
    str
        Empty for a launch without a choice.
    """
    timed = sorted((r for r in rows if r.seconds), key=lambda r: r.seconds or ())
    if len(rows) < 2 or not timed:
        return ""
    if len(timed) < 2:
        return "one configuration alone could be estimated"
    first, second = (row.seconds[0] for row in timed[:2] if row.seconds)
    margin = AHEAD[timed[0].arch]
    if second / first > margin:
        return f"configuration {timed[0].configuration} is ahead, {second / first:.2f}x"
    slow = [r.configuration for r in timed if r.seconds and r.seconds[0] / first > margin]
    tail = f"; behind: {', '.join(map(str, slow))}" if slow else ""
    return f"no configuration is ahead by {margin:g}x, less than which says nothing{tail}"


def _numbers_of(entry: Any) -> dict[str, float]:
    """List a launch's numbers, within tuples, too, as Triton's IR names them: "x.strides.0"."""
    return dict(pair for name, value in entry.arguments for pair in _numbers_in(name, value))


def _numbers_in(name: str, argument: Any) -> Iterator[tuple[str, float]]:
    if isinstance(argument, (int, float)):
        yield name, argument
    elif isinstance(argument, tuple):
        fields = getattr(argument, "_fields", range(len(argument)))
        for field, part in zip(fields, argument, strict=True):
            yield from _numbers_in(f"{name}.{field}", part)
