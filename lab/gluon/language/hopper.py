"""Hopper's own operations: mbarriers, TMA's copies, warpgroup_mma, and cp.async.

Each copy is counted by the barrier that it names, or belongs to a group that its partition waits
for. Race checks are made when an operation is issued: what it touches it may touch at any time from
then on, until somebody who waited for it knows that it is over.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from triton.experimental.gluon import language as gl

from ..machine.program import Agent, InFlight
from ..machine.shared import Access
from ..machine.turns import here
from .language import allocate_shared_memory
from .memory import Descriptor, Pointer, View
from .served import HOPPER, Refused, serves
from .tiles import Tile, held, ints, is_known, rounded, tile

MBARRIER, TMA = f"{HOPPER}.mbarrier", f"{HOPPER}.tma"
AMPERE = "triton.experimental.gluon.language.nvidia.ampere"

# --- mbarriers ------------------------------------------------------------------------------------


@serves(MBARRIER)
def allocate_mbarrier(batch: Any = None, two_ctas: bool = False) -> View:
    """Allocate a barrier, or `batch` of them."""
    shape = [1] if batch is None else [int(batch), 1]
    return allocate_shared_memory(gl.int64, shape, None)


@serves(MBARRIER)
def init(mbarrier: View, count: Any) -> None:
    """Begin a barrier's life."""
    mbarrier.barrier.init(int(count))


@serves(MBARRIER)
def invalidate(mbarrier: View) -> None:
    """End a barrier's life."""
    mbarrier.barrier.invalidate()


@serves(MBARRIER)
def expect(mbarrier: View, bytes_per_cta: Any = None, bytes: Any = None, pred: Any = True) -> None:
    """Arrive once, and let the phase wait for bytes, too."""
    here().breathe()
    if pred:
        mbarrier.barrier.arrive(1, int(bytes if bytes_per_cta is None else bytes_per_cta))


@serves(MBARRIER, "arrive")
@serves(f"{AMPERE}.mbarrier", "arrive")
def arrive(mbarrier: View, *, count: Any = 1, pred: Any = True) -> None:
    """Arrive at a barrier."""
    here().breathe()
    if pred:
        mbarrier.barrier.arrive(int(count))


@serves(MBARRIER)
def wait(mbarrier: View, phase: Any, pred: Any = True, deps: Any = ()) -> None:
    """Wait for the end of a phase, named by its parity."""
    if pred:
        here().wait(mbarrier.barrier, int(phase))


@serves(HOPPER)
def fence_async_shared(cluster: bool = False) -> None:
    """Show the async proxy what has been done through registers."""
    here().program.agent.fence()


# --- TMA ------------------------------------------------------------------------------------------


@serves(TMA, "async_load", "async_copy_global_to_shared")
def async_load(
    tensor_desc: Descriptor, coord: Any, barrier: View, result: View, pred: Any = True,
    multicast: bool = False,
) -> None:  # fmt: skip
    """Copy a block to shared memory; the barrier counts its bytes."""
    if not pred:
        return
    if multicast:
        raise Refused("TMA's multicast to a cluster is not modelled")
    _fits(tensor_desc, result)
    here().breathe()
    program, bar, coordinates = here().program, barrier.barrier, ints(coord)

    def copy() -> None:
        result.write(tensor_desc.read(coordinates).reshape(result.shape))
        bar.land(operation, tensor_desc.nbytes)

    operation = program.issue("TMA load", copy)
    bar.brings(operation)
    result.allocation.touch(result.cells, Access.of(operation, writes=True))
    program.launch(operation)


@serves(TMA, "async_store", "async_copy_shared_to_global")
def async_store(tensor_desc: Descriptor, coord: Any, src: View) -> None:
    """Copy a block to global memory; `store_wait` waits until shared memory has been read."""
    _fits(tensor_desc, src)
    coordinates = ints(coord)
    _store("TMA store", src, lambda: tensor_desc.write(coordinates, _block(src, tensor_desc)))


@serves(TMA)
def async_atomic_add(tensor_desc: Descriptor, coord: Any, src: View) -> None:
    """Add a block to global memory; `store_wait` waits until shared memory has been read."""
    _fits(tensor_desc, src)
    coordinates = ints(coord)

    def add() -> None:
        before = tensor_desc.read(coordinates)
        tensor_desc.write(coordinates, before + _block(src, tensor_desc))

    _store("TMA add", src, add)


@serves(TMA)
def store_wait(pendings: Any, read_only: bool = True) -> None:
    """Wait until at most so many stores have yet to read their shared memory."""
    agent = here().program.agent
    agent.wait_for(agent.stores, int(pendings))


@serves(TMA)
def make_tensor_descriptor(
    base: Pointer, shape: Any, strides: Any, block_shape: Any, layout: Any,
    padding_option: str = "zero",
) -> Descriptor:  # fmt: skip
    """Describe a tensor within the kernel."""
    if base.offsets.data.ndim or int(base.offsets):
        raise NotImplementedError("a descriptor that begins within a tensor is not modelled")
    return Descriptor(base.storage, shape, strides, block_shape, layout, padding_option)


def _fits(descriptor: Descriptor, view: View) -> None:
    """Refuse shared memory of another type or size than the descriptor's block."""
    shape = [n for n in view.shape if n != 1]
    if shape != [n for n in descriptor.block_shape if n != 1] or view.dtype != descriptor.dtype:
        raise ValueError(
            f"a block {descriptor.dtype} {descriptor.block_shape} is copied from or to "
            f"{view.allocation.name}, {view.dtype} {view.shape}"
        )


def _block(view: View, descriptor: Descriptor) -> np.ndarray:
    return view.values.reshape(descriptor.block_shape)


def _store(name: str, source: View, effect: Callable[[], None]) -> None:
    """Issue what reads shared memory and is waited for by `store_wait`."""
    here().breathe()
    operation = here().program.issue(name, effect)
    source.allocation.touch(source.cells, Access.of(operation, writes=False))
    here().program.agent.stores.append([operation])
    here().program.launch(operation)


# --- warpgroup_mma --------------------------------------------------------------------------------


class Accumulator(Tile):
    """The result of a product that may still be running: who looks at it must have waited.

    Parameters
    ----------
    operation : InFlight
    result : Tile
        What it is when the product has ended.
    """

    __slots__ = ("operation", "result")

    def __init__(self, operation: InFlight, result: Tile) -> None:
        self.operation = operation
        self.result = result
        self.dtype = result.dtype
        self.layout = result.layout

    @property
    def data(self) -> np.ndarray:  # type: ignore[override]
        """Give the numbers, and report that they may not be there."""
        program = here().program
        if not self.is_over(program.agent):
            program.find("used before its wait", "", f"the {self.operation} may still be running")
        self.operation.perform()
        return self.result.data

    @property
    def shape(self) -> list[int]:
        """The length of each axis: known before the numbers are."""
        return self.result.shape

    @property
    def type(self) -> Any:
        """The type of the tile: known before the numbers are."""
        return self.result.type

    def is_over(self, agent: Agent) -> bool:
        """Say whether an agent has waited for it."""
        return bool(self.operation.event & agent.knows)


@serves(HOPPER)
def warpgroup_mma_init(value: Tile) -> Tile:
    """Let a tile be an accumulator."""
    return value


@serves(HOPPER)
def warpgroup_mma(
    a: Any, b: View, acc: Any, *, use_acc: Any = True, precision: Any = None,
    max_num_imprecise_acc: Any = None, is_async: bool = False,
) -> Any:  # fmt: skip
    """Multiply on the tensor cores: acc = a @ b + acc, now or until a wait."""
    _multiplies(a, b, acc)
    program, agent = here().program, here().program.agent
    before = acc.result if isinstance(acc, Accumulator) else acc
    result = Tile(np.zeros(before.shape, dtype=np.float32), before.dtype, before.layout)
    with_acc = bool(tile(use_acc))

    def multiply() -> None:
        if isinstance(acc, Accumulator):
            acc.operation.perform()  # products of one warp are done in order
        left = a.values if isinstance(a, View) else a.data
        product = left.astype(np.float32) @ b.values.astype(np.float32)
        result.data = rounded(product + before.data if with_acc else product, before.dtype)

    operation = program.issue("warpgroup_mma", multiply)
    for operand in (a, b):
        if isinstance(operand, View):
            operand.allocation.touch(operand.cells, Access.of(operation, writes=False))
    agent.products.append([operation])
    program.launch(operation)
    if is_async:
        return Accumulator(operation, result)
    agent.wait_for(agent.products, 0)
    return result


@serves(HOPPER)
def warpgroup_mma_wait(num_outstanding: Any = 0, deps: Any = None) -> Any:
    """Wait until at most so many products are running; give those of `deps` that are over."""
    if deps is None:
        raise ValueError("warpgroup_mma_wait deps must be given")
    agent = here().program.agent
    agent.wait_for(agent.products, int(num_outstanding))
    over = [
        dep.result if isinstance(dep, Accumulator) and dep.is_over(agent) else dep for dep in deps
    ]
    return over[0] if len(over) == 1 else tuple(over)


def _multiplies(a: Any, b: Any, acc: Any) -> None:
    """Refuse operands whose shapes or types do not fit."""
    if not isinstance(b, View):
        raise TypeError("warpgroup_mma reads b from shared memory, and it is a tile")
    (m, k), (k_too, n) = a.shape, b.shape
    if k != k_too or list(acc.shape) != [m, n] or a.dtype != b.dtype:
        raise ValueError(
            f"warpgroup_mma of {a.dtype} {a.shape} and {b.dtype} {b.shape} into {acc.shape}"
        )
    layout = a.layout if isinstance(a, Tile) else None
    if is_known(layout) and not isinstance(layout, gl.DotOperandLayout):
        raise ValueError(f"warpgroup_mma wants a in a DotOperandLayout, not {layout}")


# --- cp.async -------------------------------------------------------------------------------------


@serves(f"{AMPERE}.async_copy", "async_load", "async_copy_global_to_shared")
def copy_async(
    smem: View, pointer: Pointer, mask: Any = None, cache_modifier: Any = "",
    eviction_policy: Any = "", volatile: bool = False,
) -> None:  # fmt: skip
    """Copy to shared memory, lane by lane; what a mask hides becomes 0."""
    if smem.shape != pointer.shape:
        raise ValueError(f"pointers {pointer.shape} are copied to {smem.shape}")
    program, agent = here().program, here().program.agent
    mask = np.broadcast_to(np.asarray(True if mask is None else tile(mask).data), smem.shape)
    lanes = pointer.lanes(program, mask)

    def copy() -> None:
        values = np.zeros(smem.shape, dtype=held(smem.dtype))
        values[lanes] = pointer.storage.read(pointer.offsets.data[lanes])
        smem.write(values)

    operation = program.issue("cp.async", copy)
    smem.allocation.touch(smem.cells, Access.of(operation, writes=True, is_async=False))
    agent.uncommitted.append(operation)
    program.launch(operation)


@serves(f"{AMPERE}.async_copy")
def commit_group() -> None:
    """Close a group of copies."""
    agent = here().program.agent
    agent.copies.append(agent.uncommitted)
    agent.uncommitted = []


@serves(f"{AMPERE}.async_copy")
def wait_group(num_outstanding: Any = 0) -> None:
    """Wait until at most so many groups are in flight."""
    agent = here().program.agent
    agent.wait_for(agent.copies, int(num_outstanding))
