"""Bytes are read as 32-bit words; the mask still counts bytes."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(bytes_ptr, words_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    pointer = bytes_ptr.to(tl.pointer_type(tl.int32))
    words = tl.load(pointer + at, mask=at < n, other=0)  # finds: out of bounds, bytes_ptr
    tl.store(words_ptr + at, words, mask=at < n // 4)


@triton.jit
def fixed_kernel(bytes_ptr, words_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    pointer = bytes_ptr.to(tl.pointer_type(tl.int32))
    words = tl.load(pointer + at, mask=at < n // 4, other=0)
    tl.store(words_ptr + at, words, mask=at < n // 4)


def drive(kernel) -> torch.Tensor:
    data = torch.randint(0, 255, (32,), dtype=torch.uint8)
    words = torch.empty(8, dtype=torch.int32)
    kernel[(1,)](data, words, 32, BLOCK=32)
    return words


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
