"""The launches that a proof starts from: which variants of a kernel there are.

A twin's cases are run on tensors without memory, a user's driver as it is; kernels are neither run
nor compiled. Launches that differ in numbers alone are one variant; which numbers they were given
serves to hold the contract against (`holding`).
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import torch

from .....kernels.common import plain
from .....kernels.common.launch import Launch, recording
from ....pretend.gpu import pretend_gpu
from ....sanitize.drivers import find_drivers, load
from ....twins.draw import ShapesAlone
from ....twins.twin import Twin, as_tuple
from . import compile as front_end
from .call import Call


@dataclasses.dataclass
class Variant:
    """A kernel as it is compiled, and calls of it.

    Attributes
    ----------
    kernel : str
    configuration : int
        Of the autotuner.
    calls : list of Call
        With different numbers.
    flags : tuple
        What is compiled in, but for what the configuration sets.
    """

    kernel: str
    configuration: int
    calls: list[Call]
    flags: tuple[Any, ...]

    @property
    def call(self) -> Call:
        """The first call."""
        return self.calls[0]


def calls_of_twin(twin: Twin, dtypes: Iterable[str]) -> tuple[list[Variant], list[str]]:
    """Collect the variants of a twin's kernels.

    Parameters
    ----------
    twin : Twin
    dtypes : iterable of str

    Returns
    -------
    list of Variant, list of str
        The variants, and what kept cases from being run.
    """
    launches: list[Launch] = []
    problems: dict[str, None] = {}
    for dtype in dtypes:
        for case in (*twin.corners, *twin.shapes.values()):
            with recording(calls_only=True) as log:
                try:
                    _run(twin, case, getattr(torch, dtype))
                except Exception as error:  # whatever an operation without memory raises
                    problems[f"{type(error).__name__}: {error}"] = None
            launches += log
    return variants(launches), list(problems)


def _run(twin: Twin, case: dict[str, Any], dtype: torch.dtype) -> None:
    """Run a twin and its backward pass on shapes alone."""
    inputs = twin.inputs(case, ShapesAlone(dtype))
    tensors = {name: tensor.requires_grad_() for name, tensor in inputs.tensors.items()}
    results = as_tuple(twin.kernel(**tensors, **inputs.options))
    roots = [result for result in results if result.requires_grad]
    if roots:
        cotangents = [torch.empty_like(root) for root in roots]
        torch.autograd.grad(roots, list(tensors.values()), cotangents, allow_unused=True)


def calls_of_file(path: str, kernel: str) -> tuple[ModuleType, list[Variant]]:
    """Collect the variants of a user's kernels that the drivers beside them launch.

    Parameters
    ----------
    path : str
        A Python file.
    kernel : str
        One of its kernels; "" for all that have a driver.

    Returns
    -------
    module, list of Variant
    """
    with pretend_gpu(compiled=True):
        plain.watch_plain_launches()
        module = load(path)
        with recording(calls_only=True) as log:
            for name in find_drivers(module, path, kernel, None):
                with contextlib.suppress(Exception):  # what it computes from is not there
                    getattr(module, name)()
    return module, variants(log)


def variants(launches: Iterable[Launch]) -> list[Variant]:
    """Put launches together that are compiled to the same code.

    Parameters
    ----------
    launches : iterable of Launch

    Returns
    -------
    list of Variant
    """
    found: dict[Any, Variant] = {}
    for launch in launches:
        if launch.call is None:
            continue
        call = Call(*launch.call)
        kinds = tuple(_kinds(call))
        key = launch.kernel, kinds
        if key not in found:
            flags = tuple(k for k in kinds if k[0] not in launch.options)
            found[key] = Variant(launch.kernel, launch.configuration, [], flags)
        found[key].calls.append(call)
    return list(found.values())


def _kinds(call: Call) -> Iterator[Any]:
    """Say what of a call is compiled in."""
    for name, value in front_end.arguments(call).items():
        yield name, str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
    for name, value in sorted(front_end.constants(call).items()):
        yield name, repr(value)
