"""Every byte that an operation reads and writes, by tensor, launch, program and visit.

Kernels run in the interpreter, which shows each load and store; PyTorch's own operations between
the launches (a copy, a sort, a sum) are seen as it dispatches them. Where traffic is compared with
`Twin.cost`, a byte counts once however often it is touched. Where it is called moved, it counts
once for each load, store or operation that touches it: on a GPU caches serve some of the repeats,
which ones nobody can say from here.
"""

import bisect
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...kernels.common import launch
from ...kernels.common.finite import checking_finite
from ..twins.twin import Case, Cost, Twin
from ..verify.check import prepare, run
from .record import Recorder, addresses_in_order

READ, WRITE = "read", "write"
SAVED = "saved"  # what forward wrote beside its results and backward reads
_ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
_OVERWRITING = ("copy_", "zero_", "fill_")
Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Visit:
    """One load or store of one program, as far as it touches one allocation.

    Attributes
    ----------
    launch : int
        Number of the launch in its pass.
    program : tuple of int
        Its index in the grid.
    kind : str
        "read" or "write".
    addresses : numpy.ndarray
        Of the elements, sorted, each once.
    """

    launch: int
    program: tuple[int, int, int]
    kind: str
    addresses: np.ndarray


@dataclasses.dataclass(eq=False)
class Pass:
    """A forward or a backward pass.

    Attributes
    ----------
    name : str
        "forward" or "backward".
    cost : Cost
        What the twin declares.
    before : Pass or None
        The forward pass of a backward pass.
    launches : list of launch.Launch
        In the order of time.
    visits : list of Visit
        In the order of time.
    touched : dict
        Address of an allocation and kind of access, to how often each of its bytes was touched.
    moved_by_pytorch : int
        Bytes, of all that `touched` adds up to.
    named : dict
        Kind of access to the tensors that the cost may speak of: arguments, results, and the
        gradients of both.
    """

    name: str
    cost: Cost
    before: "Pass | None" = None
    launches: list[launch.Launch] = dataclasses.field(default_factory=list)
    visits: list[Visit] = dataclasses.field(default_factory=list)
    touched: dict[tuple[int, str], np.ndarray] = dataclasses.field(default_factory=dict)
    moved_by_pytorch: int = 0
    named: dict[str, Tensors] = dataclasses.field(default_factory=dict)

    @property
    def moved(self) -> int:
        """All bytes, each as often as it was touched."""
        return sum(int(times.sum()) for times in self.touched.values())


@dataclasses.dataclass(frozen=True)
class Entry:
    """What one pass did to one tensor of the operation, beside what was declared.

    Attributes
    ----------
    name, kind : str
        The tensor, and whether it was "read" or "write".
    shape : tuple of int
    declared : int
        Bytes by the twin's cost; 0 if it does not speak of the tensor.
    counted : int
        Distinct bytes touched. Memory that two tensors share counts for the first of them.
    moved : int
        The same bytes, each as often as it was touched.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    declared: int
    counted: int
    moved: int


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """A traced case: its passes, all its memory, which stays alive with it, and perhaps tiles."""

    twin: Twin
    case: Case
    passes: tuple[Pass, ...]
    memory: Any
    tiles: Recorder


class _Watch(TorchDispatchMode):
    """Notes what kernels and PyTorch's operations touch, and keeps all memory alive.

    An address then belongs to one allocation for good.
    """

    def __init__(self, first: Pass, log: list[launch.Launch]) -> None:
        super().__init__()
        self.starts: list[int] = []
        self.storages: dict[int, torch.UntypedStorage] = {}
        self.current, self.log = first, log
        self.n_launched = 0  # before the current pass

    def turn_to(self, next_pass: Pass) -> None:
        self.current.launches = self.log[self.n_launched :]
        self.current, self.n_launched = next_pass, len(self.log)

    def keep(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.nbytes() and storage.data_ptr() not in self.storages:
            bisect.insort(self.starts, storage.data_ptr())
            self.storages[storage.data_ptr()] = storage

    def touch(self, start: int, kind: str, addresses: np.ndarray, itemsize: int) -> None:
        n_bytes = self.storages[start].nbytes()
        if addresses[0] < start or addresses[-1] + itemsize > start + n_bytes:
            raise IndexError("a read or write beyond every tensor (see `gptwin sanitize`)")
        times = self.current.touched.setdefault((start, kind), np.zeros(n_bytes, np.int64))
        for byte in range(itemsize):
            times[addresses - start + byte] += 1

    # --- PyTorch's operations ---

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        returned = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        for tensor in (*given, *returned):
            self.keep(tensor)
        schema, name = function._schema, function._schema.name.removeprefix("aten::")
        aliases = [r.alias_info for r in schema.returns if r.alias_info is not None]
        is_view = any(not alias.is_write for alias in aliases)
        if is_view or name in _ALLOCATIONS:
            return result
        by_name = dict(zip((a.name for a in schema.arguments), args, strict=False)) | (kwargs or {})
        changed = {
            id(by_name.get(a.name))
            for a in schema.arguments
            if a.alias_info is not None and a.alias_info.is_write
        }
        for tensor in given:
            if id(tensor) not in changed or name not in _OVERWRITING:
                self._by_pytorch(tensor, READ)
            if id(tensor) in changed:
                self._by_pytorch(tensor, WRITE)
        for tensor in returned:
            if id(tensor) not in changed:
                self._by_pytorch(tensor, WRITE)
        return result

    def _by_pytorch(self, tensor: torch.Tensor, kind: str) -> None:
        if tensor.numel():
            addresses = np.unique(addresses_in_order(tensor))
            itemsize = tensor.element_size()
            self.touch(tensor.untyped_storage().data_ptr(), kind, addresses, itemsize)
            self.current.moved_by_pytorch += len(addresses) * itemsize

    # --- the kernels ---

    def access(self, access: Any) -> None:
        addresses = np.unique(access.addresses[access.mask]).astype(np.int64)
        kinds = {"load": (READ,), "store": (WRITE,), "atomic": (READ, WRITE)}[access.kind]
        for start, part in self._by_allocation(addresses):
            for kind in kinds:
                self.touch(start, kind, part, access.itemsize)
                n_before = len(self.log) - self.n_launched
                self.current.visits.append(Visit(n_before, access.program, kind, part))

    def _by_allocation(self, addresses: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        owners = np.searchsorted(self.starts, addresses, side="right").clip(min=1) - 1
        for owner in np.unique(owners):
            yield self.starts[owner], addresses[owners == owner]


def trace(
    twin: Twin,
    case: Case,
    dtype: str = "float32",
    text: str | None = None,
    *,
    keep_tiles: bool = False,
) -> Trace:
    """Run a case in the interpreter and note every byte that it touches.

    Parameters
    ----------
    twin : Twin
        The operation.
    case : Case
        A small one: programs run one after another, as Python.
    dtype : str
        "float32", "float16" or "bfloat16".
    text : str or None
        As in `check.prepare`.
    keep_tiles : bool
        Keep the numbers of every tile, too, for the page.

    Returns
    -------
    Trace
    """
    from ...kernels import interpreter

    prepared = prepare(twin, case, dtype, "cpu", text)
    costs: tuple[Cost, Cost | None] = (Cost(0, {}, {}), None)
    if "cost" not in twin.undeclared:
        costs = twin.cost(case, getattr(torch, dtype).itemsize)
    forward = Pass("forward", costs[0])
    backward = Pass("backward", costs[1] or Cost(0, {}, {}), before=forward)
    with (
        launch.backend("triton"),
        launch.configuration(case.get("configuration", 0)),
        launch.recording() as log,
        checking_finite(False),  # as on a GPU
        _Watch(forward, log) as watch,
        interpreter.observe(watch.access),
        contextlib.ExitStack() as stack,
    ):
        recorder = Recorder(log)
        if keep_tiles:
            stack.enter_context(interpreter.observe(recorder.access))

        def forward_then_turn(**arguments: Any) -> Any:
            for tensor in tree_leaves((arguments, prepared.d_results)):
                if isinstance(tensor, torch.Tensor):
                    watch.keep(tensor)
            results = twin.kernel(**arguments)
            watch.turn_to(backward)
            return results

        named = run(twin, forward_then_turn, prepared)
        watch.turn_to(backward)
    options = {n: o for n, o in prepared.options.items() if isinstance(o, torch.Tensor)}
    arguments, results = prepared.tensors | options, _results(twin, named)
    carrying = [f"d_{name}" for name in results if name not in twin.statistics]
    gradients = {name: tensor for name, tensor in named.items() if name not in results}
    cotangents = dict(zip(carrying, prepared.d_results, strict=True))
    forward.named = {READ: arguments, WRITE: results}
    backward.named = {READ: results | arguments | cotangents, WRITE: gradients}
    passes = (forward, backward) if cotangents else (forward,)
    return Trace(twin, case, passes, watch, recorder)


def _results(twin: Twin, named: Tensors) -> Tensors:
    return {name: named[name] for name in twin.results if name in named}


def entries(one: Pass) -> list[Entry]:
    """Set what was counted beside what was declared, tensor by tensor.

    Parameters
    ----------
    one : Pass

    Returns
    -------
    list of Entry
        Of each tensor that was touched or that the cost speaks of.
    """
    found = []
    for kind, declared in ((READ, one.cost.reads), (WRITE, one.cost.writes)):
        left = {start: times.copy() for (start, k), times in one.touched.items() if k == kind}
        for name, tensor in one.named[kind].items():
            times = _take(left, tensor)
            counted, moved = int((times > 0).sum()), int(times.sum())
            if counted or declared.get(name):
                shape = tuple(tensor.shape)
                found.append(Entry(name, kind, shape, declared.get(name, 0), counted, moved))
        unknown = declared.keys() - one.named[kind].keys() - {SAVED}
        found += [Entry(name, kind, (), declared[name], 0, 0) for name in sorted(unknown)]
        if kind == READ and one.before is not None:
            times = np.concatenate([_handed_over(one.before, *rest) for rest in left.items()])
            counted, moved = int((times > 0).sum()), int(times.sum())
            if counted or declared.get(SAVED):
                found.append(Entry(SAVED, kind, (), declared.get(SAVED, 0), counted, moved))
    return found


def _handed_over(before: Pass, start: int, times: np.ndarray) -> np.ndarray:
    """Keep the counts of the bytes that the pass before wrote."""
    written = before.touched.get((start, WRITE))
    return times * 0 if written is None else times * (written > 0)


def _take(left: dict[int, np.ndarray], tensor: torch.Tensor) -> np.ndarray:
    """Return how often each byte of a tensor was touched, and leave nothing for a second one."""
    start = tensor.untyped_storage().data_ptr()
    if start not in left or not tensor.numel():
        return np.zeros(0, np.int64)
    first = np.unique(addresses_in_order(tensor)) - start
    at = (first[:, None] + np.arange(tensor.element_size())).reshape(-1)
    times, left[start][at] = left[start][at], 0
    return times
