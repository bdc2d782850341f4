"""Loops in parts, with masks and without; sums in place; reductions put off; rows one by one.

Run by ../test_native.py.
"""

import os

import pytest

if os.environ.get("GPTWIN_TESTS_ON") != "native":
    pytest.skip("kernels are interpreted here", allow_module_level=True)

import torch
import triton
import triton.language as tl

from gptwin.kernels import native
from gptwin.kernels.native.driver import KernelFault

BLOCK = 256


@triton.jit
def rows_kernel(
    x_ptr, weight_ptr, y_ptr, sum_ptr, n_rows, n, stride, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Scale rows by a row of weights, and sum them; what is masked off counts 1."""
    rows, at = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    inside = (rows < n_rows)[:, None] & (at < n)[None, :]
    x = tl.load(x_ptr + rows[:, None] * stride + at[None, :], mask=inside, other=1.0)
    weight = tl.load(weight_ptr + at, mask=at <= n - 1, other=2.0)
    tl.store(sum_ptr + rows, tl.sum(x, axis=1), mask=rows < n_rows)
    tl.store(
        y_ptr + rows[:, None] * BLOCK + at[None, :],
        tl.where(inside, x * weight[None, :], -1.0),
        mask=(rows < n_rows)[:, None],
    )


@pytest.mark.parametrize("n", [0, 1, 15, 16, 33, 127, 128, 255, 256])
def test_a_mask_may_end_anywhere(n):
    """The last row and the weights end where their memory does."""
    x, weight = torch.randint(-8, 8, (5, n)).float(), torch.randint(-8, 8, (n,)).float()
    y, sums = torch.full((6, BLOCK), 7.0), torch.full((6,), 7.0)
    rows_kernel[(3,)](x, weight, y, sums, 5, n, n, ROWS=2, BLOCK=BLOCK)
    assert torch.equal(y[:5, :n], x * weight) and (y[:5, n:] == -1).all()
    assert torch.equal(sums[:5], x.sum(1) + BLOCK - n)
    assert (y[5] == 7).all() and sums[5] == 7


@pytest.mark.parametrize("short", ["x", "weight"])
def test_a_long_row_that_leaves_its_tensor_is_reported(short):
    given = {"x": torch.ones(5 * BLOCK), "weight": torch.ones(BLOCK)}
    given[short] = given[short][:-1].clone()
    y, sums = torch.zeros(5, BLOCK), torch.zeros(5)
    with pytest.raises(KernelFault, match=r"rows_kernel, program .*: load out of bounds"):
        rows_kernel[(3,)](*given.values(), y, sums, 5, BLOCK, BLOCK, ROWS=2, BLOCK=BLOCK)


@triton.jit
def numbers_kernel(y_ptr, first, limit, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.where(first + at < limit, 1, 0))


@pytest.mark.parametrize("beyond", [0, 20, 100])
def test_a_mask_of_numbers_that_begin_anew_holds_again(beyond):
    y, largest = torch.zeros(BLOCK, dtype=torch.int32), 2**31 - 1
    first = largest - BLOCK + beyond
    with native.unchecked():
        numbers_kernel[(1,)](y, first, largest - 10, BLOCK=BLOCK)
    numbers = (first + torch.arange(BLOCK)).to(torch.int32)  # as it wraps
    assert torch.equal(y, (numbers < largest - 10).int())


@triton.jit
def chosen_kernel(x_ptr, limit_ptr, y_ptr, z_ptr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Choose between two sums by row; and another sum the other way round."""
    rows, at = tl.arange(0, ROWS), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + rows[:, None] * BLOCK + at[None, :])
    is_large = tl.load(limit_ptr + rows) > 0
    scaled = tl.sum(x * 0.5, axis=1) * 8
    tl.store(y_ptr + rows, tl.where(is_large, scaled + 1, tl.sum(x, axis=1)))
    tl.store(z_ptr + rows, tl.where(is_large, -1.0, tl.max(x * 2, axis=1)))


@pytest.mark.parametrize("chosen", [[0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1]])
def test_a_reduction_that_is_put_off_is_done_for_the_rows_that_want_it(chosen):
    x, is_large = torch.randint(-8, 8, (4, BLOCK)).float(), torch.tensor(chosen)
    y, z = torch.zeros(4), torch.zeros(4)
    chosen_kernel[(1,)](x, is_large, y, z, ROWS=4, BLOCK=BLOCK)
    assert torch.equal(y, torch.where(is_large > 0, x.sum(1) * 4 + 1, x.sum(1)))
    assert torch.equal(z, torch.where(is_large > 0, -1.0, 2 * x.amax(1)))


@triton.jit
def sums_kernel(x_ptr, y_ptr, n_turns, BLOCK: tl.constexpr):
    """Carry a sum that nothing else reads, and one whose last value is stored backwards."""
    at = tl.arange(0, BLOCK)
    total, watched = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for turn in range(n_turns):
        x = tl.load(x_ptr + turn * BLOCK + at)
        before = watched
        watched += x
        total = (total + x) * 2
        tl.store(y_ptr + turn * BLOCK + (BLOCK - 1 - at), before)
    tl.store(y_ptr + n_turns * BLOCK + at, total)


def test_a_sum_in_place_is_read_before_it_is_written():
    x, y = torch.randint(-8, 8, (4, 64)).float(), torch.zeros(5, 64)
    sums_kernel[(1,)](x, y, 4, BLOCK=64)
    before = torch.cat([torch.zeros(1, 64), x.cumsum(0)])
    assert torch.equal(y[:4], before[:4].flip(1))
    assert torch.equal(y[4], (x * torch.tensor([16.0, 8, 4, 2])[:, None]).sum(0))


@triton.jit
def turns_kernel(
    x_ptr, y_ptr, count_ptr, n_turns, DOWN: tl.constexpr, SHARED: tl.constexpr, R: tl.constexpr,
    C: tl.constexpr,
):  # fmt: skip
    """Move rows down by one, or not, n times; count turns along a row or, if SHARED, in memory."""
    rows, at = tl.arange(0, R), tl.arange(0, C)
    place = rows[:, None] * C + at[None, :]
    total, count = tl.zeros([R, C], tl.float32), tl.zeros([C], tl.float32)
    for _ in range(n_turns):
        x = tl.load(x_ptr + place)
        largest = tl.max(x, axis=1)
        total += x - largest[:, None]
        if DOWN:
            tl.store(x_ptr + C + place, x)
        else:
            tl.store(x_ptr + place, x)
        if SHARED:
            tl.store(count_ptr + at, tl.load(count_ptr + at) + 1)
        else:
            count += 1
    tl.store(y_ptr + place, total)
    if not SHARED:
        tl.store(count_ptr + at, count)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("down", [False, True])
def test_rows_that_need_one_another_are_not_run_one_by_one(down, shared):
    """A row is stored where another is loaded, or all rows change one value."""
    x, y, count = torch.randint(-8, 8, (5, 512)).float(), torch.zeros(4, 512), torch.zeros(512)
    expected = torch.zeros(4, 512)
    moved = x.clone()
    for _ in range(3):
        tile = moved[:4].clone()
        expected += tile - tile.amax(1, keepdim=True)
        moved[down : down + 4] = tile
    turns_kernel[(1,)](x, y, count, 3, DOWN=down, SHARED=shared, R=4, C=512)
    assert torch.equal(x, moved) and torch.equal(y, expected) and (count == 3).all()


@triton.jit
def normalised_kernel(x_ptr, y_ptr, mean_ptr, n_rows, n, R: tl.constexpr, C: tl.constexpr):
    """Rows without their means, and the sum of them over all tiles, row by row of a tile."""
    at, total = tl.arange(0, C), tl.zeros([R, C], tl.float32)
    for first in range(0, n_rows, R):
        rows = first + tl.arange(0, R)
        inside = (rows < n_rows)[:, None] & (at < n)[None, :]
        x = tl.load(x_ptr + rows[:, None] * n + at[None, :], mask=inside, other=0.0)
        mean = tl.sum(x, axis=1) / n
        tl.store(mean_ptr + rows, mean, mask=rows < n_rows)
        tl.store(x_ptr + rows[:, None] * n + at[None, :], x - mean[:, None], mask=inside)
        total += x
    tl.store(y_ptr + at, tl.sum(total, axis=0), mask=at < n)


@pytest.mark.parametrize(("n_rows", "n"), [(8, 512), (7, 500), (1, 3)])
def test_rows_are_run_one_by_one(n_rows, n):
    x = torch.randint(-8, 8, (n_rows, n)).double()
    given, y, mean = x.float(), torch.zeros(n), torch.full((8,), 7.0)
    normalised_kernel[(1,)](given, y, mean, n_rows, n, R=4, C=512)
    torch.testing.assert_close(given.double(), x - x.mean(1, keepdim=True), atol=1e-5, rtol=0)
    torch.testing.assert_close(mean[:n_rows].double(), x.mean(1), atol=1e-6, rtol=0)
    assert torch.equal(y, x.sum(0).float()) and (mean[n_rows:] == 7).all()
