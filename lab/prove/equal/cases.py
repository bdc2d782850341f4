"""One case of a twin: its reference and its kernels on the same unknowns, compared in the field."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from ....core.checks import taking_anything
from ....kernels.common import launch
from ...own.reference import Reference
from ...twins.draw import RandomArrays, to_torch
from ...twins.twin import Case, Twin, as_tuple, by_argument
from ...verify.check import Prepared, case_inputs, differentiable
from ...verify.check import run as run_operation
from .algebra import number as n
from .algebra.array import shadow
from .algebra.number import NotFollowedError, Number, full, lift, variable
from .evaluation.backend import evaluating
from .evaluation.evaluate import Machine
from .evaluation.host import Host
from .evaluation.memory import OutOfBoundsError
from .explain import Difference, differences
from .stand_ins import standing_in

# How shadows are moved, so that a decision goes the other way: no result may depend on it.
STEERS = ("", "rising", "falling", "steep", "flat", "positive", "negative")
# Of equal shadows the two sides might choose different ones.
JITTER = 1e-3
# The largest shadow of an argument that is made steep.
STEEP = 30.0


@dataclasses.dataclass
class Outcome:
    """What became of one case.

    Attributes
    ----------
    case : Case
    seed : int
    steer : str
        One of STEERS.
    n_elements : int
        Compared.
    differences : list of Difference
        One for each result that differs somewhere.
    error : str
        Why it was not followed to its end; empty if it was.
    decisions : dict
        Line and operation to the ways that shadows decided it.
    trips : dict
        Line of a loop to the most times that it ran, at most 2.
    programs : int
        How many ran.
    degree : float
    counts : dict
        What weakens the statement.
    reached : set of (str, int)
        Kernels and their configurations.
    seconds : float
        Of the processor.
    """

    case: Case
    seed: int
    steer: str = ""
    n_elements: int = 0
    differences: list[Difference] = dataclasses.field(default_factory=list)
    error: str = ""
    decisions: dict[tuple[str, str], set[bool]] = dataclasses.field(default_factory=dict)
    trips: dict[str, int] = dataclasses.field(default_factory=dict)
    programs: int = 0
    degree: float = 0.0
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    reached: set[tuple[str, int]] = dataclasses.field(default_factory=set)
    seconds: float = 0.0

    @property
    def proved(self) -> bool:
        """Whether both sides were followed to the end and agree everywhere."""
        return not self.error and not self.differences


class Inputs:
    """A case's unknowns, as Numbers for the reference and as tensors for the kernel.

    Parameters
    ----------
    twin : Twin
    case : Case
    steer : str
        One of STEERS.
    memory
        Where the tensors' Numbers are kept.
    """

    def __init__(self, twin: Twin, case: Case, steer: str, memory: Any) -> None:
        self.twin, self.case, self.steer, self.memory = twin, case, steer, memory
        self.dtype = getattr(torch, case.get("dtype", "float32"))
        self.noise = np.random.default_rng(1)
        drawn = case_inputs(twin, case, None)
        layout = case.get("layout", "contiguous")
        self.numbers: dict[str, Number] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        for name, array in drawn.tensors.items():
            self.numbers[name], self.tensors[name] = self.attach(self.unknown(array), layout)
        self.options: dict[str, Any] = {}
        self.kernel_options: dict[str, Any] = {}
        for name, value in drawn.options.items():
            self.options[name], self.kernel_options[name] = self.both(value)

    def both(self, value: Any) -> tuple[Any, Any]:
        """Give an option to the reference and to the kernel."""
        if isinstance(value, (list, tuple)) and any(isinstance(v, np.ndarray) for v in value):
            pairs = [self.both(v) for v in value]
            return type(value)(a for a, _ in pairs), type(value)(b for _, b in pairs)
        if not isinstance(value, np.ndarray):
            return value, value
        if value.dtype.kind == "f":
            return self.attach(self.unknown(value))
        return value, to_torch(value, torch.float32, "cpu")

    def unknown(self, array: Any) -> Number:
        """Make unknowns whose shadows are an array's, moved."""
        x = np.asarray(array, float)
        x = x * (1 + JITTER * self.noise.normal(size=x.shape))
        x = x + 1e-6 * self.noise.normal(size=x.shape)
        return variable(_steered(x, self.steer))

    def cotangents(self, results: dict[str, Any]) -> list[tuple[Number, torch.Tensor]]:
        """Draw the gradients of results, as `verify` does."""
        drawn = RandomArrays(self.case.get("seed", 0) + 1)
        layout = self.case.get("d_layout", "contiguous")
        shapes = [tuple(result.shape) for result in results.values()]
        return [self.attach(self.unknown(drawn.normal(*shape)), layout) for shape in shapes]

    def attach(self, number: Number, layout: str = "contiguous") -> tuple[Number, torch.Tensor]:
        """Make a tensor that holds these Numbers; a repeated axis holds one slice of them."""
        with _disable_current_modes():  # what is drawn is unknown, not a constant of the host's
            tensor = to_torch(number.x, self.dtype, "cpu", layout)
        for axis, stride in enumerate(tensor.stride()):
            if stride == 0 and tensor.shape[axis] > 1:
                one = number.map(lambda v: np.take(v, [0], axis))  # noqa: B023
                number = full(one, number.shape)
        self.memory.write(tensor, number)
        return number, tensor


def _steered(x: np.ndarray, steer: str) -> np.ndarray:
    """Move shadows, where the values in the field stay as they are."""
    if x.size == 0 or steer == "":
        return x
    if steer in ("rising", "falling"):
        if x.ndim == 0 or not np.isfinite(x).all():
            return x  # what is not finite stays where it is
        ordered = np.sort(x, axis=-1)
        return ordered if steer == "rising" else ordered[..., ::-1].copy()
    if steer == "steep":  # no further than exponentials are told from 0
        largest = np.abs(np.where(np.isfinite(x), x, 0)).max()
        return x * max(1.0, STEEP / max(largest, 1e-30))
    if steer == "flat":
        return x * 1e-4
    return np.abs(x) if steer == "positive" else -np.abs(x)


def prove_case(twin: Twin, case: Case, seed: int = 0, steer: str = "") -> Outcome:
    """Run a twin's reference and its kernels on one case, and compare all that they return.

    Parameters
    ----------
    twin : Twin
    case : Case
        With its "configuration".
    seed : int
        Of the field.
    steer : str
        One of STEERS.

    Returns
    -------
    Outcome
    """
    outcome, started = Outcome(case, seed, steer), time.process_time()
    run, machine = n.begin(seed), Machine()
    try:
        with np.errstate(all="ignore"):
            _prove(twin, outcome, machine)
    except (NotFollowedError, NotImplementedError) as error:
        outcome.error = f"not followed: {error}"
    except OutOfBoundsError as error:
        outcome.error = str(error)
    except Exception as error:  # what a kernel or a user's code raises
        if os.environ.get("GPTWIN_RAISE"):
            raise
        outcome.error = f"{type(error).__name__}: {str(error)[:300]}"
    outcome.degree, outcome.counts = run.degree, {k: v for k, v in run.counts.items() if v}
    outcome.decisions, outcome.trips = machine.decisions, machine.trips
    outcome.programs, outcome.seconds = machine.programs, time.process_time() - started
    return outcome


def _prove(twin: Twin, outcome: Outcome, machine: Machine) -> None:
    case = outcome.case
    inputs = Inputs(twin, case, outcome.steer, machine.memory)
    expected, d_results = _reference(twin, inputs)
    got = _kernels(twin, inputs, d_results, outcome, machine)
    for name, wanted in expected.items():
        result = got[name].detach()
        if not result.is_floating_point():
            same = np.asarray(shadow(wanted)) == result.numpy()
            outcome.n_elements += result.numel()
            if not same.all():
                outcome.differences.append(Difference.of_integers(name, wanted, result, same))
            continue
        found = machine.memory.read(result)
        outcome.n_elements += found.size
        wanted = lift(wanted)
        if wanted.shape != found.shape:
            outcome.differences.append(Difference.of_shapes(name, wanted.shape, found.shape))
            continue
        if (one := differences(name, wanted, found, machine.memory, result)) is not None:
            outcome.differences.append(one)


Expected = tuple[dict[str, Any], tuple[torch.Tensor, ...]]


def _reference(twin: Twin, inputs: Inputs) -> Expected:
    """Run the reference on Numbers; return its results, gradients, and cotangents as tensors."""
    own = getattr(twin.forward, "__self__", None)
    modules = ["gptwin.core."]
    if isinstance(own, Reference):
        if not own.in_numpy:
            return _in_torch(twin, own, inputs)
        modules += [Reference.__module__, own.function.__module__]
    with taking_anything(), standing_in(tuple(modules)):
        results, saved = twin.forward(**inputs.numbers, **inputs.options)
        named = dict(zip(twin.results, as_tuple(results), strict=False))
        pairs = inputs.cotangents(differentiable(twin, named))
        if pairs:
            assert twin.backward is not None
            gradients = by_argument(twin, twin.backward(saved, *(number for number, _ in pairs)))
            named |= {f"d_{k}": g for k, g in gradients.items() if k in inputs.numbers}
    return named, tuple(tensor for _, tensor in pairs)


def _in_torch(twin: Twin, reference: Reference, inputs: Inputs) -> Expected:
    """Run a user's reference in PyTorch, and PyTorch's gradients of it."""
    with Host(inputs.memory) as host:
        leaves = {name: t.detach().requires_grad_() for name, t in inputs.tensors.items()}
        results = reference.eager(**leaves, **inputs.kernel_options)
        named = dict(zip(twin.results, results, strict=False))
        roots = differentiable(twin, named)
        pairs = inputs.cotangents(roots)
        wanted = {name: leaf for name, leaf in leaves.items() if name in twin.arguments}
        if pairs:
            gradients = torch.autograd.grad(
                list(roots.values()), list(wanted.values()), [tensor for _, tensor in pairs],
                materialize_grads=True,
            )  # fmt: skip
            named |= {f"d_{name}": g for name, g in zip(wanted, gradients, strict=True)}
    try:
        expected = {
            name: inputs.memory.read(result.detach())
            if result.is_floating_point()
            else result.detach().numpy()
            for name, result in named.items()
        }
    except NotFollowedError as error:
        raise NotFollowedError(f"the reference: {error}{_left_out(host)}") from error
    return expected, tuple(tensor for _, tensor in pairs)


def _left_out(host: Host) -> str:
    """Name what PyTorch computed and nobody followed."""
    left = ", ".join(dict.fromkeys(host.not_followed))
    return f" (of PyTorch's operations not followed: {left})" if left else ""


def _kernels(
    twin: Twin,
    inputs: Inputs,
    d_results: tuple[torch.Tensor, ...],
    outcome: Outcome,
    machine: Machine,
) -> dict[str, torch.Tensor]:
    """Run the kernels, forward and backward, as `verify` does."""
    prepared = Prepared(inputs.tensors, inputs.kernel_options, d_results, {}, {})
    with following(machine) as host:
        with launch.configuration(outcome.case.get("configuration", 0)):
            with launch.recording() as log:
                try:
                    got = run_operation(twin, twin.kernel, prepared)
                except NotFollowedError as error:
                    raise NotFollowedError(f"{error}{_left_out(host)}") from error
    outcome.reached = {(entry.kernel, entry.configuration) for entry in log}
    return got


@contextlib.contextmanager
def following(machine: Machine) -> Iterator[Host]:
    """Follow every launch and what PyTorch computes between launches while the context lasts."""
    host = Host(machine.memory)
    with evaluating(machine), launch.backend("triton"), host:
        yield host
