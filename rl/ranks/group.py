"""Several processes that train one model: data parallelism, under `torchrun`.

    torchrun --nproc-per-node 8 -m gptwin train sft --config chat.toml

Every rank holds the model and works on its own part of each batch. A mean over a batch is not the
mean of the ranks' means when their parts hold different numbers of tokens; so each rank divides by
the count over all ranks (`Group.total`), and gradients are added, never averaged. Then N ranks
compute what one rank would.
"""

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from ...core.checks import refuse
from ...kernels.optimizer.sharded import is_sharded

SEED_STRIDE = 100_003  # lm-human-preferences: the distance of two ranks' seeds


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes that train together, seen from one of them.

    Attributes
    ----------
    rank, world : int
        This process, and how many there are.
    device : torch.device
        Where this one computes.
    sharded : bool
        Whether models are shared out over the ranks (sharding.py) instead of held by each.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def total(self, value: float) -> float:
        """Return the sum of a number over all ranks, exact for counts below 2^53.

        Parameters
        ----------
        value : float
            This rank's.

        Returns
        -------
        float
        """
        return self.total_of_each([value])[0]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add each gradient over all ranks, in place.

        Parameters
        ----------
        parameters : iterable of torch.nn.Parameter
            The same on every rank, in the same order. A missing gradient counts as 0. Those of
            sharded parameters are added by the backward pass itself.
        """
        if self.world == 1:
            return
        gradients = []
        for parameter in parameters:
            if is_sharded(parameter):
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        if not gradients:
            return
        # All gradients go in one message, since a model has hundreds of small tensors.
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(summed.view_as(gradient))

    def total_of_each(self, values: list[float]) -> list[float]:
        """Return the sum of each number over all ranks, by one message.

        Parameters
        ----------
        values : list of float
            This rank's; as many on every rank.

        Returns
        -------
        list of float
        """
        if self.world == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return summed.tolist()

    def least(self, values: list[float]) -> list[float]:
        """Return the least of each number over all ranks.

        Parameters
        ----------
        values : list of float
            This rank's.

        Returns
        -------
        list of float
        """
        if self.world == 1:
            return values
        found = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return found.tolist()

    def part(self, batch: list) -> list:
        """Return this rank's part of a batch: every world-th element.

        Parameters
        ----------
        batch : list
            The same on every rank.

        Returns
        -------
        list
        """
        return batch[self.rank :: self.world]

    def gathered(self, value: Any) -> list[Any]:
        """Return what every rank holds, in the order of the ranks.

        Parameters
        ----------
        value : object
            This rank's: text, numbers, lists, small tensors.

        Returns
        -------
        list
        """
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def joined(self, part: list) -> list:
        """Undo `part`: return the batch that the ranks' parts are of.

        Parameters
        ----------
        part : list
            This rank's elements.

        Returns
        -------
        list
            The same on every rank.
        """
        parts = self.gathered(part)
        batch = [None] * sum(map(len, parts))
        for rank, elements in enumerate(parts):
            batch[rank :: self.world] = elements
        return batch

    def joined_rows(self, part: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Undo `part` for the rows of a tensor.

        Parameters
        ----------
        part : torch.Tensor [row of this rank, ...]
            Of which later axes may be shorter than `shape` says.
        shape : torch.Size
            Of the whole; what no rank has is 0.

        Returns
        -------
        torch.Tensor
            The same on every rank.
        """
        if self.world == 1 and part.shape == shape:
            return part
        whole = part.new_zeros(shape)
        mine = whole[self.rank :: self.world]
        mine[tuple(slice(n) for n in part.shape)] = part
        if self.world > 1:
            dist.all_reduce(whole)  # every number is one rank's, and 0 elsewhere
        return whole

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.world > 1:
            dist.barrier()


ALONE = Group()


def join(sharded: bool = False) -> Group:
    """Join the processes that `torchrun` started; alone if it did not.

    Parameters
    ----------
    sharded : bool
        As in `Group`.

    Returns
    -------
    Group
        On CUDA, rank i of a machine takes its GPU i.

    Raises
    ------
    ValueError
        If models are to be shared out and there is no other rank.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if sharded and world == 1:
        cause = "started without torchrun: torchrun --nproc-per-node 2 -m gptwin train ..."
        refuse("run.fsdp", "several ranks to share models out to", "one", cause)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")
    rank = dist.get_rank() if world > 1 else 0
    return Group(rank, world, device, sharded)


def leave() -> None:
    """Leave the group, so that the other processes may end."""
    if dist.is_initialized():
        dist.destroy_process_group()
