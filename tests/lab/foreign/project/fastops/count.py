"""How often each token occurs: tuned, and the counts are cleared before each trial."""

import torch
import triton
import triton.language as tl


def _clear(nargs):
    nargs["counts_ptr"].zero_()


@triton.autotune(
    configs=[
        triton.Config({"BLOCK_SIZE": 32}, num_warps=2, pre_hook=_clear),
        triton.Config({"BLOCK_SIZE": 64}, num_warps=4, pre_hook=_clear),
    ],
    key=["n_elements"],
)
@triton.jit
def count_kernel(ids_ptr, counts_ptr, n_elements, BLOCK_SIZE: tl.constexpr):
    block = tl.program_id(axis=0)
    offsets = block * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    mask = offsets < n_elements
    ids = tl.load(ids_ptr + offsets, mask=mask, other=0)
    tl.atomic_add(counts_ptr + ids, 1, mask=mask)


def count(ids, vocabulary):
    counts = torch.empty(vocabulary, device="cuda", dtype=torch.int32)
    grid = lambda META: (triton.cdiv(ids.numel(), META["BLOCK_SIZE"]),)  # noqa: E731
    count_kernel[grid](ids, counts, ids.numel())
    return counts
