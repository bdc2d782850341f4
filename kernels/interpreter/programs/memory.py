"""Loads, stores and atomics: each can be observed, and a lane that loads nothing is undefined."""

import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from ..common.events import undefined
from ..common.location import source_line
from ..common.patches import adds, extends
from ..common.values import (
    bfloat16_to_float32,
    is_bfloat16,
    is_poison,
    poison,
    round_to_bfloat16,
)
from .launches import take_apart
from .turns import EndlessWait, answered, changed


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
    element : triton.language.dtype
        The type of a lane.
    itemsize : int
        Bytes per lane.
    values : numpy.ndarray or None
        What a store writes, or the operand of an atomic; bfloat16 as uint16 bits. None for a load.
    where : str
        The kernel's source line, "file:line".
    tensors : numpy.ndarray of int or None
        The number of the tensor argument that each lane's pointer came from, 0 if from none
        (`launches`); None if launches are not followed.
    leaves_undefined : bool
        Whether this is a load with masked-off lanes and no `other` for them.
    atomically : bool
        Whether this is an atomic load or store (Triton 3.9); the kind "atomic" changes memory.
    synchronises : bool
        Whether this is atomic, and orders the accesses before and after it: a load acquires, a
        store releases, any other does both.
    """

    kind: str
    kernel: str
    program: tuple[int, int, int]
    addresses: np.ndarray
    mask: np.ndarray
    element: tl.dtype
    itemsize: int
    values: np.ndarray | None
    where: str
    tensors: np.ndarray | None
    leaves_undefined: bool = False
    atomically: bool = False
    synchronises: bool = False

    def stores_undefined(self) -> np.ndarray:
        """Say which active lanes write a float that is undefined; an integer does not show it."""
        values = self.values
        if values is None:
            return np.zeros(self.mask.shape, dtype=bool)
        if self.element == tl.bfloat16:
            values = bfloat16_to_float32(values)
        return is_poison(values) & self.mask


# May return which lanes are to be refused.
Observer = Callable[[Access], np.ndarray | None]
_observers: list[Observer] = []


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Call `observer` with every load, store and atomic of the kernels launched meanwhile.

    Parameters
    ----------
    observer : callable
        Receives one :class:`Access`, before the memory is touched: raising an exception prevents
        the access and ends the launch. It may return a mask of lanes to be refused: those touch no
        memory, and load 0. An observer must not write to the arrays.

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


def _admit(
    kind: str, pointers: Any, mask: Any, values: Any = None, **facts: bool
) -> tuple[Any, Any, np.ndarray | None]:
    """Report an access; return its pointers, its mask, and the lanes that were refused."""
    addresses, tensors = take_apart(pointers.data)
    if tensors is not None:
        pointers = upstream.TensorHandle(addresses, pointers.dtype)
    if not _observers:
        return pointers, mask, None
    builder, element = upstream.interpreter_builder, pointers.get_element_ty()
    access = Access(
        kind=kind,
        kernel=builder.kernel_name,
        program=builder.grid_idx,
        addresses=addresses,
        mask=np.broadcast_to(_array(mask), addresses.shape),
        element=element,
        itemsize=upstream._get_np_dtype(element).itemsize,
        values=None if values is None else np.broadcast_to(values.data, addresses.shape),
        where=source_line(),
        tensors=tensors,
        **facts,
    )
    answers = [observer(access) for observer in _observers]
    refusals = [answer & access.mask for answer in answers if isinstance(answer, np.ndarray)]
    if not refusals:
        return pointers, mask, None
    refused = np.logical_or.reduce(refusals)
    return pointers, upstream.TensorHandle(access.mask & ~refused, tl.int1), refused


def _array(mask: Any) -> np.ndarray:
    """A descriptor's mask comes as an array before Triton 3.9, any other as a handle."""
    return mask.data if isinstance(mask, upstream.TensorHandle) else mask


@extends("InterpreterBuilder.create_masked_load")
def _load(original, self, ptrs, mask, other, *rest, **options):
    """Upstream fills the masked-off lanes of a load without `other` with zeros."""
    leaves = other is None and not _array(mask).all()
    ptrs, mask, refused = _admit("load", ptrs, mask, leaves_undefined=leaves, **_atomically())
    if other is None:
        dtype = ptrs.get_element_ty()
        other = upstream.TensorHandle(undefined(dtype, ptrs.data.shape), dtype)
    if refused is not None:
        zeros = np.where(refused, np.zeros((), other.data.dtype), other.data)
        other = upstream.TensorHandle(zeros, other.dtype)
    result = original(self, ptrs, mask, other, *rest, **options)
    if ptrs.data.size == 1:  # perhaps a flag that another program is to set
        answered("load", ptrs.data.item(), result.data.tobytes())
    return result


@extends("InterpreterBuilder.create_masked_store")
def _store(original, self, ptrs, value, mask, *rest):
    ptrs, mask, _ = _admit("store", ptrs, mask, value, **_atomically())
    changed()
    return original(self, ptrs, value, mask, *rest)


@extends("InterpreterBuilder.create_descriptor_load")
def _descriptor_load(original, self, desc, indices, *rest):
    """Upstream writes NaN padding into the uint16 array of a bfloat16 block as an integer."""
    result = original(self, desc, indices, *rest)
    if desc.padding == upstream._ir.PADDING_OPTION.PAD_NAN and is_bfloat16(result):
        _, inside = desc.materialize_pointers(indices)
        result.data = np.where(_array(inside), result.data, np.uint16(0x7FC0))
    return result


@extends("InterpreterBuilder.create_atomic_cas")
def _compare_and_swap(original, self, ptr, compare, value, sem, *rest):
    everywhere = np.ones(ptr.data.shape, dtype=bool)
    ptr, _, refused = _admit("atomic", ptr, everywhere, value, synchronises=_orders(sem))
    if refused is not None:  # this operation has no mask
        return upstream.TensorHandle(np.zeros_like(compare.data), compare.dtype)
    before = original(self, ptr, compare, value, sem, *rest)
    _take_turns(ptr, before, (before.data == compare.data) & (before.data != value.data))
    return before


@extends("InterpreterBuilder.create_atomic_rmw")
def _atomic(original, self, op, ptr, value, mask, sem, *rest):
    """Upstream adds the bits of bfloat16 as integers; the language allows addition alone."""
    ptr, mask, _ = _admit("atomic", ptr, mask, value, synchronises=_orders(sem))
    if is_bfloat16(value):
        before = _atomic_add_bfloat16(ptr.data, value.data, mask.data)
    else:
        before = original(self, op, ptr, value, mask, sem, *rest)
    exchanges = op == upstream._ir.ATOMIC_OP.XCHG
    _take_turns(ptr, before, before.data != value.data if exchanges else value.data != 0)
    return before


@adds("InterpreterBuilder.create_descriptor_reduce")
def _descriptor_atomic(self, kind, desc, value, indices):
    """Do an atomic with each element of a block that lies in the tensor."""
    pointers, mask = desc.materialize_pointers(indices)
    name = kind.name
    if value.dtype.scalar.is_floating():
        if name != "ADD":
            raise NotImplementedError(f"descriptor.atomic_{name.lower()} of floats")
        name = "FADD"
    elif name in ("MIN", "MAX") and not value.dtype.scalar.is_int_signed():
        name = "U" + name
    operation = getattr(upstream._ir.ATOMIC_OP, name)
    mask = upstream.TensorHandle(_array(mask), tl.int1)
    sem = upstream._ir.MEM_SEMANTIC.RELAXED
    self.create_atomic_rmw(operation, pointers, value, mask, sem, None)


# The order that the atomic load or store asks for within which a load or store is done. Programs
# that take turns have a context each.
_sem: contextvars.ContextVar[Any] = contextvars.ContextVar("_sem", default=None)


@extends(
    "InterpreterBuilder.create_atomic_load", "InterpreterBuilder.create_atomic_store", since="3.9"
)
def _load_or_store(original, self, *args):
    """Upstream does a plain load or store, and forgets the order (the last argument but one)."""
    before = _sem.set(args[-2])
    try:
        return original(self, *args)
    finally:
        _sem.reset(before)


@extends("InterpreterBuilder.create_atomic_poll", since="3.9")
def _poll(original, self, ptr, expected, limit, *order):
    """Upstream takes the language's empty value for a time limit."""
    limit = limit if isinstance(limit, upstream.TensorHandle) else None
    try:
        return _load_or_store(original, self, ptr, expected, limit, *order)
    except EndlessWait:
        if limit is None:
            raise
        return upstream.TensorHandle(np.zeros(ptr.data.shape, dtype=bool), tl.int1)


def _atomically() -> dict[str, bool]:
    sem = _sem.get()
    return {} if sem is None else {"atomically": True, "synchronises": _orders(sem)}


def _take_turns(ptr: Any, before: Any, changes: np.ndarray) -> None:
    """An atomic that changes nothing may be a program that waits for a lock."""
    if np.any(changes):
        changed()
    elif ptr.data.size == 1:
        answered("atomic", ptr.data.item(), before.data.tobytes())


def _orders(sem: Any) -> bool:
    return sem != upstream._ir.MEM_SEMANTIC.RELAXED


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
