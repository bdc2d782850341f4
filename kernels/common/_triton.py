"""Triton, where the platform has it; elsewhere a stand-in, so that the kernel files still import.

Triton ships for Linux alone. Without it, every operation still runs as eager PyTorch, and asking
for a kernel says why there is none.
"""

import os
from typing import Any

import torch

UNAVAILABLE: str | None = None

try:
    import triton
    import triton.language as tl
except ImportError as error:
    UNAVAILABLE = str(error)

    class _Absent:
        """Take any decorator or attribute access that a kernel file makes when it is imported."""

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return self

        def __call__(self, *args: Any, **options: Any) -> Any:
            return self

    triton = tl = _Absent()

__all__ = ["UNAVAILABLE", "compiles_for_amd", "compiles_for_hopper", "tl", "triton"]

HOPPER = (9, 0)


def compiles_for_amd() -> bool:
    """Say whether kernels are compiled for an AMD GPU, whose lists of configurations differ.

    64 kB of shared memory hold fewer stages there, and a matrix instruction's operands wait in
    registers. Nothing is asked of a GPU: this runs when the kernels are imported.

    Returns
    -------
    bool
        True with a ROCm build of PyTorch, or where an AMD target was set to compile for.
    """
    if UNAVAILABLE is not None:
        return False
    active = getattr(triton.runtime.driver, "_active", None)
    if active is None:
        return torch.version.hip is not None
    return active.get_current_target().backend == "hip"


def compiles_for_hopper() -> bool:
    """Say whether kernels are compiled for sm_90, whose products are a warpgroup's.

    Like `compiles_for_amd`, this runs when the kernels are imported. In the interpreter it is no,
    unless GPTWIN_ARCH=sm_90 asks for these lists, so that they can be verified there.
    """
    if UNAVAILABLE is not None:
        return False
    active = getattr(triton.runtime.driver, "_active", None)
    if active is not None:
        target = active.get_current_target()
        return target.backend == "cuda" and target.arch == HOPPER[0] * 10 + HOPPER[1]
    if asked := os.environ.get("GPTWIN_ARCH"):
        return asked == "sm_90"
    cuda = torch.version.hip is None and torch.cuda.is_available()
    return cuda and torch.cuda.get_device_capability() == HOPPER
