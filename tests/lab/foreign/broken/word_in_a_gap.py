"""Words of four bytes are read from a view whose rows end in the middle of one."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(bytes_ptr, words_ptr, row, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    pointer = (bytes_ptr + tl.program_id(0) * row).to(tl.pointer_type(tl.int32))
    words = tl.load(pointer + at)  # finds: outside the view, bytes_ptr
    tl.store(words_ptr + tl.program_id(0) * BLOCK + at, words)


@triton.jit
def fixed_kernel(bytes_ptr, words_ptr, row, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    pointer = (bytes_ptr + tl.program_id(0) * row).to(tl.pointer_type(tl.int32))
    words = tl.load(pointer + at, mask=at < 1, other=0)
    tl.store(words_ptr + tl.program_id(0) * BLOCK + at, words)


def drive(kernel) -> torch.Tensor:
    data = torch.randint(0, 255, (3, 8), dtype=torch.uint8)[:, :6]
    words = torch.empty(2, 2, dtype=torch.int32)
    kernel[(2,)](data, words, 8, BLOCK=2)
    return words


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
