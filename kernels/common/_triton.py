"""Triton, where the platform has it; elsewhere a stand-in, so that the kernel files still import.

Triton ships for Linux alone. Without it, every operation still runs as eager PyTorch, and asking
for a kernel says why there is none.
"""

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

__all__ = ["UNAVAILABLE", "compiles_for_amd", "tl", "triton"]


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
