"""race: the counts differ from run to run.

counts[b] = how many of the ids are b. On a GPU the sum of the counts is too small, each time by
another number; one program at a time, everything is right.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def histogram_kernel(ids_ptr, counts_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < n
    ids = tl.load(ids_ptr + offsets, mask=inside, other=0)
    tl.atomic_add(counts_ptr + ids, 1, mask=inside)


def solve(ids: torch.Tensor, n_bins: int) -> torch.Tensor:
    """Count ids, a vector of int32 in [0, n_bins)."""
    counts = torch.zeros(n_bins, dtype=torch.int32)
    histogram_kernel[(triton.cdiv(ids.numel(), 32),)](ids, counts, ids.numel(), BLOCK=32)
    return counts


# --- The grader's part: a student does not see it. ---
from ..exercise import Exercise, Wrong

EXERCISE = Exercise(
    level=2,
    draw=lambda n, seeded: {
        "ids": torch.randint(8, (n,), generator=seeded, dtype=torch.int32),
        "n_bins": 8,
    },
    cases=(32, 90),
    reference=lambda ids, n_bins: torch.bincount(ids, minlength=n_bins).int(),
    results=("counts",),
    hints=(
        "Two programs load the same count, each adds 1 to it, each stores: what is lost?",
        "Even within one tile two lanes may have the same id.",
        "tl.atomic_add(pointers, values, mask=...) reads, adds and writes as one step.",
    ),
    mistakes=(),
    wrong=(
        Wrong(
            {
                "tl.atomic_add(counts_ptr + ids, 1, mask=inside)": "tl.store(counts_ptr + ids, tl.load(counts_ptr + ids, mask=inside) + 1, mask=inside)"
            },
            "rule:",
        ),
        Wrong({"counts_ptr + ids, 1, mask=inside": "counts_ptr + ids, 1"}, "wrote it at line"),
        Wrong({"torch.zeros(n_bins": "torch.empty(n_bins"}, "memory holds anything"),
    ),
    broken={
        "tl.atomic_add(counts_ptr + ids, 1, mask=inside)": "tl.store(counts_ptr + ids, tl.load(counts_ptr + ids, mask=inside) + 1, mask=inside)"
    },
    dtypes=("float32",),
)
