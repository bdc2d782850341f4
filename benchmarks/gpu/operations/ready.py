"""Looks, in seconds and before everything, whether this machine can run a kernel and has room.

What would fail every part fails here, once and with its cause, before any of the minutes of a plan
are counted: Triton without a C compiler, which its launchers need; a driver older than the kernels;
another's memory on the GPU; a disk that is full.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ....kernels.common import launch
from ....kernels.layers.softmax import softmax
from ...timing import Finding, describe
from .cells import Event

# Of a disk, for compiled kernels; and of the GPU's memory, for the largest size beside its truth.
LEAST_DISK, LEAST_MEMORY = 2**30, 40 * 2**30
GIB = 2**30
CACHE_VARIABLES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


def ready(device: str) -> Iterator[Event]:
    """Look at each thing.

    Parameters
    ----------
    device : str

    Yields
    ------
    dict
        Events.
    """
    yield {"begin": list(LOOKS)}
    for name, look in LOOKS.items():
        found: Finding = {"name": name, "status": "measured", "reason": None}
        try:
            reason = look(device)
        except Exception as error:  # whatever it raises is what is found
            reason = describe(error)
        yield {"finding": found | ({"status": "failed", "reason": reason} if reason else {})}


def _kernel(device: str) -> str:
    """Run one, forward and backward."""
    x = torch.linspace(-2, 2, 400, device=device).reshape(4, 100).requires_grad_()
    try:
        with launch.backend("triton"):
            y = softmax(x)
            (d_x,) = torch.autograd.grad(y.square().sum(), [x])
    except subprocess.CalledProcessError as error:
        cause = "no headers of this Python (apt install python3-dev), or no C compiler"
        raise RuntimeError(f"Triton could not compile its launcher: {cause}") from error
    right = torch.softmax(x, -1)
    (expected,) = torch.autograd.grad(right.square().sum(), [x])
    same = torch.allclose(y, right, atol=1e-6) and torch.allclose(d_x, expected, atol=1e-6)
    return "" if same else "softmax of 4 x 100 numbers is not PyTorch's"


def _disk(_: str) -> str:
    """Look where compilers keep what they make; the default is in the home folder."""
    named = [os.environ[name] for name in CACHE_VARIABLES if os.environ.get(name)]
    for folder in [*named, str(Path.home())]:
        there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
        free = shutil.disk_usage(there).free
        if free < LEAST_DISK:
            return (
                f"{free / GIB:.1f} GiB are free in {folder}, where compiled kernels are kept: "
                f"{' or '.join(CACHE_VARIABLES)} names another folder"
            )
    return ""


def _memory(device: str) -> str:
    """Look whether somebody else holds the GPU's memory."""
    if device != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info()
    least = min(LEAST_MEMORY, 0.9 * total)
    if free < least:
        return f"{free / GIB:.0f} of {total / GIB:.0f} GiB are free: another process holds the rest"
    return ""


LOOKS: dict[str, Callable[[str], str]] = {
    "a kernel": _kernel, "disk": _disk, "the GPU's memory": _memory,
}  # fmt: skip
