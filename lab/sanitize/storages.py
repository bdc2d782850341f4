"""Which memory PyTorch has given out, and which bytes of it nothing has written.

PyTorch shows every operation to a dispatch mode. `torch.empty` and its kin make memory whose bytes
nothing has written; every other operation writes its results whole, and those of its arguments
that its schema says it writes. What a kernel writes, the sanitizer tells. Memory that is first seen
as an argument holds data, and so does what is lent to NumPy.
"""

import ctypes
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..pretend import frames

_UNWRITTEN = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty"}
_UNWRITTEN |= {"new_empty_strided"}
_CONSTANT = {"zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"}
_CONSTANT |= {"full", "full_like", "new_full", "fill_", "zero_"}
_PYTORCH = {"aten", "prim", "prims"}
# Operations that copy elements in order; those that read what a mask or an index selects; those
# that read only a shape.
_COPIES = {"clone", "_to_copy"}
_SELECTS = {"where", "masked_fill", "masked_fill_", "masked_select", "masked_scatter", "index"}
_SELECTS |= {"index_select", "gather", "embedding", "nan_to_num", "cat", "stack", "nonzero"}
_SELECTS |= {"index_put", "index_put_", "scatter", "scatter_", "index_copy", "index_copy_", "copy_"}
_MAKES = ("_like", "resize_", "set_", "new_empty", "new_zeros", "new_ones", "new_full", "detach")
# Where a custom operation may be implemented, in the order in which we look.
_CUSTOM_KEYS = ("CUDA", "CPU", "CompositeExplicitAutograd", "CompositeImplicitAutograd")


@dataclasses.dataclass(frozen=True)
class LastWrite:
    """Who wrote to a storage last: kernel, program, argument and source line."""

    kernel: str
    program: tuple[int, int, int]
    argument: str
    where: str


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
    made_by : code or None
        The innermost code of the program that made it (`frames.maker`); None if it was there.
    last_write : LastWrite or None
        By a kernel.
    last_user : LastWrite or None
        The kernel that was given it last, whether it wrote or not.
    """

    start: int
    end: int
    number: int
    holds_data: bool
    unwritten: np.ndarray | None
    memory: StorageWeakRef
    made_by: CodeType | None = None
    last_write: LastWrite | None = None
    last_user: LastWrite | None = None

    def write(self, positions: np.ndarray, itemsize: int) -> None:
        """Note that items of `itemsize` bytes were written at these bytes."""
        if self.unwritten is not None:
            self.unwritten[item_bytes(positions, itemsize)] = False

    def forget_if_written(self) -> None:
        """Keep no record of bytes that are all written."""
        if self.unwritten is not None and not self.unwritten.any():
            self.unwritten = None

    def is_unwritten(self, positions: np.ndarray, itemsize: int) -> np.ndarray:
        """Say which of the items at these bytes have a byte that nothing has written."""
        if self.unwritten is None:
            return np.zeros(len(positions), dtype=bool)
        return self.unwritten[item_bytes(positions, itemsize)].any(axis=-1)


def memory_of(storage: Storage) -> np.ndarray:
    """View a storage's bytes."""
    size = storage.end - storage.start
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(storage.start))


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
    """Every storage that PyTorch's operations have met while the context lasts.

    Parameters
    ----------
    reader : callable, optional
        Told of a tensor that an operation computes with, though some of it is unwritten.
    """

    def __init__(self, reader: Callable[[torch.Tensor], None] | None = None) -> None:
        super().__init__()
        self._reader = reader
        self._declared: list[set[Storage]] = []
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
            start,
            start + size,
            self.count,
            holds_data,
            unwritten,
            StorageWeakRef(memory),
            frames.maker() if maker else None,
        )
        self.count += 1
        if start:  # an empty tensor has no memory
            self._by_start[start] = storage
            if unwritten is not None and tensor.dtype != torch.bool:
                memory_of(storage)[:] = 0xFF  # NaN in every format, -1 in integers
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

    @contextmanager
    def lending(self) -> Iterator[None]:
        """See what is lent to NumPy, which may read and write it as it likes, past PyTorch."""
        lend = torch.Tensor.numpy

        def numpy(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
            storage = self.of(tensor)
            if storage.unwritten is not None:
                start = tensor.data_ptr() - storage.start + element_positions(tensor)
                lost = storage.is_unwritten(start, tensor.element_size())
                if lost.any() and not lost.all() and self._reader is not None:
                    self._reader(tensor)  # wholly unwritten memory is lent to be written
                storage.unwritten = None
            return lend(tensor, *args, **options)

        torch.Tensor.numpy = numpy  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.Tensor.numpy = lend  # type: ignore[method-assign]

    def forget_freed(self) -> None:
        """Drop what PyTorch has given back."""
        self._by_start = {k: s for k, s in self._by_start.items() if not s.memory.expired()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and note what it made and wrote."""
        kwargs = kwargs or {}
        maker = func.overloadpacket.__name__
        given = list(_tensors((args, kwargs)))
        for tensor in given:
            self.of(tensor)
        lost = self._look_at_reads(func, maker, args, kwargs, given)
        if func.namespace in _PYTORCH:
            result = func(*args, **kwargs)
        else:
            result = self._run_custom(func, args, kwargs)
        for tensor in _tensors(_written(func, args, kwargs)):
            storage = self.of(tensor)
            storage.holds_data |= maker not in _CONSTANT
            if storage.unwritten is not None and func.namespace in _PYTORCH:
                start = tensor.data_ptr() - storage.start
                storage.write(start + element_positions(tensor), tensor.element_size())
        for tensor in _tensors(result):
            self.of(tensor, maker)
            if lost is not None and lost.size == tensor.numel():
                self._leave_unwritten(tensor, lost)
        return result

    def _look_at_reads(
        self,
        func: Any,
        maker: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: list[torch.Tensor],
    ) -> np.ndarray | None:
        """Tell of unwritten elements that are computed with; return those that are copied."""
        if func.namespace not in _PYTORCH or maker in _SELECTS or maker.endswith(_MAKES):
            return None
        if any(
            r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns
        ):
            return None  # a view
        written = {id(tensor) for tensor in _tensors(_written(func, args, kwargs))}
        for tensor in given:
            storage = self.of(tensor)
            if storage.unwritten is None or id(tensor) in written:
                continue
            start = tensor.data_ptr() - storage.start
            lost = storage.is_unwritten(start + element_positions(tensor), tensor.element_size())
            if lost.any() and maker in _COPIES:
                return lost
            if lost.any() and self._reader is not None:
                self._reader(tensor)
        return None

    def _leave_unwritten(self, tensor: torch.Tensor, lost: np.ndarray) -> None:
        """Let the copy of an unwritten element be unwritten."""
        storage = self.of(tensor)
        start = tensor.data_ptr() - storage.start
        positions = start + element_positions(tensor)
        if storage.unwritten is None:
            storage.unwritten = np.zeros(storage.end - storage.start, dtype=bool)
        storage.unwritten[item_bytes(positions[lost], tensor.element_size())] = True

    def _run_custom(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation of a library, and see those that it is made of."""
        for key in _CUSTOM_KEYS:
            if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key):
                updated = {self.of(tensor) for tensor in _tensors(_written(func, args, kwargs))}
                given = {self.of(tensor) for tensor in _tensors((args, kwargs))}
                self._declared.append(given - updated)
                try:
                    with self:
                        return func._op_dk(getattr(torch._C.DispatchKey, key), *args, **kwargs)
                finally:
                    self._declared.pop()
        return func(*args, **kwargs)

    def is_declared_input(self, storage: Storage) -> bool:
        """Say whether a custom operation that runs has declared that it does not write there.

        Parameters
        ----------
        storage : Storage
        """
        return any(storage in inputs for inputs in self._declared)


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
