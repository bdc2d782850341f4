"""How commands run kernels where there is no GPU; Triton reads the choice when it is imported."""

import os
from collections.abc import Sequence


def choose_cpu_backend(on: str | None, operations: Sequence[str] = ()) -> None:
    """Choose how kernels run where there is no GPU."""
    from .core.checks import refuse
    from .kernels import native

    if on not in ("interpreter", "native", None):
        refuse("--on", "interpreter or native", repr(on))
    if on is None:
        own = any(":" in name for name in operations)
        interpreting = os.environ.get("TRITON_INTERPRET") == "1"
        on = "native" if native.available() and not own and not interpreting else "interpreter"
    if on == "interpreter":
        interpret_without_gpu()
    elif not native.available():
        refuse("--on", "llvmlite to be installed for native", "none", "pip install llvmlite")
    else:
        os.environ.pop("TRITON_INTERPRET", None)


def interpret_without_gpu() -> None:
    """Choose Triton's interpreter where no GPU can run kernels; Triton reads this on import."""
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"


def take_every_tile() -> None:
    """Ask for all architectures' configurations, where no GPU chooses; kernels read it on import.

    kernels/common/_triton.py says what becomes of it.
    """
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("GPTWIN_ARCH", "every")
