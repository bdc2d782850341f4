"""The arguments of a twin at a size, drawn on the device itself: random data, never zeros."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..lab.twins.twin import Case, Twin, as_tuple

Operation = Callable[..., Any]
Tensors = dict[str, torch.Tensor]

# Which results a backward pass starts from, where it is not all that carry a gradient: training
# starts from these, and peers have no others.
ROOTS = {"attention": ("output",), "cross_entropy": ("loss",)}


class OnDevice:
    """Draw tensors on a device; see `lab.twin.Draw`.

    Parameters
    ----------
    seed : int
    dtype : torch.dtype
        Of the floats.
    device : str
    """

    def __init__(self, seed: int, dtype: torch.dtype, device: str) -> None:
        self.dtype, self.device = dtype, device
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> torch.Tensor:
        """Return floats from N(mean, std²)."""
        x = torch.randn(shape, generator=self.generator, device=self.device)
        return x.mul_(std).add_(mean).to(self.dtype)

    def sparse_minus_inf(self, x: torch.Tensor, share: float) -> torch.Tensor:
        """Return `x` with about this share of its elements at −inf."""
        return x.masked_fill(self.mask(*x.shape, share=share), -torch.inf)

    def mask(self, *shape: int, share: float) -> torch.Tensor:
        """Return bools, about this share of them True."""
        return torch.rand(shape, generator=self.generator, device=self.device) < share

    def integers(self, *shape: int, below: int) -> torch.Tensor:
        """Return int64 from 0 to `below` − 1."""
        return torch.randint(below, shape, generator=self.generator, device=self.device)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What an operation is called with at one size.

    Attributes
    ----------
    twin : Twin
    case : Case
    leaves : dict
        The differentiable arguments; they require gradients if the twin has a backward pass.
    options : dict
        All others.
    """

    twin: Twin
    case: Case
    leaves: Tensors
    options: dict[str, Any]

    @property
    def has_backward(self) -> bool:
        """Whether the twin has a backward pass."""
        return self.twin.backward is not None

    def forward(self, operation: Operation) -> Tensors:
        """Call an operation; return its results by name."""
        with torch.set_grad_enabled(self.has_backward):
            results = as_tuple(operation(**self.leaves, **self.options))
        return dict(zip(self.twin.results, results, strict=False))

    def roots(self, results: Tensors) -> Tensors:
        """Return those of the results that backward starts from."""
        wanted = ROOTS.get(self.twin.name, self.twin.results)
        return {
            name: x
            for name, x in results.items()
            if name in wanted and name not in self.twin.statistics
        }

    def cotangents(self, roots: Tensors) -> Tensors:
        """Draw the roots' gradients: the same numbers for every provider."""
        first = next(iter(self.leaves.values()))
        drawn = {}
        for i, (name, root) in enumerate(roots.items()):
            draw = OnDevice(i + 1, first.dtype, first.device.type)
            drawn[name] = draw.normal(*root.shape).to(root)
        return drawn

    def backward(self, roots: Tensors, cotangents: Tensors, *, again: bool = False) -> Tensors:
        """Return the gradients of the leaves by "d_" and name.

        Parameters
        ----------
        roots, cotangents : dict
        again : bool
            Keep the graph: the same backward pass will run again.
        """
        wanted = {n: leaf for n, leaf in self.leaves.items() if n in self.twin.arguments}
        gradients = torch.autograd.grad(
            list(roots.values()),
            list(wanted.values()),
            list(cotangents.values()),
            retain_graph=again,
        )
        return {f"d_{name}": g for name, g in zip(wanted, gradients, strict=True)}

    def as_dtype(self, dtype: torch.dtype) -> "Arguments":
        """Return the same numbers in another dtype."""
        return dataclasses.replace(
            self,
            leaves={
                name: x.detach().to(dtype).requires_grad_(x.requires_grad)
                for name, x in self.leaves.items()
            },
        )


def draw_arguments(twin: Twin, case: Case, dtype: str, device: str) -> Arguments:
    """Draw the arguments of a case.

    Parameters
    ----------
    twin : Twin
    case : Case
    dtype : str
    device : str
        "cuda" or "cpu".

    Returns
    -------
    Arguments
    """
    inputs = twin.inputs(case, OnDevice(case.get("seed", 0), getattr(torch, dtype), device))
    options = {
        name: torch.from_numpy(x).to(device) if isinstance(x, np.ndarray) else x
        for name, x in inputs.options.items()
    }
    leaves = {
        name: x.detach().requires_grad_(twin.backward is not None)
        for name, x in inputs.tensors.items()
    }
    return Arguments(twin, case, leaves, options)
