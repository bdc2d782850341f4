"""A tensor of a named tuple is read beyond its end, and another of it is never written."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl


class Masks(NamedTuple):
    """What a kernel may be given; None stands for what it is not."""

    key_start: Any
    window: Any
    documents: Any


@triton.jit
def broken_kernel(x, masks, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    start = tl.load(masks.key_start + at)  # finds: unwritten read, masks.key_start
    x_tile = tl.load(x[0] + (at + 1) * x[1][0])  # finds: out of bounds, x[0]
    if masks.documents is not None:
        start += tl.load(masks.documents + at)
    tl.store(y + at, x_tile + start)


@triton.jit
def fixed_kernel(x, masks, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    start = at
    if masks.documents is not None:
        start += tl.load(masks.documents + at)
    tl.store(y + at, tl.load(x[0] + at * x[1][0]) + start)


def drive(kernel) -> torch.Tensor:
    x, key_start, y = torch.randn(64), torch.empty(32, dtype=torch.int32), torch.empty(32)
    kernel[(1,)]((x[::2], (2,)), Masks(key_start, 3, None), y, BLOCK=32)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
