"""Offsets beyond 2³¹ elements, checked in the compiler's own code: no memory is allocated.

Each twin's named shapes are scaled until a tensor has more than 2³¹ elements, and compiled on the
meta device. In the Triton IR (TTIR) of every kernel and configuration, whatever feeds a pointer
offset is followed back to where it comes from. Which 32-bit multiplications may stand there?

1. An argument (a stride, a size) times anything: none. A stride is as long as the tensor makes it,
   so `row * stride` must be 64-bit, and so must `BLOCK * stride`, however small BLOCK is.
2. Two values known only at run time, such as a program's index times a count: none, likewise.
3. A run-time value times a compile-time constant, `program_id * BLOCK`: this is the trap. It is
   right where it counts rows, of which there are fewer than 2³¹, and wrong where it counts
   elements, of which there are more: both look the same. So its largest value is computed, from
   the grid and the arguments of this very launch, and must be below 2³¹. It is not enough that
   the product is extended to 64 bits afterwards: `(pid * BLOCK).to(int64)` has overflowed by then.
4. Constants alone (`arange(0, 64) * 64`): these are bounded the same way.

Cutting a 64-bit value down to 32 bits is held to rule 3 as well. Triton IR has no memory of what
the source said, so this also catches what a reader would miss: a product that was 64-bit in one
file and is passed to a helper that is not.
"""

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gptwin.lab.twins.catalogue import TWINS

PROGRAM = Path(__file__).parent / "offsets/program.py"
# Kernels that no tensor of more than 2^31 elements ever reaches in an operation, and why.
NEVER_HUGE = {
    ("layer_norm", "column_sum_kernel"): "adds up one row of partial sums for each program",
    ("whiten", "column_sum_kernel"): "adds up one row of partial sums for each program",
    ("whiten", "whiten_statistics_kernel"): "turns a handful of sums into a mean and a variance",
    ("ppo_loss", "ppo_loss_statistics_kernel"): "adds up a column of partial sums for each block",
    ("linear_ppo_loss", "ppo_loss_statistics_kernel"): "as in ppo_loss",
    ("reward_loss", "reward_loss_totals_kernel"): "adds up one row of partial sums a program",
    ("linear_ppo_loss", "token_scores_merge_kernel"): "is given four numbers a token and span",
    ("cross_entropy", "token_scores_merge_kernel"): "is given four numbers a token and span",
    ("director_scores", "token_scores_merge_kernel"): "is given four numbers a token and span",
    ("linear_ppo_loss", "ppo_loss_kernel"): "its tensors hold one number a token",
    ("linear_ppo_loss", "ppo_loss_scale_kernel"): "its tensors hold one number a token",
    ("decode_attention", "decode_attention_combine_kernel"): "so many caches are not split",
    ("qkv_projection", "column_sum_kernel"): "adds up one row of partial sums for each program",
    ("qkv_attention", "column_sum_kernel"): "as in qkv_projection",
    ("ema", "ema_kernel"): "is given a table of addresses, not the tensors",
    ("adamw", "adamw_kernel"): "is given a table of addresses, not the tensors",
    ("adamw", "gradient_squares_kernel"): "is given a table of addresses, not the tensors",
    ("adamw", "gradient_norm_kernel"): "adds up one number a block",
}

pytestmark = pytest.mark.xdist_group("offsets")


@functools.cache
def findings() -> dict[str, Any]:
    """Run the program that compiles: a process that uses the interpreter cannot."""
    with tempfile.TemporaryDirectory() as cache:
        compiles = {"TRITON_INTERPRET": "0", "GPTWIN_BACKEND": "", "TRITON_CACHE_DIR": cache}
        done = subprocess.run(
            [sys.executable, PROGRAM],
            env={**os.environ, **compiles},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", TWINS)
def test_no_offset_is_computed_in_32_bits(name: str) -> None:
    found = findings()["twins"][name]
    assert not found["faults"], "\n".join(found["faults"])
    # A kernel that no huge tensor reached has not been checked.
    never = {kernel for operation, kernel in NEVER_HUGE if operation == name}
    assert set(found["huge"]) == set(TWINS[name].kernels()) - never


@pytest.mark.parametrize(
    ("kernel", "fault"),
    [
        ("row_times_stride", "muli of an argument"),
        ("row_times_stride_in_a_tuple", "muli of an argument"),
        ("extended_too_late", "muli up to 4,294,966,272"),
        ("carried_around_a_loop", "muli of an argument"),
        ("cut_down", "trunci up to 4,294,966,272"),
    ],
)
def test_a_wrong_kernel_is_caught(kernel: str, fault: str) -> None:
    (found,) = findings()["examples"][kernel]
    # Not this file's name: Triton's cache may hold the kernel from a copy of it.
    assert re.search(r"\w\.py:\d+: 32-bit ", found) and fault in found


@pytest.mark.parametrize("kernel", ["elements_in_64_bits", "rows_in_32_bits", "block_of_a_tuple"])
def test_a_right_kernel_passes(kernel: str) -> None:
    assert findings()["examples"][kernel] == []
