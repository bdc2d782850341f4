"""The one door through which every kernel is launched, and the choice of backend before it.

Instruments stand at this door instead of in every kernel: it can force one autotune configuration
(so that each one's result is checked, not only the fastest one's), record what was launched, or
compile for a GPU that is not there instead of launching.

Backends: a CUDA tensor runs the Triton kernel; a CPU tensor runs the eager PyTorch equivalent.
`GPTWIN_BACKEND=triton` or `eager` forces one. On the CPU the kernels are compiled for it (see
`native/`), or, with `TRITON_INTERPRET=1` set before gptwin is imported, Triton's interpreter runs
them (see `interpreter/`).

Each thread has its own door: what one asks for, the others do not get. Only the threads in which
PyTorch runs backward on a GPU, which ask for nothing, do what was asked for last.
"""

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ...core.checks import refuse
from .. import native
from ._triton import UNAVAILABLE
from .strided import tensors_in

INTERPRETED = UNAVAILABLE is None and os.environ.get("TRITON_INTERPRET") == "1"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BACKENDS = ("triton", "eager")

if INTERPRETED:
    from .. import interpreter

    interpreter.install()

# Programs along each axis of a grid.
LARGEST_GRID = (2**31 - 1, 2**16 - 1, 2**16 - 1)
Grid = tuple[int, ...] | Callable[[dict[str, Any]], tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Launch:
    """One kernel launch, or one compilation that stood in for it.

    Attributes
    ----------
    kernel : str
        The kernel's name.
    configuration : int
        Index into the kernel's list of autotune configurations; 0 if it has none.
    options : dict
        That configuration's own values: block sizes, num_warps, num_stages.
    tensors : dict
        Name to tensor, for each tensor the kernel was given: "lse_ptr" for an argument,
        "query.ptr" for one within a tuple (strided.py).
    compiled : object or None
        Triton's compiled kernel; None if it was interpreted.
    error : str
        Why it did not compile, in compile-only mode; empty otherwise.
    programs : tuple of int
        Along each axis of its grid, in compile-only mode.
    arguments : tuple of (str, object)
        What it was given, by name, in compile-only mode.
    call : tuple or None
        Function, grid, arguments and constants, where an instrument asked for these alone.
    """

    kernel: str
    configuration: int
    options: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    compiled: Any = None
    error: str = ""
    programs: tuple[int, ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()
    call: tuple[Any, ...] | None = None


@dataclasses.dataclass(frozen=True)
class _Door:
    """What a thread's instruments have asked for."""

    backend: str | None = None
    configuration: int | None = None
    compile_only: bool = False
    calls_only: bool = False
    log: list[Launch] | None = None
    tracing: bool = False
    evaluating: bool = False
    batch_invariant: bool = False


_UNASKED = _Door()


class _Here(threading.local):
    """What a thread's own contexts have set."""

    def __init__(self) -> None:
        self.door = _UNASKED


_here = _Here()
# The doors that contexts have set and not left yet, in all threads, by their id.
_open: dict[int, _Door] = {}


def door() -> _Door:
    """Tell what the instruments have asked for, also for launches that do not come by here.

    Those of others' kernels come by plain.py.

    Returns
    -------
    _Door
        This thread's.
    """
    own = _here.door
    if torch.compiler.is_compiling() or own is not _UNASKED or not _open:
        return own
    # Python did not start the threads of PyTorch's backward.
    if isinstance(threading.current_thread(), threading._DummyThread):
        return dataclasses.replace(next(reversed(_open.values())), tracing=False)
    return own


@contextlib.contextmanager
def _door_set(**wishes: Any) -> Iterator[None]:
    before = _here.door
    _here.door = new = dataclasses.replace(before, **wishes)
    _open[id(new)] = new
    try:
        yield
    finally:
        _here.door = before
        del _open[id(new)]


def backend(name: str) -> contextlib.AbstractContextManager[None]:
    """Force a backend while the context lasts, over `GPTWIN_BACKEND`.

    Parameters
    ----------
    name : str
        "triton" or "eager".

    Returns
    -------
    context manager

    Raises
    ------
    ValueError
        If there is no such backend.
    """
    if name not in BACKENDS:
        refuse("backend", "'triton' or 'eager'", repr(name))
    return _door_set(backend=name)


def configuration(index: int) -> contextlib.AbstractContextManager[None]:
    """Launch each kernel with its autotune configuration number `index` while the context lasts.

    Parameters
    ----------
    index : int
        Taken modulo the length of each kernel's own list.

    Returns
    -------
    context manager
    """
    return _door_set(configuration=index)


@contextlib.contextmanager
def recording(*, compile_only: bool = False, calls_only: bool = False) -> Iterator[list[Launch]]:
    """Collect every launch made while the context lasts.

    Parameters
    ----------
    compile_only : bool
        Compile each kernel with each of its configurations for the active Triton target, and run
        none. The tensors may then be on PyTorch's meta device: no memory, no GPU.
    calls_only : bool
        Do not even compile: note what each kernel would be launched with, on such tensors.

    Yields
    ------
    list of Launch
        Grows as kernels are launched.
    """
    log: list[Launch] = []
    compile_only |= calls_only
    wishes: dict[str, Any] = {
        "log": log, "compile_only": compile_only, "calls_only": calls_only,
    }  # fmt: skip
    if compile_only:
        wishes["backend"] = "triton"
    with _door_set(**wishes):
        yield log


def tracing() -> contextlib.AbstractContextManager[None]:
    """Launch nothing while the context lasts: `torch.compile` asks for shapes alone.

    Returns
    -------
    context manager
    """
    return _door_set(tracing=True)


def evaluating() -> contextlib.AbstractContextManager[None]:
    """Launch on CPU tensors by Triton's active driver, an instrument's, while the context lasts."""
    return _door_set(evaluating=True)


def batch_invariant() -> contextlib.AbstractContextManager[None]:
    """Give every row the same bits whatever rows are beside it, while the context lasts.

    What that is, what it costs and where it ends: docs/batch_invariance.md. Kernels are not tuned,
    each runs with the first of its configurations; and eager PyTorch is refused.

    Returns
    -------
    context manager
    """
    return _door_set(batch_invariant=True)


def is_tracing() -> bool:
    """Say whether a context of `tracing` lasts.

    Returns
    -------
    bool
    """
    return door().tracing


def runs_on_triton(operation: str, **tensors: torch.Tensor | None) -> bool:
    """Decide whether these arguments go to the Triton kernel or to eager PyTorch.

    Parameters
    ----------
    operation : str
        The operation's name, for the error message.
    **tensors : torch.Tensor or None
        All its tensor arguments by name.

    Returns
    -------
    bool
        True for the Triton kernel.

    Raises
    ------
    ValueError
        If the tensors are on different devices, `GPTWIN_BACKEND` is unknown, or a tensor has a
        dtype that the kernels do not have.
    RuntimeError
        If Triton was asked for and cannot run here, or eager PyTorch under `batch_invariant`.
    """
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first_name, first = next(iter(given.items()))
    for name, tensor in given.items():
        if tensor.device != first.device:
            refuse(name, f"device {first.device}, like {first_name}", f"device {tensor.device}")

    wish = door().backend or os.environ.get("GPTWIN_BACKEND") or None
    if wish is not None and wish not in BACKENDS:
        refuse("GPTWIN_BACKEND", "'triton' or 'eager'", repr(wish))
    if wish == "eager" or (wish is None and not first.is_cuda):
        if door().batch_invariant:
            raise RuntimeError(
                f"{operation}: expected kernels under batch_invariant(), got eager PyTorch, whose "
                "BLAS rounds a row otherwise in a batch of another size (likely cause: tensors on "
                "the CPU, or GPTWIN_BACKEND=eager; GPTWIN_BACKEND=triton compiles kernels for it)"
            )
        return False

    _expect_triton_can_run(operation, first_name, first)
    for name, tensor in given.items():
        if tensor.is_floating_point() and tensor.dtype not in DTYPES:
            refuse(
                name,
                "dtype float32, float16 or bfloat16",
                f"dtype {tensor.dtype}",
                "float64 is for the NumPy reference and for GPTWIN_BACKEND=eager",
            )
    return True


def _expect_triton_can_run(operation: str, name: str, tensor: torch.Tensor) -> None:
    if UNAVAILABLE is not None:
        raise RuntimeError(
            f"{operation}: expected Triton to be installed to run its kernel, but importing it "
            f"failed: {UNAVAILABLE} (likely cause: Triton ships for Linux alone; "
            "GPTWIN_BACKEND=eager runs everywhere)"
        )
    wishes = door()
    if tensor.device.type != "cpu" or INTERPRETED or wishes.compile_only or wishes.evaluating:
        return
    if not native.available():
        raise RuntimeError(
            f"{operation}: expected {name} on a GPU, got a tensor on the CPU (likely cause: "
            "GPTWIN_BACKEND=triton without a GPU; pip install llvmlite to compile kernels for "
            "the CPU, or set TRITON_INTERPRET=1 before gptwin is imported to run them in "
            "Triton's interpreter, or GPTWIN_BACKEND=eager)"
        )
    native.activate()


def expect_same_dtype(**tensors: torch.Tensor | None) -> None:
    """Refuse tensors whose dtypes differ: a kernel mixes none silently.

    Parameters
    ----------
    **tensors : torch.Tensor or None
        The arguments by name; None is skipped.

    Raises
    ------
    ValueError
        Naming the first tensor whose dtype is not the first one's.
    """
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first_name, first = next(iter(given.items()))
    for name, tensor in given.items():
        if tensor.dtype != first.dtype:
            refuse(
                name,
                f"dtype {first.dtype}, like {first_name}",
                f"dtype {tensor.dtype}",
                "a parameter or a residual kept in another precision",
            )


def launch(kernel: Any, grid: Grid, *args: Any, **constants: Any) -> None:
    """Launch a kernel, or do with it what an instrument asked for.

    Parameters
    ----------
    kernel : a `triton.jit` function, autotuned or not
        What to run.
    grid : tuple of int, or a function from the constants to one
        Number of programs along each axis; a grid of none launches nothing.
    *args
        The kernel's run-time arguments, in its order: tensors, numbers, tuples of them, None.
    **constants
        Its compile-time constants, except those that its autotune configurations set.
    """
    wishes = door()
    if wishes.tracing:
        return
    configurations = getattr(kernel, "configs", None)
    variants: list[tuple[int, Any, dict[str, Any]]]
    if configurations is None:
        variants = [(0, kernel, {})]
    elif wishes.compile_only:
        some = configurations[:1] if wishes.batch_invariant else configurations
        variants = [(i, kernel.fn, c.all_kwargs()) for i, c in enumerate(some)]
    elif (
        wishes.configuration is not None
        or wishes.batch_invariant
        or INTERPRETED
        or not _first_on_cuda(args)
    ):
        index = (wishes.configuration or 0) % len(configurations)
        variants = [(index, kernel.fn, configurations[index].all_kwargs())]
    else:
        variants = [(-1, kernel, {})]  # Triton's autotuner times the list and picks

    sizes = {**(configurations[0].all_kwargs() if configurations else {}), **constants}
    of_the_first = _programs(kernel, grid, sizes)
    if 0 in of_the_first:
        return
    checked = functools.partial(_programs, kernel, grid)
    for index, function, options in variants:
        compiled, error, call = None, "", None
        if wishes.calls_only:
            given = {n: v for n, v in {**constants, **options}.items() if n in function.arg_names}
            call = (function, checked({**constants, **options}), args, given)
        elif wishes.compile_only:
            try:
                compiled = function.warmup(*args, grid=checked, **constants, **options)
            except Exception as reason:  # the other configurations are still to be tried
                error = f"{type(reason).__name__}: {reason}"
        else:
            with _on_device_of(args):
                programs = of_the_first if index == 0 else checked
                compiled = function[programs](*args, **constants, **options)
        if wishes.log is not None:
            named = tuple(zip(kernel.arg_names, args, strict=False))
            tensors = dict(pair for name, value in named for pair in tensors_in(name, value))
            entry = Launch(kernel_name(kernel), index, options, tensors, compiled, error, call=call)
            if compiled is not None:
                programs = checked({**constants, **options})
                entry = dataclasses.replace(entry, programs=programs, arguments=named)
            wishes.log.append(entry)


def _programs(kernel: Any, grid: Grid, sizes: dict[str, Any]) -> tuple[int, ...]:
    """Return how many programs a launch has along each axis; refuse more than a GPU can number."""
    programs = grid(sizes) if callable(grid) else grid
    for axis, (n, most) in enumerate(zip(programs, LARGEST_GRID, strict=False)):
        if n > most:
            refuse(
                kernel_name(kernel),
                f"at most {most} programs along axis {axis} of its grid",
                str(n),
                "a tensor with more parts than a GPU can number: cut it",
            )
    return programs


def kernel_name(kernel: Any) -> str:
    """Return the name of the function under the decorators.

    Parameters
    ----------
    kernel : a `triton.jit` function, autotuned or not

    Returns
    -------
    str
        As written after `def`.
    """
    while hasattr(kernel, "fn"):
        kernel = kernel.fn
    return kernel.__name__


def _on_device_of(args: tuple[Any, ...]) -> contextlib.AbstractContextManager[Any]:
    """Make the device of the arguments the current one: Triton launches on that."""
    first = _first_tensor(args)
    if first is None or not first.is_cuda or first.device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(first.device)


def _first_on_cuda(args: tuple[Any, ...]) -> bool:
    """Say whether the arguments are on a GPU: elsewhere nothing is timed to choose by."""
    first = _first_tensor(args)
    return first is None or first.is_cuda


def _first_tensor(args: tuple[Any, ...]) -> torch.Tensor | None:
    return next((tensor for value in args for _, tensor in tensors_in("", value)), None)
