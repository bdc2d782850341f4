"""Many tensors in one launch: a table of their addresses, and how a program finds its part.

A model has hundreds of tensors, many of them small: a launch for each would be time spent
launching. One launch walks a table, one row a tensor:

    table, int64    n_elements  first_block  addresses …  numbers …
    tensor 0               768            0  0x7f…  0x7f…              block 0
    tensor 1            38,597            1  0x7f…  0x7f…              blocks 1 to 10
    …

A program is one block of one tensor. It finds its tensor by bisection over first_block (8 steps
for 150 tensors, from the cache), casts the addresses to pointers, and has BLOCK elements to do.
Empty tensors have no row. Tensors of several dtypes take one launch for each dtype. The table is
built and copied to the GPU at every call, 8 bytes an entry.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ...core.checks import refuse
from ..common._triton import tl, triton

# An address divisible by this lets a thread load and store 16 bytes at once.
ALIGNMENT = 16
# Columns before the addresses.
N_LEADING = 2

_ALIGNMENT = tl.constexpr(ALIGNMENT)
_N_ELEMENTS = tl.constexpr(0)
_FIRST_BLOCK = tl.constexpr(1)
_N_LEADING = tl.constexpr(N_LEADING)


class Table(NamedTuple):
    """A table, as one argument of a kernel.

    Attributes
    ----------
    rows : torch.Tensor of int64 [tensor, WIDTH]
        On the tensors' device; a pointer in the kernel.
    n_tensors, n_bisections : int
        2^n_bisections >= n_tensors.
    WIDTH : tl.constexpr of int
        Columns.
    ALIGNED : tl.constexpr of bool
        Whether every address is divisible by ALIGNMENT.
    """

    rows: Any
    n_tensors: Any
    n_bisections: Any
    WIDTH: Any
    ALIGNED: Any


@triton.jit
def find_tensor(table, block, BLOCK: tl.constexpr):
    """Return the table's row of the tensor that a block is of, and the block's (start, left)."""
    # The tensor is in [low, high): first_block[low] <= block, and block < first_block[high].
    low = block * 0
    high = low + table.n_tensors
    for _ in range(table.n_bisections):
        middle = (low + high) // 2
        reached = tl.load(table.rows + middle * table.WIDTH + _FIRST_BLOCK) <= block
        low = tl.where(reached, middle, low)
        high = tl.where(reached, high, middle)

    row = table.rows + low * table.WIDTH
    start = (block - tl.load(row + _FIRST_BLOCK)) * BLOCK
    return row, start, tl.load(row + _N_ELEMENTS) - start


@triton.jit
def table_pointer(row, NUMBER: tl.constexpr, dtype: tl.constexpr, ALIGNED: tl.constexpr):
    """Read the address with this number, from 0, and make it a pointer."""
    pointer = tl.load(row + _N_LEADING + NUMBER).to(tl.pointer_type(dtype))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, _ALIGNMENT)
    return pointer


@triton.jit
def table_float(row, NUMBER: tl.constexpr):
    """Read the float32 that stands where an address with this number would."""
    return tl.load(row + _N_LEADING + NUMBER).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def load_block(pointer, at, left, WHOLE: tl.constexpr):
    """Load a block, or what is left of one, as float32."""
    # A mask whose end is known at run time alone would split the 16-byte accesses.
    if WHOLE:
        block = tl.load(pointer + at)
    else:
        block = tl.load(pointer + at, mask=at < left, other=0.0)
    return block.to(tl.float32)


@triton.jit
def store_block(pointer, at, block, left, WHOLE: tl.constexpr):
    """Store a block, or what is left of one."""
    if WHOLE:
        tl.store(pointer + at, block)
    else:
        tl.store(pointer + at, block, mask=at < left)


def tensor_table(
    tensors: Sequence[Sequence[torch.Tensor]],
    block: int,
    numbers: Sequence[Sequence[float]] | None = None,
) -> tuple[Table | None, int]:
    """Build the table of some tensors.

    Parameters
    ----------
    tensors : sequence of sequence of torch.Tensor
        For each row the tensors whose addresses it holds: contiguous, of one size.
    block : int
        Elements of one program.
    numbers : sequence of sequence of float, optional
        For each row the float32 numbers that follow its addresses.

    Returns
    -------
    table : Table or None
        None if there is no element at all.
    n_blocks : int
        Programs to launch.
    """
    rows: list[list[int]] = []
    n_blocks, aligned = 0, True
    for i, of_row in enumerate(tensors):
        n = of_row[0].numel()
        if n:
            addresses = [tensor.data_ptr() for tensor in of_row]
            aligned = aligned and not any(address % ALIGNMENT for address in addresses)
            own = numbers[i] if numbers else ()
            bits = struct.unpack(f"{len(own)}i", struct.pack(f"{len(own)}f", *own))
            rows.append([n, n_blocks, *addresses, *bits])
            n_blocks += triton.cdiv(n, block)
    if not rows:
        return None, 0
    on_device = torch.tensor(rows, dtype=torch.int64, device=tensors[0][0].device)
    n_tensors, width = on_device.shape
    n_bisections = (n_tensors - 1).bit_length()
    constants = tl.constexpr(width), tl.constexpr(aligned)
    return Table(on_device, n_tensors, n_bisections, *constants), n_blocks


def triton_dtype(dtype: torch.dtype):
    """Return Triton's name of a dtype.

    Parameters
    ----------
    dtype : torch.dtype
        float32, float16 or bfloat16.

    Returns
    -------
    triton.language.dtype
    """
    return {
        torch.float32: tl.float32,
        torch.float16: tl.float16,
        torch.bfloat16: tl.bfloat16,
    }[dtype]


def expect_own_memory(name: str, tensors: Sequence[torch.Tensor]) -> None:
    """Refuse tensors that are to be written if two of them start at the same memory.

    Parameters
    ----------
    name : str
        The argument's name.
    tensors : sequence of torch.Tensor

    Raises
    ------
    ValueError
        Naming the second: two programs would write it.
    """
    if len({tensor.data_ptr() for tensor in tensors}) == len(tensors):
        return  # every step of an optimizer ends here
    first: dict[int, int] = {}
    for i, tensor in enumerate(tensors):
        # 0 is the address of an empty tensor, and on the meta device of every one.
        if address := tensor.data_ptr():
            same = first.setdefault(address, i)
            if same != i:
                refuse(
                    f"{name}[{i}]",
                    "memory of its own",
                    f"that of {name}[{same}]",
                    "tied weights listed twice",
                )


def write_back(tensors: Sequence[torch.Tensor], written: Sequence[torch.Tensor]) -> None:
    """Finish an update in place of contiguous copies, or of the tensors themselves.

    Parameters
    ----------
    tensors : sequence of torch.Tensor
        What is to be updated.
    written : sequence of torch.Tensor
        `tensor.contiguous()` of each, in which a kernel has written.
    """
    for tensor, new in zip(tensors, written, strict=True):
        if tensor.is_contiguous():
            # Autograd did not see the kernel write.
            torch.autograd.graph.increment_version(tensor)
        else:
            tensor.copy_(new)
