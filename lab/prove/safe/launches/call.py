"""A launch as a proof takes it."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Call:
    """What a kernel is launched with.

    Attributes
    ----------
    function : a `triton.jit` function
        Without its autotuner.
    grid : tuple of int
    arguments : tuple
        At run time: tensors, numbers, tuples of them, None.
    constants : dict
        At compile time, those of the configuration among them, without num_warps and the like.
    """

    function: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
