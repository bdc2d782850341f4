"""Prefix sums in one pass: each program waits for the one before it."""

import torch
import triton
import triton.language as tl


@triton.jit
def prefix_kernel(x_ptr, y_ptr, carry_ptr, flag_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0)
    before = tl.full([], 0, tl.int32)
    if pid > 0:
        while tl.atomic_add(flag_ptr + pid - 1, 0, sem="acquire") == 0:
            pass
        before = tl.load(carry_ptr + pid - 1)
    tl.store(carry_ptr + pid, before + tl.sum(x, axis=0))
    tl.debug_barrier()
    tl.atomic_xchg(flag_ptr + pid, 1, sem="release")
    tl.store(y_ptr + offs, before + tl.cumsum(x, axis=0), mask=offs < n)


def prefix_sum(x):
    n_blocks = triton.cdiv(x.numel(), 32)
    y = torch.empty_like(x)
    carry = torch.empty(n_blocks, dtype=x.dtype, device=x.device)
    flag = torch.zeros(n_blocks, dtype=torch.int32, device=x.device)
    prefix_kernel[(n_blocks,)](x, y, carry, flag, x.numel(), BLOCK=32)
    return y
