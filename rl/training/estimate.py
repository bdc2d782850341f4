"""What a stage will take of a machine's memory, said before it starts rather than by its death."""

import os
import sys

import torch

from ...core.model.footprint import kv_cache_bytes, training_memory
from ...core.model.presets import GPTConfig, parameter_count
from ..configuration import PPOSettings
from ..ranks.group import Group

FLOAT = 4  # bytes; parameters, gradients and moments are float32


def training_bytes(config: GPTConfig, rows: int, time: int, group: Group) -> int:
    """Estimate what training one model takes of each rank's memory.

    Parameters
    ----------
    config : GPTConfig
    rows, time : int
        Of a micro-batch on this rank, the longest.
    group : Group
        On a GPU no logits are held; ranks that share a model out hold their share of what does
        not grow with the batch.

    Returns
    -------
    int
    """
    memory = training_memory(
        config, max(rows, 1), min(time, config.n_ctx), fused_loss=group.device.type == "cuda"
    )
    held = memory.parameters + memory.gradients + memory.moments
    return held // (group.world if group.sharded else 1) + memory.activations + memory.logits


def ppo_bytes(config: GPTConfig, settings: PPOSettings, prompt: int, group: Group) -> int:
    """Estimate what PPO takes of each rank's memory.

    Parameters
    ----------
    config : GPTConfig
        Of policy, value network, reference and reward model alike.
    settings : PPOSettings
    prompt : int
        Tokens of the longest prompt.
    group : Group
        As in `training_bytes`.

    Returns
    -------
    int
        The larger of a rollout, with its cache, and an update; beside the models at rest.
    """
    time = prompt + settings.max_response
    trained = 1 if settings.shared_trunk else 2
    rows = -(-settings.batch // (settings.minibatches * group.world))
    update = trained * training_bytes(config, rows, time, group)
    # the reference, the policy's average, and the reward model unless a function is in its place
    at_rest = (2 if settings.reward_fn else 3) * parameter_count(config) * FLOAT
    at_rest //= group.world if group.sharded else 1
    rollout = kv_cache_bytes(
        config, -(-settings.batch // group.world), min(time, config.n_ctx), itemsize=FLOAT
    )
    return at_rest + max(update, rollout)


def announce(stage: str, parameters: int, needed: int, group: Group) -> str:
    """Return one line on what a stage needs and what is free.

    Parameters
    ----------
    stage : str
    parameters : int
        Of the model.
    needed : int
        Bytes.
    group : Group
        Whose device is looked at.

    Returns
    -------
    str
        With a warning if more is needed than is free.
    """
    free = free_bytes(group.device)
    line = f"{stage}: {parameters:,} parameters, about {_megabytes(needed)} of memory"
    if group.world > 1:
        line += f" on each of {group.world} ranks"
    if needed > free:
        line += (
            f". Warning: {_megabytes(free)} are free (smaller batches, accumulate, or "
            "run.fsdp=true on more ranks need less)"
        )
    return line


def free_bytes(device: torch.device) -> int:
    """Return what is free of a device's memory.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    int
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if sys.platform == "linux":  # what programs no longer use but files are cached in counts
        with open("/proc/meminfo") as file:
            known = dict(line.split(":") for line in file)
        return int(known["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _megabytes(n: int) -> str:
    return f"{n / 2**20:,.0f} MiB"
