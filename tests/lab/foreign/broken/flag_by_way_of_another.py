"""The second program passes on what the first has written; a relaxed flag passes on nothing."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, flags_ptr):
    program = tl.program_id(0)
    if program == 0:
        tl.store(x_ptr, 1.0)
        tl.debug_barrier()
        tl.atomic_xchg(flags_ptr, 1)
    elif program == 1:
        while tl.atomic_add(flags_ptr, 0, sem="relaxed") == 0:
            pass
        tl.atomic_xchg(flags_ptr + 1, 1)
    else:
        while tl.atomic_add(flags_ptr + 1, 0) == 0:
            pass
        tl.store(y_ptr, tl.load(x_ptr))  # finds: read race, x_ptr


@triton.jit
def fixed_kernel(x_ptr, y_ptr, flags_ptr):
    program = tl.program_id(0)
    if program == 0:
        tl.store(x_ptr, 1.0)
        tl.debug_barrier()
        tl.atomic_xchg(flags_ptr, 1)
    elif program == 1:
        while tl.atomic_add(flags_ptr, 0) == 0:
            pass
        tl.atomic_xchg(flags_ptr + 1, 1)
    else:
        while tl.atomic_add(flags_ptr + 1, 0) == 0:
            pass
        tl.store(y_ptr, tl.load(x_ptr))


def drive(kernel) -> torch.Tensor:
    x, y, flags = torch.empty(1), torch.empty(1), torch.zeros(2, dtype=torch.int32)
    kernel[(3,)](x, y, flags)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
