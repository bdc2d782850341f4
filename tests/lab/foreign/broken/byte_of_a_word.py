"""One program writes words, the next one a byte of them."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(words_ptr, flags_ptr):
    if tl.program_id(0) == 0:
        tl.store(words_ptr + tl.arange(0, 4), 0)
    else:
        bytes_ptr = words_ptr.to(tl.pointer_type(tl.int8))
        # finds on the next line: write race, words_ptr; order dependence, words_ptr
        tl.store(bytes_ptr + 5, tl.load(flags_ptr))


@triton.jit
def fixed_kernel(words_ptr, flags_ptr):
    if tl.program_id(0) == 0:
        tl.store(words_ptr + tl.arange(0, 2), 0)
    else:
        bytes_ptr = words_ptr.to(tl.pointer_type(tl.int8))
        tl.store(bytes_ptr + 8 + tl.arange(0, 8), tl.load(flags_ptr))


def drive(kernel) -> torch.Tensor:
    words, flags = torch.zeros(4, dtype=torch.int32), torch.ones(1, dtype=torch.int8)
    kernel[(2,)](words, flags)
    return words


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
