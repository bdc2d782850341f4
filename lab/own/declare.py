"""`gptwin.twin`: a user's kernel and its reference, declared as this project's own twins are."""

import contextlib
import dataclasses
import inspect
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ...core.checks import refuse
from ...kernels.common import launch, plain
from ..device import kernel_device
from ..pretend.gpu import pretend_gpu
from ..pretend.places import put_on_gpu
from ..twins.draw import LAYOUTS, RandomArrays, ShapesAlone, to_torch
from ..twins.strategies import cotangent_layouts, seeds
from ..twins.twin import DTYPES, Case, Cost, Draw, Inputs, Twin
from .arguments import Call, flat, name_of, read_case, sort_arguments
from .arguments import plain as plain_case
from .kernel import Kernel
from .reference import Reference

Cases = st.SearchStrategy[Case] | Sequence[Case]
DRAWN_FOR_CORNERS = 24


@dataclasses.dataclass(frozen=True, eq=False)
class Declaration:
    """What a user says of a kernel; see `twin`. `as_twin` makes of it what instruments take."""

    kernel: Callable[..., Any]
    reference: Callable[..., Any]
    cases: st.SearchStrategy[Case]
    corners: tuple[Case, ...]
    inputs: Callable[[Case, Draw], dict[str, Any]]
    dtypes: tuple[str, ...]
    updates: tuple[str, ...]
    gradients: tuple[str, ...] | None
    backward: Callable[..., Any] | None
    eager: Callable[..., Any] | None
    results: tuple[str, ...]
    layouts: tuple[str, ...]
    cost: Callable[[Case, int], tuple[Cost, Cost | None]] | None
    real: Callable[[dict[str, np.ndarray]], dict[str, Any]] | None
    shapes: dict[str, Case]
    configs: int | None

    def as_twin(self, name: str, *, try_it: bool = True, configs: int | None = None) -> Twin:
        """Make a twin of it.

        Parameters
        ----------
        name : str
            The twin's.
        try_it : bool
            Run the kernel on the corners, and learn from that what the user need not say: which
            kernels it launches, and which results carry gradients. Without, nothing runs.
        configs : int, optional
            Most configurations of each kernel, where the declaration says none.

        Returns
        -------
        Twin

        Raises
        ------
        ValueError
            If what was declared does not fit together.
        """
        order: dict[str, int] = {}

        def read(case: Case, draw: Draw) -> Inputs:
            arguments = self.inputs(case, draw)
            if not isinstance(arguments, dict):
                refuse("inputs", "a dict of arguments by name", f"a {type(arguments).__name__}")
            for argument in arguments:
                order.setdefault(argument, len(order))
            return sort_arguments(arguments)

        corners = self.corners or _corners(self.cases, read, self.layouts)
        first = read(corners[0], RandomArrays(0))
        names = tuple(dict.fromkeys(n for c in corners for n in read(c, RandomArrays(0)).tensors))
        self._expect_arguments("updates", self.updates, names + tuple(first.options))
        self._expect_arguments("gradients", self.gradients or (), names)
        reference = Reference(self.reference, self.backward, self.updates, order)
        kernel = Kernel(Call("kernel", self.kernel, order), self.updates)
        results = self._results(reference, first)
        kernel.n_results = len(results)
        plain.watch_plain_launches()
        tried, surroundings = Tried({}, set()), _nothing_around
        if try_it:
            device = kernel_device()
            tried = self._try(kernel, corners, read, device)
            if device == "cpu" and (tried.failed or not tried.kernels):
                # It may ask for a GPU: for "cuda" in its code, or to launch at all.
                as_on_gpu = self._try(kernel, corners, read, device, around=_as_on_gpu)
                if as_on_gpu.kernels:
                    tried, surroundings = as_on_gpu, _as_on_gpu
            if not (tried.kernels or tried.failed):
                refuse(
                    "kernel",
                    "a function that launches a Triton kernel",
                    f"{name_of(self.kernel)}, which launched none on {json.dumps(corners[0])}",
                    "it takes another path on the CPU, or the cases are empty",
                )
        carrying = [i for i in range(len(results)) if i in tried.carrying]
        if reference.in_numpy and self.backward is None:
            carrying = []
        if self.gradients and try_it and not carrying:
            refuse(
                "gradients",
                f"results of {name_of(self.kernel)} that carry gradients, and a backward= beside "
                "a NumPy reference",
                "none",
                "the launch is in no torch.autograd.Function",
            )
        wanted = names if self.gradients is None else self.gradients
        reference.carrying = carrying
        reference.differentiable = wanted if carrying else ()
        kernel.differentiable = wanted if carrying or not (try_it or self.updates) else ()
        yardstick = self.eager and Reference(self.eager, None, self.updates, order)
        if yardstick:
            yardstick.updates_in_place = reference.updates_in_place
        missing = {"real": self.real, "shapes": self.shapes, "cost": self.cost}
        return Twin(
            name=name,
            forward=reference.forward,
            backward=reference.backward if carrying else None,
            kernel=kernel,
            eager=(yardstick or reference).eager,
            arguments=reference.differentiable,
            results=results,
            cases=st.tuples(self.cases, self._tensors()).map(lambda parts: parts[0] | parts[1]),
            corners=corners,
            inputs=read,
            real=self._real,
            shapes=self.shapes or {"largest case drawn": corners[0]},
            cost=self._cost(name),
            dtypes=self.dtypes,
            statistics=tuple(r for i, r in enumerate(results) if i not in carrying),
            studies=corners[-1:],
            undeclared=frozenset(part for part, said in missing.items() if not said),
            launched=tried.kernels,
            most_configurations=self.configs or configs,
            sources=self._sources(tried.kernels),
            surroundings=surroundings,
        )

    def _expect_arguments(self, what: str, names: Sequence[str], known: Sequence[str]) -> None:
        for name in names:
            if name not in known:
                refuse(what, f"arguments of a case ({', '.join(known)})", repr(name))

    def _results(self, reference: Reference, inputs: Inputs) -> tuple[str, ...]:
        """Name the results, from a first run of the reference."""
        arrays, _ = reference.forward(**inputs.tensors, **inputs.options)
        n = len(arrays) - len(self.updates)
        if not arrays:
            refuse("reference", "results", f"none from {name_of(self.reference)}",
                   "it updates its arguments: name them in updates=")  # fmt: skip
        returned = self.results or (
            ("result",) if n == 1 else tuple(f"result {i}" for i in range(n))
        )
        if len(returned) != n:
            refuse("results", f"{n} names, one for each result returned", f"{len(returned)}")
        return (*returned, *self.updates)

    def _sources(self, kernels: dict[str, Any]) -> tuple[str, ...]:
        """Name the user's files, the reference's first; a library's reference is not among them."""
        functions = [self.reference, self.kernel, *(_function_of(k) for k in kernels.values())]
        codes = [getattr(inspect.unwrap(f), "__code__", None) for f in functions]
        library = os.path.dirname(os.path.dirname(torch.__file__))
        files = [code.co_filename for code in codes if code is not None]
        return tuple(dict.fromkeys(f for f in files if not f.startswith(library + os.sep)))

    def _tensors(self) -> st.SearchStrategy[Case]:
        """Draw what a case has beside its arguments."""
        lying = {"layout": st.sampled_from(self.layouts), "d_layout": cotangent_layouts}
        return st.fixed_dictionaries({**lying, "seed": seeds})

    def _real(self, activations: dict[str, np.ndarray]) -> Inputs:
        assert self.real is not None, "fixed_cases leaves real text out"
        return sort_arguments(self.real(activations))

    def _cost(self, name: str) -> Callable[[Case, int], tuple[Cost, Cost | None]]:
        def undeclared(case: Case, itemsize: int) -> NoReturn:
            refuse(name, "a declared cost=", "none", "gptwin.twin(..., cost=...) was left out")

        return self.cost or undeclared

    def _try(
        self,
        kernel: Kernel,
        corners: tuple[Case, ...],
        read: Callable[[Case, Draw], Inputs],
        device: str,
        around: "Around | None" = None,
    ) -> "Tried":
        """Run the kernel forward and backward on the corners."""
        tried = Tried({}, set())
        for case in corners:
            inputs = read(case, RandomArrays(0))
            dtype = getattr(torch, self.dtypes[0])
            given = {
                n: to_torch(v, dtype, device) if isinstance(v, np.ndarray) else v
                for n, v in (inputs.tensors | inputs.options).items()
            }
            wanted = inputs.tensors if self.gradients is None else self.gradients
            kernel.differentiable = () if self.updates or self.gradients == () else tuple(wanted)
            leaves = [given[n].requires_grad_() for n in kernel.differentiable if n in given]
            tensors = [value for value in given.values() if isinstance(value, torch.Tensor)]
            with (
                (around or _nothing_around)(tensors),
                launch.backend("triton"),
                launch.configuration(0),
                launch.recording() as log,
            ):
                try:
                    results = kernel(**given)
                    roots = [r for r in results if r.requires_grad]
                    if roots and leaves:
                        tried.carrying |= {i for i, r in enumerate(results) if r.requires_grad}
                        ones = [torch.ones_like(root) for root in roots]
                        torch.autograd.grad(roots, leaves, ones, allow_unused=True)
                except Exception:  # the check of this case will show it, with all that helps
                    tried.failed = True
            known = plain.launched
            tried.kernels |= {e.kernel: known[e.kernel] for e in log if e.kernel in known}
        return tried


@dataclasses.dataclass
class Tried:
    """What a first run showed: kernels by name, which results carry gradients, if it raised."""

    kernels: dict[str, Any]
    carrying: set[int]
    failed: bool = False


Around = Callable[[list[torch.Tensor]], contextlib.AbstractContextManager[None]]


def _nothing_around(tensors: list[torch.Tensor]) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@contextlib.contextmanager
def _as_on_gpu(tensors: list[torch.Tensor]) -> Iterator[None]:
    """Let "cuda" mean the CPU, and these tensors be there."""
    put_on_gpu(tensors)
    with (
        pretend_gpu(compiled=not launch.INTERPRETED or launch.door().evaluating),
        plain.choosing_here(),
    ):
        yield


def twin(
    kernel: Callable[..., Any],
    reference: Callable[..., Any],
    *,
    cases: Cases,
    inputs: Callable[[Case, Draw], dict[str, Any]] = read_case,
    dtypes: Sequence[str | torch.dtype] = DTYPES,
    updates: Sequence[str] = (),
    gradients: Sequence[str] | None = None,
    backward: Callable[..., Any] | None = None,
    eager: Callable[..., Any] | None = None,
    corners: Sequence[Case] = (),
    results: Sequence[str] = (),
    layouts: Sequence[str] = LAYOUTS,
    cost: Callable[[Case, int], tuple[Cost, Cost | None]] | None = None,
    real: Callable[[dict[str, np.ndarray]], dict[str, Any]] | None = None,
    shapes: Mapping[str, Case] | None = None,
    configs: int | None = None,
) -> Declaration:
    """Declare a kernel of your own and its reference, for `gptwin verify module:NAME` and others.

    Parameters
    ----------
    kernel : callable
        The function that launches: tensors in, results out, on the device of its arguments.
    reference : callable
        The same in PyTorch or NumPy. On float64 it is the truth, in the kernel's dtype (NumPy: in
        float32, then rounded) the yardstick of the error budget. A function whose code names NumPy
        and not PyTorch gets arrays, every other one tensors.
    cases : Hypothesis strategy, or sequence of cases
        A case names the arguments of one call, in their order. A tensor is a dict with its shape,
        ``{"normal": [rows, n], "std": 3.0}``, ``{"integers": [rows], "below": 7}`` or
        ``{"mask": [rows], "share": 0.5}``; everything else is passed as it stands. Functions that
        know all the names get them as keywords, others in the case's order.
    inputs : callable, optional
        `(case, draw) -> arguments by name`, for cases of any other form; `draw` has the methods
        `normal`, `integers` and `mask`.
    dtypes : sequence
        Of the float arguments: float32, float16, bfloat16.
    updates : sequence of str
        Arguments that the kernel writes. The reference writes them, too, or returns the new values
        last. No other argument may change.
    gradients : sequence of str, optional
        Float arguments whose gradients are compared; () for none. Left out: all, if the kernel's
        results carry gradients.
    backward : callable, optional
        The reference's gradients, `(*arguments, *d_results) -> gradients`, one for each float
        argument; left out, PyTorch's autograd in float64. A NumPy reference needs it.
    eager : callable, optional
        Another yardstick than the reference, in PyTorch.
    corners : sequence of cases, optional
        Run with every configuration; left out, two cases drawn from `cases`.
    results : sequence of str, optional
        Names of what is returned.
    layouts : sequence of str
        How tensors lie in memory: "contiguous", "transposed", "every_other", "row_pitch".
    cost : callable, optional
        `(case, itemsize) -> (forward Cost, backward Cost or None)`, as `Twin.cost`.
    real : callable, optional
        `(activations) -> arguments by name`, from a decoder block over real text.
    shapes : mapping of str to case, optional
        Sizes that people run, for inspect and bench.
    configs : int, optional
        Most configurations of an autotuned kernel to run; left out, all.

    Returns
    -------
    Declaration
        Keep it in a module, under a name.

    Raises
    ------
    ValueError
        Naming the parameter that makes no sense.
    """
    for name, value in (
        ("kernel", kernel), ("reference", reference), ("inputs", inputs),
        ("backward", backward), ("eager", eager), ("cost", cost), ("real", real),
    ):  # fmt: skip
        if value is not None and not callable(value):
            refuse(name, "a function", f"a {type(value).__name__}")
    if hasattr(kernel, "arg_names"):
        refuse("kernel", "the function that launches it", "a kernel under @triton.jit")
    for name, names in (
        ("updates", updates), ("gradients", gradients), ("results", results), ("dtypes", dtypes),
        ("layouts", layouts),
    ):  # fmt: skip
        if isinstance(names, str):
            refuse(name, f"a list of names, such as [{names!r}]", repr(names))
    given_dtypes = tuple(str(dtype).removeprefix("torch.") for dtype in dtypes)
    for dtype in given_dtypes or ("none",):
        if dtype not in DTYPES:
            refuse("dtypes", f"some of {', '.join(DTYPES)}", dtype)
    for layout in layouts or ("none",):
        if layout not in LAYOUTS:
            refuse("layouts", f"some of {', '.join(LAYOUTS)}", layout)
    if configs is not None and configs < 1:
        refuse("configs", "at least 1", str(configs))
    listed = not isinstance(cases, st.SearchStrategy)
    if listed and not (isinstance(cases, Sequence) and cases):
        refuse("cases", "a Hypothesis strategy, or a list of cases", f"a {type(cases).__name__}")
    fixed = [*corners, *(cases if isinstance(cases, Sequence) else ())]
    strategy = st.sampled_from(fixed) if isinstance(cases, Sequence) else cases
    return Declaration(
        kernel=kernel,
        reference=reference,
        cases=strategy.map(plain_case),
        corners=tuple(plain_case(case) | {"seed": i + 1} for i, case in enumerate(fixed)),
        inputs=inputs,
        dtypes=given_dtypes,
        updates=tuple(updates),
        gradients=None if gradients is None else tuple(gradients),
        backward=backward,
        eager=eager,
        results=tuple(results),
        layouts=tuple(layouts),
        cost=cost,
        real=real,
        shapes={name: plain_case(case) for name, case in (shapes or {}).items()},
        configs=configs,
    )


def _function_of(kernel: Any) -> Any:
    while hasattr(kernel, "fn"):
        kernel = kernel.fn
    return kernel


def _corners(
    cases: st.SearchStrategy[Case],
    read: Callable[[Case, Draw], Inputs],
    layouts: tuple[str, ...],
) -> tuple[Case, ...]:
    """Draw some cases, and take the largest and the one in the middle."""
    drawn: list[Case] = []

    @seed(0)
    @settings(
        max_examples=DRAWN_FOR_CORNERS,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        database=None,
        deadline=None,
    )
    @given(cases)
    def draw(case: Case) -> None:
        drawn.append(case)

    draw()

    def size(case: Case) -> int:
        inputs = read(case, ShapesAlone(torch.float32))
        tensors = flat((*inputs.tensors.values(), *inputs.options.values()))
        return sum(math.prod(t.shape) for t in tensors if isinstance(t, torch.Tensor))

    ranked = sorted(drawn, key=size)
    largest, middle = ranked[-1], ranked[len(ranked) // 2]
    return (
        largest | {"layout": layouts[-1], "seed": 1},
        *([middle | {"layout": layouts[0], "seed": 2}] if middle != largest else []),
    )
