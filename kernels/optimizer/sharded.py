"""Tensors that FSDP2 shards over ranks: each rank computes on its own part.

What goes element by element (AdamW, averages) needs nothing but the parts; a norm adds its square
over the ranks. FSDP2's type of parameter and gradient is `torch.distributed.tensor.DTensor`; it is
told by what it can do, since importing its module would lengthen every start by half a second.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist


def is_sharded(tensor: torch.Tensor) -> bool:
    """Say whether a tensor is one of which each rank holds a part.

    Parameters
    ----------
    tensor : torch.Tensor

    Returns
    -------
    bool
    """
    return hasattr(tensor, "to_local")


def own_parts(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return what this rank holds of each tensor.

    Parameters
    ----------
    tensors : sequence of torch.Tensor
        Sharded or not.

    Returns
    -------
    list of torch.Tensor
        Plain tensors that share the memory of those given, without a gradient.
    """
    return [_own(tensor).detach() if is_sharded(tensor) else tensor for tensor in tensors]


def norm_over_ranks(
    tensors: Sequence[torch.Tensor], norm: Callable[[list[torch.Tensor]], torch.Tensor]
) -> torch.Tensor:
    """Return the 2-norm of all tensors together, of which some are sharded.

    Parameters
    ----------
    tensors : sequence of torch.Tensor
        One of them sharded at least; those that are not are the same on every rank.
    norm : callable
        Returns the 2-norm [] of plain tensors.

    Returns
    -------
    torch.Tensor []
        The same on every rank.
    """
    sharded: list[Any] = [tensor for tensor in tensors if is_sharded(tensor)]
    square = norm(own_parts(sharded)).square()
    dist.all_reduce(square, group=sharded[0].device_mesh.get_group())
    others = [tensor for tensor in tensors if not is_sharded(tensor)]
    if others:
        square = square + norm(others).square()
    return square.sqrt()


def _own(tensor: Any) -> torch.Tensor:
    return tensor.to_local()
