"""What a kernel is given: a tensor with its strides is one value, and an absent tensor is None.

Triton takes named tuples as arguments. The host writes `strided(x)`; in the kernel `x.ptr` points
at the first element and `x.strides` are the strides, in elements. None stands for a tensor that is
not there: a kernel asks `if bias is not None`, and the branch is compiled or left out. What belongs
together, such as the masks of attention, is a named tuple of its own; a bool in it is a
`tl.constexpr`, and no field is called `values` or `type`, which Triton's own tuples have. The
instruments name what they see `x.ptr`, `masks.key_start` or `pair[0]`.

`do_not_specialize` does not reach into tuples: a number there is compiled in if it is 1, and
compiled for if it is a multiple of 16. So a number that changes from call to call, a length or a
seed, is an argument of its own. And no tuple with a tensor in it belongs into an autotuner's `key`,
which would be another one at every call.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from ._triton import tl, triton


class Strided(NamedTuple):
    """A tensor with its strides.

    Attributes
    ----------
    ptr : torch.Tensor
        The tensor; within a kernel the pointer to its first element.
    strides : tuple of int
        In elements, one for each axis.
    """

    ptr: Any
    strides: Any

    @property
    def dtype(self) -> torch.dtype:
        """The tensor's dtype: Triton's autotuner asks for it, and tunes each dtype apart."""
        return self.ptr.dtype


def strided(tensor: torch.Tensor | None) -> Strided | None:
    """Put a tensor and its strides together for a kernel.

    Parameters
    ----------
    tensor : torch.Tensor or None

    Returns
    -------
    Strided or None
        None for None: the kernel then compiles without it.
    """
    return None if tensor is None else Strided(tensor, tensor.stride())


def tensors_in(name: str, argument: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """List the tensors of a kernel's argument, within tuples, too.

    Parameters
    ----------
    name : str
        The argument's.
    argument : object
        What the kernel is given.

    Yields
    ------
    tuple of (str, torch.Tensor)
        "x.ptr" for a field of a named tuple, "x[0]" for a part of another, "x.base" for the tensor
        that a descriptor is of.
    """
    if isinstance(argument, torch.Tensor):
        yield name, argument
    elif isinstance(described := getattr(argument, "base", None), torch.Tensor):
        yield f"{name}.base", described
    elif isinstance(argument, tuple):
        fields = getattr(argument, "_fields", ())
        for i, part in enumerate(argument):
            yield from tensors_in(f"{name}.{fields[i]}" if fields else f"{name}[{i}]", part)


@triton.jit
def part_of(x, index):
    """Take part number `index` along the first axis: x[index], with one stride less."""
    return Strided(x.ptr + index.to(tl.int64) * x.strides[0], x.strides[1:])


@triton.jit
def transposed(x):
    """Exchange the axes of a matrix."""
    return Strided(x.ptr, (x.strides[1], x.strides[0]))


@triton.jit
def block_at(x, rows, columns):
    """Point at a block of a matrix: rows [m], columns [n] -> pointers [m, n].

    int64: row times stride passes 2^31 long before memory runs out, and so does column times stride
    in a transposed matrix.
    """
    column_offsets = columns.to(tl.int64) * x.strides[1]
    return x.ptr + rows.to(tl.int64)[:, None] * x.strides[0] + column_offsets[None, :]
