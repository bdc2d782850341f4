"""Compile every kernel of every twin for GPUs that need not be there, and say what each takes.

A row is one kernel, with one configuration, specialised as one of the twin's named shapes would
specialise it. It fails if it spills registers, if it asks for more than a block may have, or if
it did not compile; and a kernel that no named shape reaches is a failure of its twin.

Compilation takes a second a kernel, so jobs (one twin, one dtype) run in several processes.
Processes are also what makes it possible: a process compiles for one architecture (kernels may
choose their configurations when they are imported), and one that has run Triton's interpreter
cannot compile at all. Triton's cache on disk makes a second run quick.
"""

import concurrent.futures
import dataclasses
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ...core.checks import refuse
from ..processes import Workers
from . import assembly, lints
from .assembly import Resources
from .lints import Lint
from .targets import (
    ARCHITECTURES,
    MAX_THREADS_PER_BLOCK,
    Architecture,
    architecture,
    occupancy,
)

# Nothing here may import the kernels at module level: a worker process first has to say what it
# compiles for.

DTYPES = ("float32", "float16", "bfloat16")
TWINS_MODULE = "gptwin.lab.twins.catalogue"


@dataclasses.dataclass(frozen=True)
class Row:
    """One compiled kernel, or one failure to get there.

    Attributes
    ----------
    arch, operation, dtype : str
        What was compiled, and for what. `dtype` is "" where a failure is of no single one.
    kernel : str
        The kernel's name; "" if the failure came before any kernel.
    configuration : int
        Index into the kernel's list of autotune configurations.
    options : dict
        Its compile-time constants, num_warps and num_stages.
    shapes : tuple of str
        The named shapes of the twin that are specialised to this same kernel.
    resources : Resources or None
        None if it did not compile.
    occupancy : float
        Share of the multiprocessor's warps that can reside, 0 to 1.
    failures : tuple of str
        Why this row fails; empty if it passes.
    lints : tuple of Lint
        What its code shows (lints.py). Of this project's kernels those that no list accepts are
        failures, too.
    text : str or None
        The text that `--show` asked for.
    """

    arch: str
    operation: str
    dtype: str
    kernel: str = ""
    configuration: int = 0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    shapes: tuple[str, ...] = ()
    resources: Resources | None = None
    occupancy: float = 0.0
    failures: tuple[str, ...] = ()
    text: str | None = None
    lints: tuple[Lint, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Job:
    """What one call in a worker process does."""

    twins: str
    operation: str
    dtype: str
    arch: str
    form: str | None
    typical: bool
    count: bool


# --- in a worker process -------------------------------------------------------------------------


def _prepare(arch: str) -> None:
    """Turn this fresh process into a compiler for one architecture."""
    os.environ["TRITON_INTERPRET"] = "0"
    os.environ.pop("GPTWIN_BACKEND", None)
    from .targets import compile_for

    compile_for(arch)


def _run_and_count(job: _Job) -> tuple[list[Row], dict[str, int]]:
    """Compile, and count the configurations of each kernel: they are this architecture's."""
    kernels = find(job.twins, job.operation).kernels()
    return _run(job), {
        name: len(getattr(kernel, "configs", None) or [None]) for name, kernel in kernels.items()
    }


def _run(job: _Job) -> list[Row]:
    """Compile what one twin launches with one dtype."""
    twin = find(job.twins, job.operation)
    failed = Row(job.arch, job.operation, job.dtype)
    rows: dict[str, Row] = {}
    errors: dict[str, Row] = {}
    codes: dict[tuple[str, int], set[tuple[str, str]]] = {}  # of a configuration: shapes and code
    for name, case in list(twin.shapes.items())[: 1 if job.typical else None]:
        launches: list[Any] = []
        try:
            compile_case(twin, case, job.dtype, launches)
        except Exception as error:  # a compiler may raise anything: we report it
            why = f"{type(error).__name__}: {error}"
            same = errors.get(why, dataclasses.replace(failed, failures=(why,)))
            errors[why] = dataclasses.replace(same, shapes=(*same.shapes, name))
        if not launches and not errors:
            none = "launches no kernel, or is not seen to"
            errors[none] = dataclasses.replace(failed, failures=(none,), shapes=(name,))
        for launch in launches:
            # One configuration that does not compile does not hide the others.
            key = launch.error or launch.compiled.metadata.hash
            if key in rows:
                shapes = tuple(dict.fromkeys((*rows[key].shapes, name)))
                rows[key] = dataclasses.replace(rows[key], shapes=shapes)
            else:
                rows[key] = _read(failed, name, launch, job)
            if job.count and not launch.error:
                code = name, lints.fingerprint(launch.compiled)
                codes.setdefault((launch.kernel, launch.configuration), set()).add(code)
    twice = _compiled_twice(codes)
    rows = {
        key: _with_lints(
            row, tuple(map(lints.same_as, twice.get((row.kernel, row.configuration), ())))
        )
        for key, row in rows.items()
    }
    judged = job.twins == TWINS_MODULE and ":" not in job.operation  # none of a user's own
    return [*(_judged(row) if judged else row for row in rows.values()), *errors.values()]


def _compiled_twice(
    codes: dict[tuple[str, int], set[tuple[str, str]]],
) -> dict[tuple[str, int], list[int]]:
    """Name for each configuration an earlier one whose code is its own, at every shape.

    At one of several shapes two tiles may come to the same, where a row is as long as the larger:
    at another one each has its use.
    """
    found: dict[tuple[str, int], list[int]] = {}
    for (kernel, configuration), own in codes.items():
        earlier = [
            i for (k, i), code in codes.items() if k == kernel and i < configuration and code == own
        ]
        found[kernel, configuration] = earlier[:1]
    return found


def _with_lints(row: Row, found: tuple[Lint, ...]) -> Row:
    return dataclasses.replace(row, lints=tuple(dict.fromkeys((*row.lints, *found))))


def _judged(row: Row) -> Row:
    """Let a row fail for the lints that no list accepts."""
    bad = tuple(
        str(lint) for lint in row.lints if not lints.reason_to_accept(row.kernel, row.arch, lint)
    )
    return dataclasses.replace(row, failures=(*row.failures, *bad))


def find(twins: str, name: str) -> Any:
    """Find a twin of a list, or a user's own, which is not run: it might not run here."""
    from ..twins.find import find_twin, is_own

    if is_own(name):
        return find_twin(name, try_it=False)
    known = importlib.import_module(twins).TWINS
    if name not in known:
        refuse("op", f"one of {', '.join(known)}, or package.module:NAME of your own", repr(name))
    return known[name]


def compile_case(
    twin: Any,
    case: dict[str, Any],
    dtype: str,
    launches: list[Any],
    *,
    backward: bool = True,
    roots: Sequence[str] = (),
) -> None:
    """Compile what one call of a twin and its backward pass would launch, on no memory.

    The process must have called `targets.compile_for` before.

    Parameters
    ----------
    twin : Twin
        The operation.
    case : dict
        One of its cases; its layouts are the tensors'.
    dtype : str
        Of its float tensors.
    launches : list of gptwin.kernels.common.launch.Launch
        Every compilation is appended, also those before an exception.
    backward : bool
        Compile the backward pass, too.
    roots : sequence of str
        Results that it starts from; empty for all. Kernels for the gradient of one alone may be
        others.
    """
    import torch

    from ...kernels.common.launch import recording
    from ..twins.draw import ShapesAlone, lay_out
    from ..twins.twin import as_tuple

    inputs = twin.inputs(case, ShapesAlone(getattr(torch, dtype)))
    layout, d_layout = (case.get(name, "contiguous") for name in ("layout", "d_layout"))
    tensors = {name: lay_out(x, layout).requires_grad_() for name, x in inputs.tensors.items()}
    with recording(compile_only=True) as log:
        try:
            results = as_tuple(twin.kernel(**tensors, **inputs.options))
            starts = [
                x for i, x in enumerate(results)
                if x.requires_grad and (not roots or twin.results[i] in roots)
            ]  # fmt: skip
            if starts and backward:
                cotangents = [lay_out(torch.empty_like(x), d_layout) for x in starts]
                torch.autograd.grad(starts, list(tensors.values()), cotangents, allow_unused=True)
        finally:
            launches.extend(log)


def _read(template: Row, shape: str, launch: Any, job: _Job) -> Row:
    """Make the row of one compiled kernel, or of one that did not compile."""
    of_kernel = dataclasses.replace(
        template, kernel=launch.kernel, configuration=launch.configuration, shapes=(shape,)
    )
    if launch.error:
        return dataclasses.replace(of_kernel, options=launch.options, failures=(launch.error,))
    on = architecture(template.arch)
    resources = assembly.read_resources(launch.compiled, count=job.count)
    share = occupancy(
        on,
        warps=resources.warps,
        registers=resources.registers,
        shared_bytes=resources.shared_bytes,
        tensor_memory_columns=resources.tensor_memory_columns,
    )
    return dataclasses.replace(
        of_kernel, options=options_of(launch), resources=resources, occupancy=share,
        failures=tuple(_excesses(resources, share, on)),
        text=assembly.text(launch.compiled, job.form) if job.form else None,
        lints=resources.lints,
    )  # fmt: skip


def options_of(launch: Any) -> dict[str, Any]:
    """Name every compile-time choice: the constants, absent tensors, then warps and stages."""
    source, metadata = launch.compiled.src, launch.compiled.metadata
    constants = {
        _name_of(source, path): getattr(value, "value", value)  # a flag in a tuple is a constexpr
        for path, value in source.constants.items()
        if source.fn.params[path[0]].is_constexpr or not isinstance(value, int)
    }
    return {**constants, "num_warps": metadata.num_warps, "num_stages": metadata.num_stages}


def _name_of(source: Any, path: tuple[int, ...]) -> str:
    """Name a part of an argument: (4, 2) is "masks.key_start", or "pair[2]" of an unnamed tuple."""
    parameter = source.fn.params[path[0]]
    name, type_of_part = parameter.name, source.signature[parameter.name]
    for i in path[1:]:
        fields = getattr(type_of_part, "_fields", ())
        name, type_of_part = f"{name}.{fields[i]}" if fields else f"{name}[{i}]", type_of_part[i]
    return name


def _excesses(resources: Resources, share: float, on: Architecture) -> Iterator[str]:
    """Say what a compiled kernel has too much of."""
    if resources.spill_bytes:
        yield f"spills {resources.spill_bytes} bytes a thread: fewer elements or more warps"
    limits = (
        ("bytes of shared memory", resources.shared_bytes, on.shared_memory_per_block),
        ("columns of tensor memory", resources.tensor_memory_columns, on.tensor_memory_columns),
        ("threads", resources.warps * on.warp_size, MAX_THREADS_PER_BLOCK),
    )
    excesses = [
        f"asks for {n:,} {what}, {on.name} has {most:,}" for what, n, most in limits if n > most
    ]
    yield from excesses
    if share == 0 and not excesses:
        yield f"{resources.warps} warps of {resources.registers} registers a thread do not fit"


# --- in the calling process ----------------------------------------------------------------------


def inspect(
    names: Sequence[str] = (),
    archs: Sequence[str] = (),
    *,
    show: str | None = None,
    dtypes: Sequence[str] = DTYPES,
    typical: bool = False,
    count: bool = True,
    twins: str = TWINS_MODULE,
    on_progress: Callable[[str, int, int], None] = lambda arch, done, of: None,
) -> list[Row]:
    """Compile the kernels of some twins for some architectures.

    Parameters
    ----------
    names : sequence of str
        Operations; none means all.
    archs : sequence of str
        Architectures as in `targets.ARCHITECTURES`; none means all.
    show : str, optional
        Which text of each kernel to keep: one of `assembly.FORMS`.
    dtypes : sequence of str
        Which of each twin's dtypes to compile.
    typical : bool
        Each twin's first named shape alone, in the last of its dtypes: bfloat16 if it takes that.
    count : bool
        Count instructions, too: a third of the time on NVIDIA's chips.
    twins : str
        Module whose `TWINS` to walk.
    on_progress : callable
        Called as `(arch, jobs done, jobs in all)`.

    Returns
    -------
    list of Row
        Ordered by architecture, operation and dtype.

    Raises
    ------
    ValueError
        If an operation, architecture, dtype or `show` is unknown.
    RuntimeError
        If Triton, or a program that reads its binaries, is missing.
    """
    on = [architecture(name) for name in archs or ARCHITECTURES]
    forms = {arch.name: show and assembly.form_for(show, arch.backend) for arch in on}
    for dtype in dtypes:
        if dtype not in DTYPES:
            refuse("dtype", f"one of {', '.join(DTYPES)}", repr(dtype))
    known = importlib.import_module(twins).TWINS
    known = {name: find(twins, name) for name in names or known}
    expect_triton()
    for arch in on:
        assembly.expect_tools(arch.backend)
    rows: list[Row] = []
    for arch in on:
        jobs = [
            _Job(twins, name, dtype, arch.name, forms[arch.name], typical, count)
            for name in known
            for dtype in [d for d in known[name].dtypes if d in dtypes][-1 if typical else 0 :]
        ]
        by_job = _run_all(jobs, arch.name, on_progress)
        for name in dict.fromkeys(job.operation for job in jobs):
            of_twin = [by_job[job] for job in jobs if job.operation == name]
            rows += (own := [row for some, _ in of_twin for row in some])
            if not typical:
                counts = {kernel: n for _, some in of_twin for kernel, n in some.items()}
                rows += _never_compiled(known[name], arch.name, own, counts)
    return rows


def expect_triton() -> None:
    """Refuse to start without Triton."""
    from ...kernels.common._triton import UNAVAILABLE

    if UNAVAILABLE is not None:
        raise RuntimeError(
            f"inspect: expected Triton to be installed, but importing it failed: {UNAVAILABLE} "
            "(likely cause: Triton ships for Linux alone)"
        )


def _run_all(
    jobs: list[_Job], arch: str, on_progress: Callable[[str, int, int], None]
) -> dict[_Job, tuple[list[Row], dict[str, int]]]:
    """Run the jobs of one architecture, each process taking the next."""
    results: dict[_Job, tuple[list[Row], dict[str, int]]] = {}
    if not jobs:
        return results
    on_progress(arch, 0, len(jobs))
    with worker_pool(arch, min(len(jobs), processors())) as pool:
        futures = {pool.submit(_run_and_count, job): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            # A compiler that aborts takes the pool with it: the jobs that are left run alone.
            if not isinstance(future.exception(), BrokenProcessPool):
                results[futures[future]] = future.result()
                on_progress(arch, len(results), len(jobs))
    for job in jobs:
        if job not in results:
            results[job] = _run_alone(job)
            on_progress(arch, len(results), len(jobs))
    return results


def _run_alone(job: _Job) -> tuple[list[Row], dict[str, int]]:
    """Run a job in a process of its own, which may die."""
    with worker_pool(job.arch, 1) as pool:
        try:
            return pool.submit(_run_and_count, job).result()
        except BrokenProcessPool:
            why = "the compiler ended its process: an abort in LLVM (see stderr), or out of memory"
            return [Row(job.arch, job.operation, job.dtype, failures=(why,))], {}


def worker_pool(arch: str, size: int) -> Workers:
    """Start processes that compile for one architecture; the caller closes them."""
    return Workers(size, _prepare, (arch,))


def processors() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _never_compiled(
    twin: Any, arch: str, rows: Iterable[Row], counts: Mapping[str, int]
) -> Iterator[Row]:
    """Report the kernels and configurations that no named shape of the twin reached.

    Over all dtypes together: a kernel may well be for one of them alone. `counts` are the lengths
    of the architecture's lists; this process has imported those of none.
    """
    rows = list(rows)
    compiled = {(row.kernel, row.configuration) for row in rows if row.resources}
    stopped = any(row.failures and not row.resources for row in rows)
    none = "a shape failed first" if stopped else f"no shape of {list(twin.shapes)} launches it"
    for name in twin.kernels():
        count = counts.get(name, 1)
        missing = [i for i in range(count) if (name, i) not in compiled]
        if len(missing) == count:
            yield Row(arch, twin.name, "", name, failures=(f"never compiled: {none}",))
        elif missing:
            why = f"never compiled with configurations {missing}"
            yield Row(arch, twin.name, "", name, failures=(why,))
