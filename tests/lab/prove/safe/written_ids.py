"""A kernel that writes the numbers of which its contract says how large they are."""

import torch
import triton
import triton.language as tl


@triton.jit
def written_ids(ids_ptr, y_ptr, n, BLOCK: tl.constexpr):
    # What is read is what was written, and not what was promised.
    tl.store(ids_ptr, n)
    tl.store(y_ptr + tl.load(ids_ptr), 0.0)


CONTRACTS = {
    "written_ids": "ids_ptr[n]; y_ptr[n]; 1 <= n; 0 <= ids_ptr.value < n; partly(ids_ptr, y_ptr)"
}


def drive_written_ids():
    y = torch.empty(8)
    written_ids[(1,)](torch.zeros(8, dtype=torch.int64), y, 8, BLOCK=16)
    return y
