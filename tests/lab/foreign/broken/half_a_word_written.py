"""Each word's lower half is stored, and the whole word is read."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, words_ptr, sums_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    halves_ptr = words_ptr.to(tl.pointer_type(tl.int16))
    tl.store(halves_ptr + 2 * at, tl.load(x_ptr + at))
    tl.debug_barrier()
    words = tl.load(words_ptr + at)  # finds: unwritten read, words_ptr
    tl.store(sums_ptr, tl.sum(words & 0xFFFF))


@triton.jit
def fixed_kernel(x_ptr, words_ptr, sums_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(words_ptr + at, tl.load(x_ptr + at).to(tl.int32))
    tl.debug_barrier()
    tl.store(sums_ptr, tl.sum(tl.load(words_ptr + at) & 0xFFFF))


def drive(kernel) -> torch.Tensor:
    x = torch.arange(8, dtype=torch.int16)
    words, sums = torch.empty(8, dtype=torch.int32), torch.empty(1, dtype=torch.int32)
    kernel[(1,)](x, words, sums, BLOCK=8)
    return sums


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
