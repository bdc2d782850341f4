"""Parameters shared out over the ranks: FSDP2 (`torch.distributed.fsdp.fully_shard`).

    gptwin train sft run.fsdp=true        under torchrun

Each rank holds its share of every parameter, gradient and moment. A block's parameters are brought
together when its forward or backward pass begins, and let go of when it ends; its gradients are
added over the ranks and each keeps its share. So the memory of a model that does not change with
the batch falls by the number of ranks.

All ranks must come to a collective together, and rollouts differ in length. Whatever only reads
the model (rollouts, scores, evaluations) therefore brings the whole of it together once
(`together`).
"""

import contextlib
from collections.abc import Iterator

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from ...kernels.model.gpt import GPT
from .group import Group


def shard(model: GPT, group: Group) -> None:
    """Share a model's parameters out over the ranks, in place, if the group is told to.

    Parameters
    ----------
    model : GPT
        The same on every rank. Optimizers are made afterwards.
    group : Group
        Whose `sharded` decides.
    """
    if not group.sharded or isinstance(model, FSDPModule):
        return
    mesh = init_device_mesh(group.device.type, (group.world,))
    parts: list[torch.nn.Module] = [*model.h, model]  # the last one takes tables and final norm
    for part in parts:
        sharded = fully_shard(part, mesh=mesh)
        # Losses are already divided by counts over all ranks, so gradients are only added.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo has sums alone, which are as exact


@contextlib.contextmanager
def together(*modules: torch.nn.Module) -> Iterator[None]:
    """Hold whole models on every rank while the context lasts; for passes without gradients.

    Parameters
    ----------
    *modules : torch.nn.Module
        Sharded in some part, or not at all: then nothing happens.
    """
    parts = [p for module in modules for p in module.modules() if isinstance(p, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(not isinstance(part, GPT), recurse=False)
            part.reshard()


def whole_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's parameters on the CPU, none of them sharded; every rank must ask.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    dict of str to torch.Tensor
    """
    return {
        name: (p.full_tensor() if isinstance(p, DTensor) else p).detach().cpu().contiguous()
        for name, p in module.state_dict().items()
    }
