"""Triton, where the platform has it; elsewhere a stand-in, so that the kernel files still import.

Triton ships for Linux alone. Without it, every operation still runs as eager PyTorch, and asking
for a kernel says why there is none.
"""

import os
from typing import Any

import torch

UNAVAILABLE: str | None = None
# What GPTWIN_ARCH may say beside an architecture's name: `gptwin verify` and `sanitize` do, where
# there is no GPU, so that no architecture's tiles are left out.
EVERY = "every"

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

__all__ = ["EVERY", "UNAVAILABLE", "architecture", "for_architecture", "tl", "triton"]


def architecture() -> str:
    """Say what kernels are compiled for: "sm_90", another "sm_" or, for all of AMD's chips, "amd".

    This runs when the kernels are imported, for the lists of configurations depend on it. Where
    nothing is compiled, as in the interpreter, it is what GPTWIN_ARCH says, so that these lists can
    be verified there.

    Returns
    -------
    str
        "" if nothing is known; `EVERY` if that was asked for.
    """
    if UNAVAILABLE is not None:
        return ""
    active = getattr(triton.runtime.driver, "_active", None)
    if active is not None:
        target = active.get_current_target()
        return {"hip": "amd", "cuda": f"sm_{target.arch}"}.get(target.backend, "")
    if asked := os.environ.get("GPTWIN_ARCH"):
        return asked
    if torch.version.hip is not None:
        return "amd"
    if not torch.cuda.is_available():
        return ""
    return "sm_{}{}".format(*torch.cuda.get_device_capability())


def for_architecture(others: Any, **lists: Any) -> Any:
    """Choose a kernel's list of configurations.

    Parameters
    ----------
    others
        For every architecture that is not named, and for the interpreter.
    **lists
        By what `architecture` returns. A warpgroup of "sm_90" multiplies 64 rows at once; "sm_100"
        keeps sums in tensor memory; "amd" has 64 kB of shared memory for the stages, and a matrix
        instruction's operands wait in registers.

    Returns
    -------
    Any
        One of them. Of `EVERY` architecture, where they are lists: all their configurations whose
        tiles differ, those of `others` first. A CPU sees nothing else of them.
    """
    name = architecture()
    if name == EVERY and isinstance(others, list):
        tiles: dict[str, Any] = {}
        for configuration in [*others, *(one for some in lists.values() for one in some)]:
            tiles.setdefault(repr(sorted(configuration.kwargs.items())), configuration)
        return list(tiles.values())
    return lists.get(name, others)
