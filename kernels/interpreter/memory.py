"""Loads, stores and atomics: each can be observed, and a lane that loads nothing is undefined."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from .location import source_line
from .patches import extends
from .values import bfloat16_to_float32, is_bfloat16, poison, round_to_bfloat16


@dataclasses.dataclass(frozen=True, eq=False)
class Access:
    """One load, store or atomic operation of one program.

    Attributes
    ----------
    kind : str
        "load", "store" or "atomic".
    kernel : str
        The name of the launched kernel (not of the device function that does the access).
    program : tuple of int
        The program's index in the grid, (x, y, z).
    addresses : numpy.ndarray of uint64
        The byte address of each lane.
    mask : numpy.ndarray of bool
        Which lanes are active; the shape of `addresses`.
    itemsize : int
        Bytes per lane.
    values : numpy.ndarray or None
        What a store writes, or the operand of an atomic; bfloat16 as uint16 bits. None for a load.
    where : str
        The kernel's source line, "file:line".
    """

    kind: str
    kernel: str
    program: tuple[int, int, int]
    addresses: np.ndarray
    mask: np.ndarray
    itemsize: int
    values: np.ndarray | None
    where: str


_observers: list[Callable[[Access], object]] = []


@contextmanager
def observe(observer: Callable[[Access], object]) -> Iterator[None]:
    """Call `observer` with every load, store and atomic of the kernels launched meanwhile.

    Parameters
    ----------
    observer : callable
        Receives one :class:`Access`, before the memory is touched: raising an exception prevents
        the access and ends the launch. An observer must not write to the arrays.

    Notes
    -----
    Tensor descriptors appear as ordinary loads and stores. ``tl.atomic_max`` and ``atomic_min`` of
    floats appear twice, as Triton builds them from two integer atomics with complementary masks.
    """
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def _report(kind: str, pointers: Any, mask: Any, values: Any = None) -> None:
    if not _observers:
        return
    addresses = pointers.data
    builder = upstream.interpreter_builder
    access = Access(
        kind=kind,
        kernel=builder.kernel_name,
        program=builder.grid_idx,
        addresses=addresses,
        mask=np.broadcast_to(_array(mask), addresses.shape),
        itemsize=upstream._get_np_dtype(pointers.get_element_ty()).itemsize,
        values=None if values is None else np.broadcast_to(values.data, addresses.shape),
        where=source_line(),
    )
    for observer in _observers:
        observer(access)


def _array(mask: Any) -> np.ndarray:
    """A descriptor's mask comes as an array, any other as a handle."""
    return mask.data if isinstance(mask, upstream.TensorHandle) else mask


@extends("InterpreterBuilder.create_masked_load")
def _load(original, self, ptrs, mask, other, *rest, **options):
    """Upstream fills the masked-off lanes of a load without `other` with zeros."""
    _report("load", ptrs, mask)
    if other is None:
        dtype = ptrs.get_element_ty()
        other = upstream.TensorHandle(np.full(ptrs.data.shape, poison(dtype)), dtype)
    return original(self, ptrs, mask, other, *rest, **options)


@extends("InterpreterBuilder.create_masked_store")
def _store(original, self, ptrs, value, mask, *rest):
    _report("store", ptrs, mask, value)
    return original(self, ptrs, value, mask, *rest)


@extends("InterpreterBuilder.create_descriptor_load")
def _descriptor_load(original, self, desc, indices, *rest):
    """Upstream writes NaN padding into the uint16 array of a bfloat16 block as an integer."""
    result = original(self, desc, indices, *rest)
    if desc.padding == upstream._ir.PADDING_OPTION.PAD_NAN and is_bfloat16(result):
        _, inside = desc.materialize_pointers(indices)
        result.data = np.where(inside, result.data, np.uint16(0x7FC0))
    return result


@extends("InterpreterBuilder.create_atomic_cas")
def _compare_and_swap(original, self, ptr, compare, value, *rest):
    _report("atomic", ptr, np.True_, value)
    return original(self, ptr, compare, value, *rest)


@extends("InterpreterBuilder.create_atomic_rmw")
def _atomic(original, self, op, ptr, value, mask, *rest):
    """Upstream adds the bits of bfloat16 as integers; the language allows addition alone."""
    _report("atomic", ptr, mask, value)
    if is_bfloat16(value):
        return _atomic_add_bfloat16(ptr.data, value.data, mask.data)
    return original(self, op, ptr, value, mask, *rest)


def _atomic_add_bfloat16(pointers: np.ndarray, values: np.ndarray, mask: np.ndarray) -> Any:
    """Add lane by lane in rounds; lanes that share an address take different rounds, in order."""
    shape = np.broadcast_shapes(pointers.shape, values.shape, mask.shape)
    addresses, values, mask = (np.broadcast_to(x, shape).ravel() for x in (pointers, values, mask))
    previous = np.full(addresses.shape, poison(tl.bfloat16))
    waiting = np.flatnonzero(mask)
    while waiting.size:
        chosen, first = np.unique(addresses[waiting], return_index=True)
        lanes, active = waiting[first], np.ones(chosen.shape, dtype=bool)
        old = upstream._interpreter.load(chosen, active, values[lanes], np.dtype(np.uint16))
        total = bfloat16_to_float32(old) + bfloat16_to_float32(values[lanes])
        upstream._interpreter.store(chosen, round_to_bfloat16(total), active)
        previous[lanes] = old
        waiting = np.delete(waiting, first)
    return upstream.TensorHandle(previous.reshape(shape), tl.bfloat16)
