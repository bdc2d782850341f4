"""How many threads a run computes with, and a word where another number would be faster.

PyTorch takes a thread for each core, and its threads wait for each other at every operation. Where
another process keeps a core busy, all of them wait for the one that shares it: on two cores with
one busy, a small model was pretrained three times as fast by one thread as by two.
"""

import os

import torch

from ...records import available_cores


def use_threads(wanted: int) -> str:
    """Set PyTorch's number of threads.

    Parameters
    ----------
    wanted : int
        `run.threads`; 0: as it is.

    Returns
    -------
    str
        What the user should know; empty if nothing.
    """
    if wanted:
        torch.set_num_threads(wanted)
    threads, cores = torch.get_num_threads(), available_cores()
    if threads > cores:
        return f"Note: {threads} threads on {cores} cores wait for each other: run.threads={cores}"
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads > 1 and threads + busy > cores + 0.7:
        fewer = max(1, cores - round(busy))
        return (
            f"Note: {busy:.1f} processes have kept {cores} cores busy for a minute: if they go on, "
            f"run.threads={fewer} is much faster, or OMP_WAIT_POLICY=passive in the environment"
        )
    return ""
