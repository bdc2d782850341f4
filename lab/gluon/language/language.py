"""Gluon's own words: programs, partitions, memory, and what only the compiler hears."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..machine.program import Program
from ..machine.shared import Allocation
from ..machine.turns import here
from .memory import Pointer, View
from .served import LANGUAGE, serves
from .source import assigned_name
from .tiles import Tile, held, ints, rounded, tile

# --- programs and partitions ----------------------------------------------------------------------


@serves(LANGUAGE)
def program_id(axis: Any) -> Tile:
    """Give this program's place in the grid."""
    index = here().program.index
    return tile(index[int(axis)] if int(axis) < len(index) else 0)


@serves(LANGUAGE)
def num_programs(axis: Any) -> Tile:
    """Give the grid's size."""
    grid = here().program.grid
    return tile(grid[int(axis)] if int(axis) < len(grid) else 1)


@serves(LANGUAGE)
def num_warps() -> int:
    """Give the warps of the launch or of this partition."""
    return here().program.agent.n_warps


@serves(LANGUAGE)
def num_ctas() -> int:
    """Give the programs of a cluster: the model has one."""
    return 1


@serves(LANGUAGE)
def warp_specialize(
    functions_and_args: Sequence[Any], worker_num_warps: Any, worker_num_regs: Any = None
) -> Any:
    """Run partitions beside each other, and give the first one's result."""
    if len(worker_num_warps) != len(functions_and_args) - 1:
        raise ValueError(
            f"{len(functions_and_args) - 1} workers, and {len(worker_num_warps)} numbers of warps"
        )
    bodies = [
        (function.__name__, lambda function=function, args=args: function(*args))
        for function, args in functions_and_args
    ]
    return here().fork(bodies, [here().program.agent.n_warps, *ints(worker_num_warps)])[0]


@serves(LANGUAGE, "barrier", "thread_barrier")
def barrier(*, cluster: bool = False) -> None:
    """Let a partition's warps meet: to the model they are one."""


# --- memory ---------------------------------------------------------------------------------------


@serves(LANGUAGE)
def allocate_shared_memory(element_ty: Any, shape: Any, layout: Any, value: Any = None) -> View:
    """Allocate shared memory; it holds nothing that may be read."""
    program: Program = here().program
    shape = tuple(ints(shape))
    program.n_allocations += 1
    name = assigned_name() or f"allocation {program.n_allocations}"
    allocation = Allocation(program, name, shape, held(element_ty))
    positions = np.arange(allocation.values.size).reshape(shape)
    view = View(allocation, positions, element_ty, layout)
    if value is not None:
        view.store(value)
    return view


@serves(LANGUAGE)
def load(
    pointer: Pointer, mask: Any = None, other: Any = None, boundary_check: Any = (),
    padding_option: Any = "", cache_modifier: Any = "", eviction_policy: Any = "",
    volatile: bool = False,
) -> Tile:  # fmt: skip
    """Load from global memory; without `other`, lanes that a mask hides are NaN or -1."""
    dtype = pointer.storage.dtype
    lanes = _masked(pointer, mask)
    hidden = tile(float("nan") if dtype.is_floating() else -1) if other is None else tile(other)
    values = np.broadcast_to(rounded(hidden.data, dtype), lanes.shape).copy()
    values[lanes] = pointer.storage.read(pointer.offsets.data[lanes])
    return Tile(values, dtype, pointer.offsets.layout)


@serves(LANGUAGE)
def store(
    pointer: Pointer, value: Any, mask: Any = None, boundary_check: Any = (),
    cache_modifier: Any = "", eviction_policy: Any = "",
) -> None:  # fmt: skip
    """Store into global memory."""
    lanes = _masked(pointer, mask)
    values = np.broadcast_to(rounded(tile(value).data, pointer.storage.dtype), lanes.shape)
    pointer.storage.write(pointer.offsets.data[lanes], values[lanes])


@serves(LANGUAGE)
def atomic_add(
    pointer: Pointer, val: Any, mask: Any = None, sem: Any = None, scope: Any = None
) -> Tile:
    """Add to global memory, lane after lane."""
    lanes = _masked(pointer, mask)
    before = np.zeros(lanes.shape, dtype=held(pointer.storage.dtype))
    values = np.broadcast_to(rounded(tile(val).data, pointer.storage.dtype), lanes.shape)
    for lane in zip(*np.nonzero(lanes), strict=True) if lanes.ndim else [()] * bool(lanes):
        at = pointer.offsets.data[lane].reshape(1)
        before[lane] = pointer.storage.read(at)[0]
        pointer.storage.write(at, np.asarray(before[lane] + values[lane]).reshape(1))
    return Tile(before, pointer.storage.dtype, pointer.offsets.layout)


def _masked(pointer: Pointer, mask: Any) -> np.ndarray:
    lanes = np.asarray(True if mask is None else tile(mask).data)
    lanes = np.broadcast_to(lanes, tuple(pointer.shape))
    return pointer.lanes(here().program, lanes)


# --- what only the compiler hears -----------------------------------------------------------------


@serves(LANGUAGE)
def static_assert(condition: Any, message: str = "") -> None:
    """Refuse to compile."""
    assert condition, message


@serves(LANGUAGE)
def device_assert(condition: Any, message: str = "", mask: Any = None) -> None:
    """Stop if a lane's condition does not hold."""
    lanes = np.asarray(True if mask is None else tile(mask).data)
    assert bool((tile(condition).data | ~lanes).all()), message


@serves(LANGUAGE, "static_print", "device_print")
def say(*values: Any, **options: Any) -> None:
    """Print nothing."""


@serves(LANGUAGE, "assume")
def assume(condition: Any) -> None:
    """Promise the compiler something, and keep it."""
    assert bool(condition), "gl.assume of what does not hold"


@serves(LANGUAGE, "multiple_of", "max_contiguous", "max_constancy", "expect_zero")
def hint(value: Any, *hints: Any) -> Any:
    """Tell the compiler something about a value."""
    return value


@serves(LANGUAGE)
def static_range(first: Any, end: Any = None, step: Any = 1, **hints: Any) -> range:
    """Loop over constants."""
    start, end = (0, first) if end is None else (first, end)
    return range(int(start), int(end), int(step))


def loop_range(first: Any, end: Any = None, step: Any = 1, **hints: Any) -> Any:
    """Stand for `range`: a loop's variable is one of the kernel's numbers."""
    for i in static_range(first, end, step):
        yield tile(i)


@serves(LANGUAGE)
def cdiv(x: Any, div: Any) -> Any:
    """Divide, rounding up."""
    return (x + (div - 1)) // div
