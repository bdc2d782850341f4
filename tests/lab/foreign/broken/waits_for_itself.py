"""A program waits for its own flag instead of the one before it."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, flags_ptr):
    program = tl.program_id(0)
    total = tl.load(x_ptr + program)
    if program > 0:
        while tl.atomic_add(flags_ptr + program, 0) == 0:  # finds: endless wait,
            pass
        total += tl.load(y_ptr + program - 1)
    tl.store(y_ptr + program, total)
    tl.debug_barrier()
    tl.atomic_xchg(flags_ptr + program, 1)


@triton.jit
def fixed_kernel(x_ptr, y_ptr, flags_ptr):
    program = tl.program_id(0)
    total = tl.load(x_ptr + program)
    if program > 0:
        while tl.atomic_add(flags_ptr + program - 1, 0) == 0:
            pass
        total += tl.load(y_ptr + program - 1)
    tl.store(y_ptr + program, total)
    tl.debug_barrier()
    tl.atomic_xchg(flags_ptr + program, 1)


def drive(kernel) -> torch.Tensor:
    x, y, flags = torch.randn(5), torch.empty(5), torch.zeros(5, dtype=torch.int32)
    kernel[(5,)](x, y, flags)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
