"""A kernel that swaps in a number which its contract excludes."""

import torch
import triton
import triton.language as tl


@triton.jit
def swapped_ids_refused(ids_ptr, y_ptr, BLOCK: tl.constexpr):
    # Another program finds BLOCK, which is no element's number.
    tl.atomic_add(y_ptr + tl.atomic_cas(ids_ptr, 0, BLOCK), 1.0)


CONTRACTS = {
    "swapped_ids_refused": (
        "ids_ptr[1]; y_ptr[BLOCK]; grid[n]; 0 <= ids_ptr.value < BLOCK; partly(ids_ptr, y_ptr)"
    )
}


def drive_swapped_ids():
    y = torch.empty(16)
    swapped_ids_refused[(1,)](torch.zeros(1, dtype=torch.int32), y, BLOCK=16)
    return y
