"""Where kernels run in this process."""

import torch

from ..kernels import native
from ..kernels.common.launch import INTERPRETED, door


def kernel_device() -> str:
    """Name the device whose tensors kernels take in this process: the GPU, if there is one.

    Returns
    -------
    str
        "cuda"; or "cpu", where kernels are interpreted or compiled for the CPU.

    Raises
    ------
    RuntimeError
        If they can run on neither.
    """
    if INTERPRETED or door().evaluating:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if not native.available():
        raise RuntimeError(
            "expected a GPU, llvmlite or Triton's interpreter to run kernels, got neither (likely "
            "cause: pip install llvmlite, or set TRITON_INTERPRET=1 before triton is imported)"
        )
    native.activate()
    return "cpu"
