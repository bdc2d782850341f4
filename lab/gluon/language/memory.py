"""Memory as a kernel names it: views of shared memory, pointers, and TMA's descriptors."""

import dataclasses
from typing import Any

import numpy as np
import torch
from triton.experimental.gluon import language as gl

from ..machine.barrier import Barrier
from ..machine.program import Program
from ..machine.shared import Access, Allocation, Cells
from .tiles import TRITON, Tile, held, ints, rounded, tile


class View:
    """A shared-memory descriptor: elements of an allocation, in an order.

    Parameters
    ----------
    allocation : Allocation
    positions : numpy.ndarray
        Of the elements, with the view's shape.
    dtype : triton.language.dtype
    layout : object
        Gluon's.
    outside : str
        Why it must not be used; "" if it may. An operation whose predicate is false may name it.
    """

    def __init__(
        self,
        allocation: Allocation,
        positions: np.ndarray,
        dtype: Any,
        layout: Any,
        outside: str = "",
    ) -> None:
        self.allocation = allocation
        self._positions = positions
        self.outside = outside
        self.dtype = dtype
        self.layout = layout
        self.known: Cells | None = None

    @property
    def positions(self) -> np.ndarray:
        """Where its elements lie, if it may be used."""
        if self.outside:
            raise IndexError(self.outside)
        return self._positions

    @property
    def shape(self) -> list[int]:
        """The length of each axis."""
        return list(self._positions.shape)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return self._positions.ndim

    @property
    def numel(self) -> int:
        """The number of elements."""
        return self._positions.size

    @property
    def type(self) -> Any:
        """What Gluon calls its type."""
        return _ViewType(self)

    @property
    def nbytes_per_cta(self) -> int:
        """The bytes of its elements."""
        return self.numel * self.dtype.primitive_bitwidth // 8

    @property
    def cells(self) -> Cells:
        """Its elements, for the allocation's book."""
        self.known = self.known or Cells.at(self.positions)
        return self.known

    @property
    def values(self) -> np.ndarray:
        """What lies there."""
        return self.allocation.values[self.positions]

    @property
    def barrier(self) -> Barrier:
        """The mbarrier that lies there."""
        if self.dtype != gl.int64 or self.numel != 1:
            raise ValueError(
                f"{self.allocation.name} of shape {self.shape} is no single mbarrier: use .index"
            )
        return self.allocation.barrier(self.positions)

    def index(self, index: Any) -> "View":
        """Choose a stage."""
        stage, n_stages = int(index), self.positions.shape[0]
        outside = f"{self.allocation.name} has {n_stages} stages, and no stage {stage}"
        if 0 <= stage < n_stages:
            outside = ""
        chosen = self.positions[stage % n_stages]
        return View(self.allocation, chosen, self.dtype, self.layout, outside)

    def slice(self, start: Any, length: Any, dim: int = 0) -> "View":
        """Choose some of an axis."""
        start, length = int(start), int(length)
        if start < 0 or start + length > self.positions.shape[dim]:
            raise IndexError(
                f"{self.allocation.name}: {start} to {start + length} of axis {dim}, which has "
                f"{self.positions.shape[dim]}"
            )
        chosen = np.take(self.positions, np.arange(start, start + length), axis=dim)
        return View(self.allocation, chosen, self.dtype, self.layout)

    def permute(self, order: Any) -> "View":
        """Change the order of axes."""
        return View(self.allocation, self.positions.transpose(ints(order)), self.dtype, self.layout)

    def reshape(self, shape: Any) -> "View":
        """Give the elements other axes."""
        return View(self.allocation, self.positions.reshape(ints(shape)), self.dtype, self.layout)

    def _reinterpret(self, dtype: Any = None, shape: Any = None, layout: Any = None) -> "View":
        """Give the first elements along memory other axes; of another type it is not modelled."""
        if dtype is not None and dtype != self.dtype:
            raise NotImplementedError(f"{self.allocation.name}, {self.dtype}, taken for {dtype}")
        shape = self.shape if shape is None else ints(shape)
        along_memory = np.sort(self.positions.reshape(-1))[: int(np.prod(shape))]
        return View(self.allocation, along_memory.reshape(shape), self.dtype, layout)

    def load(self, layout: Any = None) -> Tile:
        """Read it into registers."""
        program = self.allocation.program
        self.allocation.touch(self.cells, Access.now(program, "load", writes=False))
        return Tile(self.values, self.dtype, layout)

    def store(self, value: Any) -> None:
        """Write it from registers."""
        value = tile(value)
        if value.shape != self.shape or value.dtype != self.dtype:
            raise ValueError(
                f"a tile {value.dtype} {value.shape} is stored into {self.allocation.name}, "
                f"{self.dtype} {self.shape}"
            )
        program = self.allocation.program
        self.allocation.touch(self.cells, Access.now(program, "store", writes=True))
        self.write(value.data)

    def write(self, values: np.ndarray) -> None:
        """Let it hold values."""
        self.allocation.values[self.positions] = values

    def _keep_alive(self) -> None:
        """Keep it: nothing is ever given up here."""


class _ViewType:
    """A view's type, as kernels ask for it."""

    def __init__(self, view: View) -> None:
        self.shape = view.shape
        self.element_ty = view.dtype
        self.layout = view.layout
        self.alloc_shape = list(view.allocation.shape)
        self.nbytes_per_cta = view.nbytes_per_cta


# --- global memory --------------------------------------------------------------------------------


class Storage:
    """A tensor's memory from its first element on.

    Parameters
    ----------
    tensor : torch.Tensor
        On the CPU.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        size = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
        self.flat = tensor.detach().as_strided((size,), (1,))
        self.dtype = TRITON[tensor.dtype]

    def read(self, offsets: np.ndarray) -> np.ndarray:
        """Give the elements there, as they are held."""
        chosen = self.flat[torch.from_numpy(np.ascontiguousarray(offsets, dtype=np.int64))]
        return (chosen if _plain(self.dtype) else chosen.float()).numpy()

    def write(self, offsets: np.ndarray, values: np.ndarray) -> None:
        """Let elements hold values."""
        where = torch.from_numpy(np.ascontiguousarray(offsets, dtype=np.int64))
        self.flat[where] = torch.from_numpy(np.ascontiguousarray(values)).to(self.flat.dtype)


def _plain(dtype: Any) -> bool:
    """Say whether NumPy holds a type as it is."""
    return dtype.name == "fp32" or held(dtype) is not np.float32


class Pointer:
    """Pointers into one tensor: offsets in elements.

    Parameters
    ----------
    storage : Storage
    offsets : Tile
        Of int64.
    """

    __array_ufunc__ = None

    def __init__(self, storage: Storage, offsets: Tile) -> None:
        self.storage = storage
        self.offsets = offsets

    @property
    def dtype(self) -> Any:
        """What Gluon calls its type."""
        return gl.pointer_type(self.storage.dtype)

    @property
    def type(self) -> Any:
        """What Gluon calls its type."""
        return self.dtype

    @property
    def shape(self) -> list[int]:
        """The length of each axis."""
        return self.offsets.shape

    def __add__(self, offsets: Any) -> "Pointer":
        """Go on by elements."""
        return Pointer(self.storage, self.offsets + offsets)

    __radd__ = __add__

    def __sub__(self, offsets: Any) -> "Pointer":
        """Go back by elements."""
        return Pointer(self.storage, self.offsets - offsets)

    def __getitem__(self, index: Any) -> "Pointer":
        """Add axes: `pointers[:, None]`."""
        return Pointer(self.storage, self.offsets[index])

    def lanes(self, program: Program, mask: np.ndarray) -> np.ndarray:
        """Say which lanes touch memory, and report those that touch what is not the tensor's."""
        offsets = self.offsets.data
        outside = mask & ((offsets < 0) | (offsets >= len(self.storage.flat)))
        if outside.any():
            first = int(offsets[outside].reshape(-1)[0])
            detail = f"element {first} of {len(self.storage.flat)} along memory"
            program.find("out of bounds", "", detail)
        return mask & ~outside


@dataclasses.dataclass
class Block:
    """What TMA copies at once: a descriptor's block type.

    Attributes
    ----------
    element_ty : triton.language.dtype
    shape : list of int
    """

    element_ty: Any
    shape: list[int]

    @property
    def nbytes(self) -> int:
        """The bytes of all its elements."""
        return int(np.prod(self.shape)) * self.element_ty.primitive_bitwidth // 8


class Descriptor:
    """A tensor descriptor, by which TMA copies blocks.

    Parameters
    ----------
    storage : Storage
    shape, strides : sequence of int
        Of the tensor, in elements.
    block_shape : sequence of int
    layout : object
        Gluon's, of the shared memory.
    padding : str
        "zero" or "nan": what lies outside.
    """

    def __init__(
        self, storage: Storage, shape: Any, strides: Any, block_shape: Any, layout: Any,
        padding: str = "zero",
    ) -> None:  # fmt: skip
        self.storage = storage
        self.sizes = ints(shape)
        self.steps = ints(strides)
        self.shape = tuple(tile(n) for n in self.sizes)
        self.strides = tuple(Tile(np.int64(n), gl.int64) for n in self.steps)
        self.block_shape = ints(block_shape)
        self.block_type = Block(storage.dtype, self.block_shape)
        self.layout = layout
        self.dtype = storage.dtype
        self.outside = float("nan") if padding == "nan" else 0

    @property
    def type(self) -> "Descriptor":
        """Itself: it answers what kernels ask of its type."""
        return self

    @property
    def nbytes(self) -> int:
        """The bytes of a block, which TMA counts in full even at the tensor's edge."""
        return self.block_type.nbytes

    nbytes_per_cta = nbytes

    def block(self, coordinates: Any) -> tuple[np.ndarray, np.ndarray]:
        """Give the offsets of a block's elements, and which of them lie in the tensor."""
        offsets = np.zeros(self.block_shape, dtype=np.int64)
        inside = np.ones(self.block_shape, dtype=bool)
        for axis, start in enumerate(ints(coordinates)):
            shape = [1] * len(self.block_shape)
            shape[axis] = self.block_shape[axis]
            at = (start + np.arange(self.block_shape[axis])).reshape(shape)
            inside = inside & (at >= 0) & (at < self.sizes[axis])
            offsets = offsets + at * self.steps[axis]
        return offsets, inside

    def read(self, coordinates: Any) -> np.ndarray:
        """Read a block."""
        offsets, inside = self.block(coordinates)
        values = np.full(self.block_shape, self.outside, dtype=held(self.dtype))
        values[inside] = self.storage.read(offsets[inside])
        return values

    def write(self, coordinates: Any, values: np.ndarray) -> None:
        """Write what lies in the tensor."""
        offsets, inside = self.block(coordinates)
        self.storage.write(offsets[inside], rounded(values, self.dtype)[inside])
