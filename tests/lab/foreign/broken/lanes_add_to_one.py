"""Lanes of one block add floats to one address: the hardware chooses the order."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(ids_ptr, weights_ptr, sums_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    ids, weights = tl.load(ids_ptr + at), tl.load(weights_ptr + at)
    tl.atomic_add(sums_ptr + ids, weights)  # finds: atomic order, sums_ptr


@triton.jit
def fixed_kernel(ids_ptr, weights_ptr, sums_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    ids, weights = tl.load(ids_ptr + at), tl.load(weights_ptr + at)
    mine = ids[None, :] == tl.arange(0, 4)[:, None]
    tl.store(sums_ptr + tl.arange(0, 4), tl.sum(tl.where(mine, weights[None, :], 0.0), axis=1))


def drive(kernel) -> torch.Tensor:
    ids, weights, sums = torch.arange(32) % 4, torch.randn(32), torch.zeros(4)
    kernel[(1,)](ids, weights, sums, BLOCK=32)
    return sums


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
