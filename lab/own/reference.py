"""A user's reference as the truth, in float64, and as the yardstick, in the kernel's own dtype."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ...core.checks import refuse
from .arguments import Call, flat, name_of, takes_arrays

_LOWER = (torch.float32, torch.float16, torch.bfloat16)


class _KeepsFloat64(TorchDispatchMode):
    """Lets `.float()` in a reference leave float64 alone: the truth is not to be rounded."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        options = dict(kwargs or {})
        casts = function is torch.ops.aten._to_copy.default and options.get("dtype") in _LOWER
        if casts and args[0].dtype == torch.float64:
            options["dtype"] = torch.float64
        return function(*args, **options)


class Reference:
    """A reference in PyTorch or NumPy.

    Parameters
    ----------
    function : callable
        What it computes it returns; what `updates` names it may write in place instead.
    backward : callable or None
        `(*arguments, *d_results) -> gradients`, one for each of `differentiable`.
    updates : tuple of str
        Arguments that are results, too.
    order : dict
        As in `Call`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        backward: Callable[..., Any] | None,
        updates: tuple[str, ...],
        order: dict[str, int],
    ) -> None:
        self.function, self.own_backward, self.updates = function, backward, updates
        self.call = Call("reference", function, order)
        self.in_numpy = takes_arrays(function)
        self.updates_in_place: bool | None = None
        # Known once the kernel was tried.
        self.differentiable: tuple[str, ...] = ()
        self.carrying: list[int] = []

    # --- the truth --------------------------------------------------------------------------------

    def forward(self, **arguments: Any) -> tuple[tuple[np.ndarray, ...], Any]:
        """Compute results in float64, and what `backward` needs."""
        if self.in_numpy:
            given = {n: _copied(value) for n, value in arguments.items()}
            results = [np.asarray(value) for value in self._results(given, arguments)]
            saved: Any = arguments
        else:
            given = {
                name: self._leaf(name, value) if isinstance(value, np.ndarray) else value
                for name, value in arguments.items()
            }
            with _KeepsFloat64(), torch.enable_grad():
                roots = [torch.as_tensor(r) for r in self._results(given, arguments)]
            results = [root.detach().numpy() for root in roots]
            saved = (arguments, given, roots)
        for result in results:
            if result.dtype.kind == "f" and result.dtype != np.float64:
                refuse(
                    "reference",
                    "float64 results of float64 arguments",
                    f"{result.dtype} from {name_of(self.function)}",
                    "a dtype that it names: the truth would be rounded",
                )
        return tuple(results), saved

    def backward(self, saved: Any, *d_results: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the gradients of a result's floats in float64."""
        if self.own_backward is not None:
            arguments = saved if self.in_numpy else saved[0]
            return self._given(arguments, d_results, torch.from_numpy)
        _, given, roots = saved
        names = [name for name in self.differentiable if isinstance(given.get(name), torch.Tensor)]
        cotangents = [torch.from_numpy(np.asarray(d)) for d in d_results]
        with _KeepsFloat64():
            gradients = torch.autograd.grad(
                [roots[i] for i in self.carrying], [given[name] for name in names], cotangents,
                materialize_grads=True,
            )  # fmt: skip
        return {name: g.numpy() for name, g in zip(names, gradients, strict=True)}

    def _leaf(self, name: str, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.array(array, order="C"))
        return tensor.requires_grad_(name in self.differentiable and not self.updates)

    def _results(self, given: dict[str, Any], before: dict[str, Any]) -> list[Any]:
        """Call the reference; what it updated comes last, returned or in place."""
        returned = flat(self.call(given))
        if not self.updates:
            return returned
        updated = [given[name] for name in self.updates]
        if self.updates_in_place is None:
            pairs = zip(updated, self.updates, strict=True)
            self.updates_in_place = len(returned) < len(updated) or any(
                not np.array_equal(np.asarray(new), before[n], equal_nan=True) for new, n in pairs
            )
        if not self.updates_in_place:
            return returned
        return [r for r in returned if not any(r is u for u in updated)] + updated

    def _given(
        self, arguments: dict[str, Any], d_results: Any, as_tensor: Callable[[Any], Any]
    ) -> dict[str, Any]:
        """Call the user's own backward pass."""
        assert self.own_backward is not None
        values = [arguments[name] for name in sorted(arguments, key=self.call.order.__getitem__)]
        values += d_results
        if not self.in_numpy:
            values = [as_tensor(v) if isinstance(v, np.ndarray) else v for v in values]
        names = [name for name in self.differentiable if name in arguments]
        gradients = flat(self.own_backward(*values))
        if len(gradients) != len(names):
            refuse("backward", f"a gradient for each of {', '.join(names)}", f"{len(gradients)}")
        return {n: np.asarray(g) for n, g in zip(names, gradients, strict=True)}

    # --- the yardstick ----------------------------------------------------------------------------

    def eager(self, **arguments: Any) -> tuple[torch.Tensor, ...]:
        """Compute results on tensors, in their own dtype or, where that is not there, near it."""
        before: dict[str, Any] = {}
        if self.updates_in_place is None:
            before = {n: arguments[n].detach().cpu().double().numpy() for n in self.updates}
        given = {n: v.detach().clone() if n in self.updates else v for n, v in arguments.items()}
        if self.in_numpy:
            return _ByNumPy.apply(self, list(given), *given.values())
        try:
            return tuple(torch.as_tensor(r) for r in self._results(given, before))
        except (RuntimeError, NotImplementedError) as error:
            if "not implemented for" not in str(error):
                raise
        with _widened(given) as (wide, dtype):
            results = [torch.as_tensor(r) for r in self._results(wide, before)]
        return tuple(r.to(dtype) if r.is_floating_point() else r for r in results)


@contextmanager
def _widened(given: dict[str, Any]) -> Iterator[tuple[dict[str, Any], torch.dtype]]:
    """Give the arguments in float32, where PyTorch has no operation in half precision on a CPU."""
    halves = [v for v in given.values() if isinstance(v, torch.Tensor) and v.is_floating_point()]
    wide = {n: v.float() if any(v is h for h in halves) else v for n, v in given.items()}
    yield wide, halves[0].dtype


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


class _ByNumPy(torch.autograd.Function):
    """A NumPy reference in float32, rounded to the dtype of the tensors."""

    @staticmethod
    def forward(ctx: Any, reference: Reference, names: list[str], *values: Any) -> Any:
        ctx.reference, ctx.names = reference, names
        ctx.save_for_backward(*(v for v in values if isinstance(v, torch.Tensor)))
        ctx.plain = [None if isinstance(v, torch.Tensor) else v for v in values]
        ctx.is_tensor = [isinstance(v, torch.Tensor) for v in values]
        given = dict(zip(names, map(_as_array, values), strict=True))
        before = {name: _copied(value) for name, value in given.items()}
        results = reference._results(given, before)
        like = next(v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point())
        return tuple(_rounded(result, like) for result in results)

    @staticmethod
    def backward(ctx: Any, *d_results: torch.Tensor) -> Any:
        saved = iter(ctx.saved_tensors)
        values = [
            next(saved) if is_tensor else value
            for value, is_tensor in zip(ctx.plain, ctx.is_tensor, strict=True)
        ]
        given = dict(zip(ctx.names, map(_as_array, values), strict=True))
        carrying = [_as_array(d_results[i]) for i in ctx.reference.carrying]
        found = ctx.reference._given(given, carrying, torch.from_numpy)
        pairs = zip(ctx.names, values, strict=True)
        return None, None, *(_rounded(found[n], v) if n in found else None for n, v in pairs)


def _as_array(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    values = value.detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy().copy()


def _rounded(result: Any, like: torch.Tensor) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(result)).to(like.device)
    return tensor.to(like.dtype) if tensor.is_floating_point() else tensor
