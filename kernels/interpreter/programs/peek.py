"""The numbers of an access, as float64: what a store writes, and what a load is about to read."""

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter as upstream

from ..common.values import bfloat16_to_float32
from .memory import Access

_EIGHT_BITS = {
    tl.float8e5: torch.float8_e5m2,
    tl.float8e4nv: torch.float8_e4m3fn,
    tl.float8e5b16: torch.float8_e5m2fnuz,
    tl.float8e4b8: torch.float8_e4m3fnuz,
}


def peek(access: Access) -> np.ndarray:
    """Say what an observed access moves.

    Parameters
    ----------
    access : Access
        As an observer has it: memory has not been touched yet.

    Returns
    -------
    numpy.ndarray of float64
        The shape of its lanes; 0 for those that are not active. Of an atomic, the operand.
    """
    element, values = access.element, access.values
    if values is None:
        dtype = upstream._get_np_dtype(element)
        nothing = np.zeros(access.addresses.shape, dtype)
        values = upstream._interpreter.load(access.addresses, access.mask, nothing, dtype)
    if element == tl.bfloat16:
        values = bfloat16_to_float32(values)
    elif element in _EIGHT_BITS:
        bits = torch.from_numpy(np.array(values, dtype=np.uint8))
        values = bits.view(_EIGHT_BITS[element]).double().numpy()
    return np.where(access.mask, values, 0).astype(np.float64)
