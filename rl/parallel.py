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

import torch
import torch.distributed as dist

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
    """

    rank: int = 0
    world: int = 1
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))

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
        if self.world == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return summed.item()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add each gradient over all ranks, in place.

        Parameters
        ----------
        parameters : iterable of torch.nn.Parameter
            The same on every rank, in the same order. A missing gradient counts as 0.
        """
        if self.world == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        # One message for all: a model has hundreds of small tensors.
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(summed.view_as(gradient))

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

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.world > 1:
            dist.barrier()


def join() -> Group:
    """Join the processes that `torchrun` started; alone if it did not.

    Returns
    -------
    Group
        On CUDA, rank i of a machine takes its GPU i.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")
    rank = dist.get_rank() if world > 1 else 0
    return Group(rank, world, device)


def leave() -> None:
    """Leave the group, so that the other processes may end."""
    if dist.is_initialized():
        dist.destroy_process_group()
