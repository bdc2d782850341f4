"""Which memory PyTorch has given out, and which bytes of it nothing has written.

PyTorch shows every operation to a dispatch mode. `torch.empty` and its kin make memory whose bytes
nothing has written; every other operation writes its results whole, and those of its arguments
that its schema says it writes. What a kernel writes, the sanitizer tells. Memory that is first seen
as an argument holds data. What is written past PyTorch, say through `tensor.numpy()`, is not seen.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_UNWRITTEN = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty"}
_UNWRITTEN |= {"new_empty_strided"}
_CONSTANT = {"zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"}
_CONSTANT |= {"full", "full_like", "new_full", "fill_", "zero_"}


@dataclasses.dataclass(eq=False)
class Storage:
    """A piece of memory.

    Attributes
    ----------
    start, end : int
        Its addresses; `end` is the first behind it.
    number : int
        From 0 on, in the order in which they were first seen.
    holds_data : bool
        Whether PyTorch gave it values of its own: not empty or of one constant.
    unwritten : numpy.ndarray of bool or None
        For each byte; None if all are written.
    memory : StorageWeakRef
        PyTorch's, which may have been given back since.
    """

    start: int
    end: int
    number: int
    holds_data: bool
    unwritten: np.ndarray | None
    memory: StorageWeakRef

    def write(self, positions: np.ndarray, itemsize: int) -> None:
        """Note that items of `itemsize` bytes were written at these bytes."""
        if self.unwritten is not None:
            self.unwritten[item_bytes(positions, itemsize)] = False

    def is_unwritten(self, positions: np.ndarray, itemsize: int) -> np.ndarray:
        """Say which of the items at these bytes have a byte that nothing has written."""
        if self.unwritten is None:
            return np.zeros(len(positions), dtype=bool)
        return self.unwritten[item_bytes(positions, itemsize)].any(axis=-1)


def item_bytes(positions: np.ndarray, itemsize: int) -> np.ndarray:
    """Return the bytes of items that start at `positions`, [item] -> [item, byte]."""
    return positions[:, None] + np.arange(itemsize)


def element_positions(tensor: torch.Tensor) -> np.ndarray:
    """Return the byte at which each element starts, counted from the tensor's first, in order."""
    positions = np.zeros((), dtype=np.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        positions = positions[..., None] + np.arange(size) * (stride * tensor.element_size())
    return positions.reshape(-1)


class Storages(TorchDispatchMode):
    """Every storage that PyTorch's operations have met while the context lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._by_start: dict[int, Storage] = {}

    def of(self, tensor: torch.Tensor, maker: str = "") -> Storage:
        """Find the storage of a tensor, or take it up.

        Parameters
        ----------
        tensor : torch.Tensor
            On the CPU.
        maker : str
            The operation that has just made the tensor, if one has.
        """
        memory = tensor.untyped_storage()
        known = self._by_start.get(memory.data_ptr())
        if known is not None and not known.memory.expired():
            return known
        start, size = memory.data_ptr(), memory.nbytes()
        unwritten = np.ones(size, dtype=bool) if maker in _UNWRITTEN else None
        holds_data = maker not in _UNWRITTEN | _CONSTANT
        storage = Storage(
            start, start + size, self.count, holds_data, unwritten, StorageWeakRef(memory)
        )
        self.count += 1
        if start:  # an empty tensor has no memory
            self._by_start[start] = storage
        return storage

    def at(self, addresses: np.ndarray) -> list[Storage]:
        """Find the storages that addresses lie in.

        Parameters
        ----------
        addresses : numpy.ndarray of int64 [lane]
        """
        return [
            storage
            for storage in self._by_start.values()
            if ((storage.start <= addresses) & (addresses < storage.end)).any()
            and not storage.memory.expired()
        ]

    def forget_freed(self) -> None:
        """Drop what PyTorch has given back."""
        self._by_start = {k: s for k, s in self._by_start.items() if not s.memory.expired()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and note what it made and wrote."""
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self.of(tensor)
        result = func(*args, **kwargs)
        maker = func.overloadpacket.__name__
        for tensor in _tensors(_written(func, args, kwargs)):
            storage = self.of(tensor)
            storage.holds_data |= maker not in _CONSTANT
            if storage.unwritten is not None:
                start = tensor.data_ptr() - storage.start
                storage.write(start + element_positions(tensor), tensor.element_size())
        for tensor in _tensors(result):
            self.of(tensor, maker)
        return result


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for leaf in tree_leaves(values):
        if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
            yield leaf


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Pick the arguments that an operation writes."""
    written = []
    for i, parameter in enumerate(func._schema.arguments):
        if parameter.alias_info is not None and parameter.alias_info.is_write:
            written.append(args[i] if i < len(args) else kwargs.get(parameter.name))
    return written
