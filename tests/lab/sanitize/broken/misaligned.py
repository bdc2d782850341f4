"""Four bytes are read from an address that no float has."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(bytes_ptr, y_ptr, header):
    pointer = (bytes_ptr + header).to(tl.pointer_type(tl.float32))
    number = tl.load(pointer)  # finds: misaligned, bytes_ptr
    tl.store(y_ptr, number)


@triton.jit
def fixed_kernel(bytes_ptr, y_ptr, header):
    number = tl.load((bytes_ptr + header // 4 * 4).to(tl.pointer_type(tl.float32)))
    tl.store(y_ptr, number)


def drive(kernel) -> torch.Tensor:
    data, y = torch.randint(256, (64,), dtype=torch.uint8), torch.empty(1)
    kernel[(1,)](data, y, 6)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
