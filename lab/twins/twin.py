"""What a twin is: one operation, declared once, with everything that the instruments need.

`lab/twins/catalogue.py` holds the list. To add an operation is to write its NumPy file, its Triton
file and one entry there; verification, the property tests and the ahead-of-time compile check
follow.
"""

import contextlib
import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from hypothesis.strategies import SearchStrategy

from ...core.checks import whole
from ...kernels.common.launch import kernel_name

# A case is plain JSON: sizes, flags and a seed. It can be printed, stored and typed again.
Case = dict[str, Any]

DTYPES = ("float32", "float16", "bfloat16")


class Draw(Protocol):
    """Where a case's tensors come from: random arrays, or shapes without memory.

    Entries ask for tensors through this alone, so that one entry serves verification (NumPy arrays
    drawn from the case's seed), ahead-of-time compilation (tensors on PyTorch's meta device) and
    benchmarks (tensors drawn on the GPU).
    """

    def normal(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> Any:
        """Return floats from N(mean, std²)."""

    def sparse_minus_inf(self, x: Any, share: float) -> Any:
        """Return `x` with about this share of its elements set to −inf."""

    def mask(self, *shape: int, share: float) -> Any:
        """Return bools, about this share of them True."""

    def integers(self, *shape: int, below: int) -> Any:
        """Return int64 from 0 to `below` − 1, such as token ids."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The arguments of one call.

    Attributes
    ----------
    tensors : dict
        Argument name to float array, for the arguments that get gradients, in the reference's
        order. An optional argument that is not given is left out.
    options : dict
        Every other argument: flags, numbers, masks, indices.
    """

    tensors: dict[str, Any]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Cost:
    """The least that an implementation must do.

    Attributes
    ----------
    flops : int
        Floating-point operations, 2 per multiply-add.
    reads, writes : dict
        Bytes of each tensor that must be read or written at least, each byte once. `gptwin trace`
        counts that the kernels touch exactly those.

    Notes
    -----
    What counts, by name: in forward the arguments that are read (masks and ids too) and the results
    that are written; in backward the arguments, results and results' gradients ("d_" and the
    result) that are read, as "saved" what forward keeps for it beside the results, and the
    gradients ("d_" and the argument) that are written. In training, forward writes "saved" on top
    of its own bytes. A gradient that shares its memory with another tensor is written once. What
    does not count: a second reading, workspaces, partial sums, copies.

    What the case decides (its sizes, causal, window, documents, padding) is counted exactly, unless
    the cost says otherwise: a key that no query sees is not read. Where numbers decide (a mask,
    lengths, labels, ids), the numbers that take most are meant: nothing is hidden, and as many ids
    as can be are different.
    """

    flops: int
    reads: dict[str, int]
    writes: dict[str, int]

    @property
    def bytes(self) -> int:
        """All that must move."""
        return sum(self.reads.values()) + sum(self.writes.values())

    def __add__(self, other: "Cost") -> "Cost":
        """Add two passes, each of which reads and writes for itself."""
        reads, writes = Counter(self.reads), Counter(self.writes)
        reads.update(other.reads)
        writes.update(other.writes)
        return Cost(self.flops + other.flops, dict(reads), dict(writes))


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where the rows of a batch lie, each of which `batch_invariant` gives the same bits always.

    Attributes
    ----------
    axes : dict of str to int
        The axis that counts them, of each argument, option and result that has them. The gradient
        of an argument has them where the argument does. What is not named is shared by all rows.
    by_place : callable
        `(case) -> bool`: whether a row's place in the batch decides what is drawn for it, so that
        it has the same bits at the same place alone.
    """

    axes: dict[str, int]
    by_place: Callable[[Case], bool] = lambda case: False


@dataclasses.dataclass(frozen=True)
class Twin:
    """One operation in its three forms, its cases, its error budget and its cost.

    Attributes
    ----------
    name : str
        The operation, and the name of its files in core/ and kernels/.
    forward : callable
        NumPy: `(*tensors, **options) -> (results, saved)`, tensors by keyword.
    backward : callable or None
        NumPy: `(saved, *d_results) -> gradients` in the order of `arguments`; None if no result
        carries a gradient.
    kernel : callable
        The public operation in kernels/, run on Triton by the instruments.
    eager : callable
        PyTorch's equivalent; its own error is the yardstick of the budget.
    arguments : tuple of str
        The differentiable arguments, in the order of the gradients.
    results : tuple of str
        Names of the results, for reports.
    cases : SearchStrategy of Case
        Hypothesis strategy. `"layout"` in a case says how its tensors lie in memory, `"seed"` what
        they hold.
    corners : tuple of Case
        Cases always run with every autotune configuration. Between them they must reach every
        kernel: `verify` fails on a kernel or configuration that nothing reached.
    inputs : callable
        `(case, draw) -> Inputs`.
    real : callable
        `(activations) -> Inputs`: the same arguments taken from a decoder block over real text.
    shapes : dict
        Named cases at the sizes people run, for compilation and benchmarks.
    cost : callable
        `(case, itemsize) -> (forward Cost, backward Cost)`; None for a backward that is not there.
    roundings : float
        How many float32 roundings a correct computation passes through on the way to one element:
        the floor of the budget (lab/verify/budget.py) where eager PyTorch happens to be exact.
        Irrelevant in half precision.
    exponent : str or None
        The result r, if there is one, from which backward computes exp(x − r) again. float32 knows
        r to |r| · 2⁻²⁴, so every power is wrong by |r| roundings. Moving the inputs does not show
        that where a power is 1 whatever they are (a softmax over one element), nor does eager,
        which keeps the power.
    kept : str or None
        The result, if there is one, that backward reads again, in the dtype that it was rounded to.
        Flash attention does: delta = d_output · output. Over a single key every gradient of the
        scores cancels to what that rounding leaves, and eager, which keeps more, shows none of it.
    dtypes : tuple of str
        What the kernel takes.
    shared_kernels : tuple of kernels
        Kernels from other files that the operation launches.
    statistics : tuple of str
        Those of `results` that carry no gradient; `backward` gets none for them.
    studies : tuple of Case
        Small cases for `gptwin trace`, the one to be drawn first. Their data take as much traffic
        as data can (see `Cost`), so what is counted must equal what is declared.
    extremes : tuple of Case
        Tiny cases in which one number at a time is made NaN or infinite (lab/verify/nonfinite.py).
        Between them they have every mask, so that there is something hidden, and every path.
    axes : dict
        Names of the axes of arguments and results, for pictures: "batch head query d_head". Those
        of a tensor with fewer axes are the last ones.
    undeclared : frozenset of str
        Which of "real", "shapes" and "cost" a twin of somebody's own leaves out (lab/own). Real
        text is then not run, and bytes are compared with nothing.
    launched : dict or None
        The kernels by name, where they cannot be found by theirs.
    most_configurations : int or None
        How many of each kernel's configurations are tried; None for all.
    sources : tuple of str
        The files that tell of it, where they are not core/ and kernels/.
    contracts : dict
        What each kernel's launches satisfy, by its name (lab/prove/safe/contract.py). A kernel that
        several operations launch has its contract beside the one whose file it is in.
    rows : Rows or str
        What `gptwin verify --batch-invariant` holds each row to; or why there are none.
    surroundings : callable
        `(tensors) -> context manager`, in which the kernel runs: a user's own may ask for a GPU.
    """

    name: str
    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., Any] | None
    kernel: Callable[..., Any]
    eager: Callable[..., Any]
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    cases: SearchStrategy[Case]
    corners: tuple[Case, ...]
    inputs: Callable[[Case, Draw], Inputs]
    real: Callable[[dict[str, np.ndarray]], Inputs]
    shapes: dict[str, Case]
    cost: Callable[[Case, int], tuple[Cost, Cost | None]]
    roundings: float = 4.0
    exponent: str | None = None
    kept: str | None = None
    dtypes: tuple[str, ...] = DTYPES
    shared_kernels: tuple[Any, ...] = ()
    statistics: tuple[str, ...] = ()
    studies: tuple[Case, ...] = ()
    extremes: tuple[Case, ...] = ()
    axes: dict[str, str] = dataclasses.field(default_factory=dict)
    undeclared: frozenset[str] = frozenset()
    launched: dict[str, Any] | None = None
    most_configurations: int | None = None
    sources: tuple[str, ...] = ()
    contracts: dict[str, str] = dataclasses.field(default_factory=dict)
    rows: Rows | str = "its rows are not declared"
    surroundings: Callable[[list[Any]], contextlib.AbstractContextManager[None]] = lambda tensors: (
        contextlib.nullcontext()
    )

    def kernels(self) -> dict[str, Any]:
        """Find the operation's Triton kernels by name: those of its file, then the shared ones.

        Kernels are told from device functions by their names, which end in `_kernel`.
        """
        if self.launched is not None:
            return self.launched
        file = vars(sys.modules[self.kernel.__module__])
        own = [value for name, value in file.items() if name.endswith("_kernel")]
        return {kernel_name(kernel): kernel for kernel in (*own, *self.shared_kernels)}


def with_constant(operation: Callable[..., Any], module: Any, name: str) -> Callable[..., Any]:
    """Let a case set a constant of a kernel's module: the size of a block that takes millions.

    Parameters
    ----------
    operation : callable
        Takes its arguments by name.
    module : module or None
        Where the constant stands; None, as for the reference, takes the option and does nothing.
    name : str
        Of the constant; the option is called by it in small letters.

    Returns
    -------
    callable
    """

    @functools.wraps(operation)
    def wrapped(**arguments: Any) -> Any:
        value = arguments.pop(name.lower(), None)
        number = None if value is None else whole(name.lower(), value)
        if module is None or number is None:
            return operation(**arguments)
        before = getattr(module, name)
        setattr(module, name, number)
        try:
            return operation(**arguments)
        finally:
            setattr(module, name, before)

    return wrapped


def by_argument(twin: Twin, gradients: Any) -> dict[str, Any]:
    """Name what `Twin.backward` returned: a gradient for each argument in order, or a dict."""
    if isinstance(gradients, dict):  # of a user's own, whose cases may leave arguments out
        return gradients
    return dict(zip(twin.arguments, as_tuple(gradients), strict=True))


def floats(itemsize: int, **elements: int) -> dict[str, int]:
    """Give the bytes of float tensors, for a cost, from how many numbers are in each."""
    return {name: n * itemsize for name, n in elements.items()}


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Make one result and several results look alike."""
    return value if isinstance(value, tuple) else (value,)
