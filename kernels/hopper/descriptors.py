"""What TMA is told of a tensor: where it is, its shape and strides, and what it copies at once."""

from typing import Any

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

GLUON_DTYPES = {torch.float16: gl.float16, torch.bfloat16: gl.bfloat16}


def described(x: torch.Tensor, rows: int) -> Any:
    """Describe a tensor that is copied in tiles of rows of one head.

    Parameters
    ----------
    x : torch.Tensor [batch, head, row, d_head]
    rows : int

    Returns
    -------
    TensorDescriptor
    """
    block = [1, 1, rows, x.shape[-1]]
    layout = gl.NVMMASharedLayout.get_default_for(block, GLUON_DTYPES[x.dtype])
    return TensorDescriptor(x, list(x.shape), list(x.stride()), block, layout)


def described_numbers(x: torch.Tensor, rows: int) -> Any:
    """Describe numbers of which so many are copied that follow each other.

    Parameters
    ----------
    x : torch.Tensor of float32
        Contiguous.
    rows : int

    Returns
    -------
    TensorDescriptor
        Of one axis.
    """
    layout = gl.NVMMASharedLayout.get_default_for([rows], gl.float32)
    return TensorDescriptor(x, [x.numel()], [1], [rows], layout)
