"""A user's kernel as an instrument runs it.

What it updates it gets as a copy, and what it must leave alone is compared afterwards.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ...core.checks import refuse
from ..pretend.places import on_gpu, put_on_gpu
from .arguments import Call, flat, name_of


class Kernel:
    """The function that launches.

    Parameters
    ----------
    call : Call
    updates : tuple of str
        Arguments that it writes; they are results, too, after what it returns.
    """

    def __init__(self, call: Call, updates: tuple[str, ...]) -> None:
        self.call, self.updates = call, updates
        self.differentiable: tuple[str, ...] = ()
        self.n_results = 0
        # By this mutants are found in the user's own file.
        self.__name__ = name_of(call.function)
        self.__module__ = getattr(call.function, "__module__", __name__)
        self.__wrapped__ = call.function

    def __call__(self, **arguments: Any) -> tuple[torch.Tensor, ...]:
        """Run it.

        Returns
        -------
        tuple of torch.Tensor

        Raises
        ------
        ValueError
            If it returns another number of results than the reference, or none that are tensors.
        AssertionError
            If it writes to an argument that is not among `updates`.
        """
        given = {name: self._prepared(name, value) for name, value in arguments.items()}
        held = {n: v for n, v in given.items() if isinstance(v, torch.Tensor) and not v.is_meta}
        with _disable_current_modes():  # this reading is the instrument's, not the kernel's
            before = {n: _bytes(v).clone() for n, v in held.items() if n not in self.updates}
        returned = flat(self.call(given))
        for name, content in before.items():
            with _disable_current_modes():
                changed = not torch.equal(_bytes(held[name]), content)
            if changed:
                raise AssertionError(
                    f"{name}: expected to be left as it is, but the kernel wrote to it (likely "
                    f"cause: an update in place that is not declared, as updates=[{name!r}])"
                )
        results = self._results(given, returned)
        for result in results:
            if not isinstance(result, torch.Tensor):
                refuse("kernel", "to return tensors", f"a {type(result).__name__}")
        if self.n_results and len(results) != self.n_results:
            refuse("kernel", f"{self.n_results} results, as from the reference", f"{len(results)}")
        return results

    def unwatched(self, **arguments: Any) -> tuple[torch.Tensor, ...]:
        """Run it as a benchmark does: what it updates is copied all the same, for the next call."""
        given = {name: self._prepared(name, value) for name, value in arguments.items()}
        return self._results(given, flat(self.call(given)))

    def _results(self, given: dict[str, Any], returned: list[Any]) -> tuple[torch.Tensor, ...]:
        updated = [given[name] for name in self.updates]
        return (*(r for r in returned if not any(r is u for u in updated)), *updated)

    def _prepared(self, name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if name in self.updates:
            return _copy(value.detach())
        return value if name in self.differentiable else value.detach()


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """Copy with all that lies between the elements, so that strides stay."""
    if tensor.is_meta:
        return tensor.clone()
    whole = torch.empty(0, dtype=tensor.dtype, device=tensor.untyped_storage().device)
    memory = whole.set_(tensor.untyped_storage()).clone()
    copy = memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    return put_on_gpu(copy) if on_gpu(tensor) else copy


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return all bytes of a tensor's memory."""
    memory = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory)
