"""Two arguments that are the same memory: all of a tile is read before any of it is written.

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


@triton.jit
def flip_kernel(x_ptr, y_ptr, FLIP: tl.constexpr, BLOCK: tl.constexpr):
    """Add 1 to each element, and write them backwards or where they were."""
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + (BLOCK - 1 - at if FLIP else at), tl.load(x_ptr + at) + 1)


@pytest.mark.parametrize(("flip", "ordered"), [(True, True), (False, False)])
def test_in_place_through_two_arguments(flip, ordered):
    """Element for element, the order does not matter: then it is the kernel of other launches."""
    x = torch.arange(64.0)
    with native.following() as launched:
        flip_kernel[(1,)](x, torch.empty(64), FLIP=flip, BLOCK=64)
        flip_kernel[(1,)](x, x, FLIP=flip, BLOCK=64)
    expected = torch.arange(64.0) + 1
    assert torch.equal(x, expected.flip(0) if flip else expected)
    assert (launched[0] is not launched[1]) == ordered


@pytest.mark.parametrize("shift", [-1, 1, 16])
def test_memory_that_overlaps_in_part(shift):
    whole = torch.arange(96.0)
    x, y = whole[16:80], whole[16 + shift : 80 + shift]
    expected = x + 1
    flip_kernel[(1,)](x, y, FLIP=False, BLOCK=64)
    assert torch.equal(y, expected)


def test_parts_of_one_tensor_side_by_side_are_as_good_as_two():
    whole = torch.arange(128.0)
    with native.following() as launched:
        flip_kernel[(1,)](whole[:64], whole[64:], FLIP=True, BLOCK=64)
        flip_kernel[(1,)](whole[:64].clone(), torch.empty(64), FLIP=True, BLOCK=64)
    assert torch.equal(whole[64:], (torch.arange(64.0) + 1).flip(0))
    assert launched[0] is launched[1]


@triton.jit
def rows_kernel(x_ptr, y_ptr, R: tl.constexpr, C: tl.constexpr):
    """Write rows without their largest element one below another, where they may be read."""
    place = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]
    x = tl.load(x_ptr + place)
    tl.store(y_ptr + place, x - tl.max(x, axis=1)[:, None])


def test_a_row_is_not_written_where_the_next_one_is_read():
    whole = torch.randint(-8, 8, (5, 512)).float()
    expected = whole[:4] - whole[:4].amax(1, keepdim=True)
    rows_kernel[(1,)](whole[:4], whole[1:], R=4, C=512)
    assert torch.equal(whole[1:], expected)


@triton.jit
def in_place_kernel(x_ptr, y_ptr, sum_ptr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Write rows twice as large, and sum what they were, scaled."""
    rows = tl.arange(0, ROWS)
    place = rows[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    x = tl.load(x_ptr + place)
    largest = tl.max(x, axis=1)
    tl.store(y_ptr + place, 2 * x)
    tl.store(sum_ptr + rows, tl.sum(x * largest[:, None], axis=1))


def test_a_row_is_not_read_again_where_it_was_written():
    x = torch.randint(-8, 8, (2, 512)).float()
    expected, sums = 2 * x, (x * x.amax(1, keepdim=True)).sum(1)
    found = torch.empty(2)
    in_place_kernel[(1,)](x, x, found, ROWS=2, BLOCK=512)
    assert torch.equal(x, expected)
    assert torch.equal(found, sums)


@triton.jit
def through_one_pointer_kernel(x_ptr, sum_ptr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """The same in place, by the pointer that was read."""
    rows = tl.arange(0, ROWS)
    place = x_ptr + rows[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    x = tl.load(place)
    largest = tl.max(x, axis=1)
    tl.store(place, 2 * x)
    tl.store(sum_ptr + rows, tl.sum(x * largest[:, None], axis=1))


def test_a_row_is_not_read_again_by_the_pointer_that_wrote_it():
    x, found = torch.randint(-8, 8, (2, 512)).float(), torch.empty(2)
    expected, sums = 2 * x, (x * x.amax(1, keepdim=True)).sum(1)
    through_one_pointer_kernel[(1,)](x, found, ROWS=2, BLOCK=512)
    assert torch.equal(x, expected)
    assert torch.equal(found, sums)
