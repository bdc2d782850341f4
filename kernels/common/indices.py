"""Ids, labels, lengths and boundaries: integers of any width in, two kinds of them inside; sizes.

PyTorch compares and subtracts a tensor in its own integer type: in uint8, −100 is 156, and 1 − 3 is
254; of uint16, uint32 and uint64 it cannot even find the largest. So every public operation takes
whatever integers it is given, and goes on with int32 or int64.

Kernels point in 64 bits (tests/kernels/test_offsets.py), but count along an axis in 32 where that
saves registers, and their last step goes beyond the end by less than a tile. Axes that long are
refused by name.
"""

from typing import TypeVar

import torch

from ...core.checks import refuse

Ids = TypeVar("Ids", torch.Tensor, torch.Tensor | None)
_OTHERS = {
    *(torch.int8, torch.int16),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
}
LAST_INT32 = 2**31 - 1
# No tile is longer than 2^16.
MOST_COUNTED = 2**31 - 2**16


def signed(ids: Ids) -> Ids:
    """Return integers that can be compared, negated and subtracted.

    Parameters
    ----------
    ids : torch.Tensor of integers, or None

    Returns
    -------
    torch.Tensor of int32 or int64, or None
        The tensor itself if it is one of these, or holds no integers, which is others' to refuse.
    """
    return ids.long() if ids is not None and ids.dtype in _OTHERS else ids


def in_int32(positions: torch.Tensor) -> torch.Tensor:
    """Return positions as int32, those beyond all that there can be as the last.

    Parameters
    ----------
    positions : torch.Tensor of integers

    Returns
    -------
    torch.Tensor of int32
        At least 0. The tensor itself if it is one: that is not looked at.
    """
    if positions.dtype == torch.int32:
        return positions
    return positions.long().clamp(0, LAST_INT32).int()


def expect_countable(operation: str, most: int = MOST_COUNTED, **sizes: int) -> None:
    """Refuse axes that a kernel's 32-bit loops could not reach the end of.

    Parameters
    ----------
    operation : str
        The public name, for the error.
    most : int
        The longest that there may be.
    **sizes : int
        By what they count.

    Raises
    ------
    ValueError
        Naming the first that is too long.
    """
    for name, size in sizes.items():
        if size > most:
            refuse(
                operation,
                f"at most {most} {name}",
                str(size),
                "a kernel counts them in 32 bits: cut the tensor into parts",
            )
