"""What the sanitizer can find, and how it reads."""

import dataclasses
from typing import TYPE_CHECKING

from ..pretend.frames import shown_path

if TYPE_CHECKING:  # shadow.py needs this file
    from .shadow import Argument

# Kind: what it means, and the likely cause where nothing more is known.
KINDS = {
    "out of bounds": (
        "touches memory outside the tensor that the pointer came from",
        "a mask that is missing or compares with another size, or a wrong stride",
    ),
    "outside the view": (
        "touches the storage of the tensor that the pointer came from, but none of its elements",
        "the tensor's strides are not passed to the kernel, or are mixed up",
    ),
    "misaligned": (
        "the address is no multiple of the item's size: a GPU faults",
        "a pointer cast to a wider type",
    ),
    "unwritten read": (
        "loads bytes that nothing has written",
        "torch.empty where the kernel accumulates (torch.zeros), or an earlier kernel that writes "
        "too little",
    ),
    "unwritten result": (
        "a result has bytes that nothing has written",
        "a grid of too few programs (rounded down instead of up), or a mask that hides too much",
    ),
    "write to an input": (
        "stores into a tensor that holds the caller's data",
        "the arguments are in another order than the parameters, or an update in place that is not "
        "declared",
    ),
    "write race": (
        "two programs write one address; who comes last decides",
        "a block index without program_id, or blocks that overlap",
    ),
    "read race": (
        "one program reads what another writes in the same launch",
        "what needs two launches is done in one, or the result overwrites what others still read",
    ),
    "duplicate lanes": (
        "two lanes of one store write different values to one address",
        "an index that does not tell the lanes apart, such as a stride of 0",
    ),
    "undefined lane": (
        "stores a value that depends on a lane that a mask left out of a load",
        "tl.load(..., mask=...) without other=",
    ),
    "thread race": (
        "one program's threads touch one address, one of them writing, and nothing orders them",
        "a tl.debug_barrier() that is missing between the two",
    ),
    "division by zero": (
        "stores a value that depends on an integer that was divided by zero",
        "a divisor that is 0 in lanes that are not masked off",
    ),
    "shift too wide": (
        "stores a value that depends on an integer that was shifted by its width or more",
        "a shift by 32 where 64 bits are meant, or by a negative number",
    ),
    "endless wait": (
        "waits for what no other program will do",
        "a lock that is not released, or a flag that is set for another program",
    ),
    "atomic order": (
        "programs add floats to one address; each order of them rounds differently",
        "tl.atomic_add on floats: sum partial results in a second launch instead",
    ),
    "order dependence": (
        "programs in another order give other bits",
        "what a program does depends on which programs ran before it",
    ),
    "failure": ("the kernel raised", ""),
}


@dataclasses.dataclass(eq=False)
class Violation:
    """One fault: a line of a kernel, and what it does wrong with one tensor.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    kernel, where : str
        The launched kernel, and "file:line" in it or in a function that it calls.
    program : tuple of int
        The first program that did it.
    access : str
        "load", "store" or "atomic"; "" if it is about none.
    tensor : str
        The kernel's argument; "" if memory was reached through an address in memory.
    index : tuple of int
        The element; a single number counts elements along memory from the tensor's first.
    bounds : str
        Where elements are.
    detail : str
        What else is known, such as the other program.
    cause : str
        The likely one.
    count : int
        How many elements, over all accesses.
    rank : str
        Of an undefined lane: "wrong even with zeros", or "zeros on today's compilers", where the
        zeros that those give make the result right; "" if neither is known.
    case : str
        The call that showed it.
    """

    kind: str
    kernel: str
    where: str
    program: tuple[int, int, int]
    access: str
    tensor: str
    index: tuple[int, ...]
    bounds: str
    detail: str
    cause: str
    count: int = 1
    case: str = ""
    rank: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Kind, line and tensor: what is found again is counted, not told again."""
        return self.kind, self.where, self.tensor

    def __str__(self) -> str:
        """Say it in a few lines."""
        file, _, line = self.where.rpartition(":")
        times = f", {self.count:,} elements in all" if self.count > 1 else ""
        said = [f"kernel {self.kernel}, program {self.program}{times}"]
        if self.index:
            element = f"{self.tensor or 'memory'}[{', '.join(map(str, self.index))}]"
            said.append(f"{self.access or 'at'} {element}; {self.bounds}")
        said += [f"rank: {self.rank}"] if self.rank else []
        said += [text for text in (self.detail, self.cause and f"likely: {self.cause}") if text]
        headline = f"{shown_path(file)}:{line}: {self.kind}: {KINDS[self.kind][0]}"
        return "\n".join([headline, *("    " + text for text in said)])


def bounds_of(argument: "Argument") -> str:
    """Say where an argument's elements are."""
    shape, strides = list(argument.shape), list(argument.strides)
    last = argument.size // argument.itemsize - 1
    if last < 0:
        return f"it has no elements, shape {shape}"
    strided = "" if argument.elements is None else ", with gaps between"
    return f"its elements are 0..{last}{strided}, shape {shape}, strides {strides}"
