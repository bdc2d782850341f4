"""The last program resets what the others share; they read it once more after they are done."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(x_ptr, y_ptr, done_ptr, n_readers):
    program = tl.program_id(0)
    if program < n_readers:
        y = tl.load(x_ptr)
        tl.atomic_add(done_ptr, 1)
        tl.store(y_ptr + program, y + tl.load(x_ptr))
    else:
        while tl.atomic_add(done_ptr, 0) < n_readers:
            pass
        tl.store(x_ptr, 0.0)  # finds: read race, x_ptr


@triton.jit
def fixed_kernel(x_ptr, y_ptr, done_ptr, n_readers):
    program = tl.program_id(0)
    if program < n_readers:
        y = tl.load(x_ptr)
        tl.store(y_ptr + program, y + tl.load(x_ptr))
        tl.debug_barrier()
        tl.atomic_add(done_ptr, 1)
    else:
        while tl.atomic_add(done_ptr, 0) < n_readers:
            pass
        tl.store(x_ptr, 0.0)


def drive(kernel) -> torch.Tensor:
    x, y, done = torch.ones(1), torch.empty(3), torch.zeros(1, dtype=torch.int32)
    kernel[(4,)](x, y, done, 3)
    return y


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
