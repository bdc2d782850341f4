"""An undefined lane is ranked: do today's compilers, which give zeros, make the result right?"""

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
def reduce_kernel(x_ptr, y_ptr, n, OP: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    if OP == "sum":
        tl.store(y_ptr, tl.sum(x * x))
    elif OP == "max":
        tl.store(y_ptr, tl.max(x))
    elif OP == "softmax":
        e = tl.exp(x - tl.max(x))
        tl.store(y_ptr + at, e / tl.sum(e), mask=at < n)
    else:
        tl.store(y_ptr + at, x)


@pytest.mark.parametrize(
    ("op", "rank"),
    [
        ("sum", "zeros on today's compilers"),
        ("max", "wrong even with zeros"),
        ("softmax", "wrong even with zeros"),
        ("copy", "zeros on today's compilers"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_do_for_a_sum_and_not_for_a_maximum(op: str, rank: str, dtype: torch.dtype) -> None:
    x, y = (-torch.rand(50) - 1).to(dtype), torch.zeros(64, dtype=dtype)
    with watching() as seen:
        reduce_kernel[(1,)](x, y, 50, OP=op, BLOCK=64)
    assert [violation.kind for violation in seen.violations] == ["undefined lane"]
    assert seen.violations[0].rank == rank and rank in str(seen.violations[0])
    assert not y.isnan().any(), "the program goes on with what today's compilers give"
    if op == "max":
        assert y[0] == 0


def test_each_launch_leaves_what_zeros_give() -> None:
    """Not the first one alone, in which the fault is found; and the worse rank is kept."""
    x = -torch.rand(50) - 1
    first, second, third = (torch.zeros(64) for _ in range(3))
    with watching() as seen:
        for y in (first, second):
            reduce_kernel[(1,)](x, y, 50, OP="softmax", BLOCK=64)
        reduce_kernel[(1,)](x - 200, third, 50, OP="softmax", BLOCK=64)
    assert torch.equal(first, second) and first.isfinite().all() and third.isfinite().all()
    (violation,) = seen.violations
    assert violation.rank == "wrong even with zeros"
