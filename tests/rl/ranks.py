"""Two processes that train together on this machine."""

import os
import socket

import torch

from gptwin.rl.ranks.group import join, leave


def two_ranks(do, *arguments, wait=True):
    """Call `do(group, *arguments)` in each; return their context, or None when they have ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return torch.multiprocessing.start_processes(
        _on_rank, (port, do, arguments), nprocs=2, start_method="fork", join=wait
    )


def _on_rank(rank, port, do, arguments):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    group = join()
    assert (group.rank, group.world) == (rank, 2)
    do(group, *arguments)
    leave()
