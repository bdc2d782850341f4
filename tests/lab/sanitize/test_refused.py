"""A lane that is refused touches nothing and loads 0, so one fault does not hide the next."""

import pytest
import torch
import triton
import triton.language as tl

from gptwin.kernels.common import launch
from gptwin.lab.sanitize.program import watching

pytestmark = pytest.mark.skipif(
    not launch.INTERPRETED, reason="the sanitizer watches Triton's interpreter"
)


@triton.jit
def beyond_kernel(x_ptr, y_ptr, counts_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at) + 1)
    tl.atomic_add(counts_ptr + at, 1)
    tl.store(counts_ptr, tl.atomic_cas(counts_ptr + BLOCK, 7, 9))


def test_what_is_refused_touches_nothing() -> None:
    floats, integers = torch.full((40,), 5.0), torch.full((40,), 7, dtype=torch.int32)
    x, y, counts = floats[:12], floats[16:28], integers[:12]  # all in the same two storages
    with watching() as seen:
        beyond_kernel[(1,)](x, y, counts, BLOCK=16)
    assert y.tolist() == [6.0] * 12
    assert floats[:16].tolist() == floats[28:].tolist() + [5.0] * 4 == [5.0] * 16
    assert integers[12:].tolist() == [7] * 28 and counts[1:].tolist() == [8] * 11
    assert counts[0] == 0, "a refused compare-and-swap answers 0"
    found = [(v.kind, v.access, v.count) for v in seen.violations]
    assert found == [
        ("outside the view", "load", 4),
        ("outside the view", "store", 4),
        ("outside the view", "atomic", 4),
        ("outside the view", "atomic", 1),
    ]
