"""What compiled kernels do: control flow, memory, faults. Run by ../test_native.py."""

import os

import pytest

if os.environ.get("GPTWIN_TESTS_ON") != "native":
    pytest.skip("kernels are interpreted here", allow_module_level=True)

import torch
import triton
import triton.language as tl

from gptwin.kernels import native
from gptwin.kernels.native.driver import KernelFault
from gptwin.lab.verify import functions


@triton.jit
def swap_kernel(x_ptr, y_ptr, n_turns, BLOCK: tl.constexpr):
    """Carry two tiles that change places, and one that grows by both."""
    at = tl.arange(0, BLOCK)
    a, b = tl.load(x_ptr + at), tl.load(y_ptr + at)
    total = tl.zeros([BLOCK], tl.float32)
    for turn in range(n_turns):
        total += a * (turn + 1)
        a, b = b, a
    tl.store(x_ptr + at, a)
    tl.store(y_ptr + at, total)


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_tiles_that_a_loop_carries_may_change_places(turns):
    x, y = torch.randn(32), torch.randn(32)
    a, b, total = x.clone(), y.clone(), torch.zeros(32)
    for turn in range(turns):
        total += a * (turn + 1)
        a, b = b, a
    swap_kernel[(1,)](x, y, turns, BLOCK=32)
    assert torch.equal(x, a) and torch.allclose(y, total, atol=1e-5)


@triton.jit
def turn_kernel(x_ptr, n_turns, SIZE: tl.constexpr):
    """Carry a tile that is read in another order than it is written."""
    i = tl.arange(0, SIZE)
    at = i[:, None] * SIZE + i[None, :]
    x = tl.load(x_ptr + at)
    for _ in range(n_turns):
        x = tl.trans(x) + 1
    tl.store(x_ptr + at, x)


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_a_turn_of_a_loop_does_not_overwrite_what_it_reads(turns):
    x = torch.randn(32, 32)
    expected = (x.T if turns % 2 else x) + turns
    turn_kernel[(1,)](x, turns, SIZE=32)
    assert torch.allclose(x, expected, atol=1e-6)


@triton.jit
def branches_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    """Yield a tile from both sides of a branch, and count by a while loop."""
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    if tl.sum(x) > 0:
        y = tl.exp(x)
    else:
        y = x - 1
    count = 0
    left = n
    while left > 0:
        left = left // 2
        count += 1
    tl.store(y_ptr + at, y + count, mask=at < n)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [1, 5, 16, 37, 64])
def test_branches_and_while_loops(sign, n):
    x, y = sign * torch.rand(n), torch.full((64,), 7.0)
    branches_kernel[(1,)](x, y, n, BLOCK=64)
    expected = (x.exp() if sign > 0 else x - 1) + n.bit_length()
    assert torch.allclose(y[:n], expected, rtol=1e-6) and (y[n:] == 7).all()


@triton.jit
def shift_kernel(x_ptr, n, BLOCK: tl.constexpr):
    """Move every element to the right by one, in place: all is read before anything is written."""
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(x_ptr + at + 1, x, mask=at < n)


@pytest.mark.parametrize("n", [3, 16, 50])
def test_a_store_does_not_overtake_the_load_before_it(n):
    x = torch.arange(n + 1.0)
    shift_kernel[(1,)](x, n, BLOCK=64)
    assert x.tolist() == [0, *range(n)]


@triton.jit
def in_place_kernel(x_ptr, N: tl.constexpr):
    """Transpose a tile through the pointers by which it was read."""
    at = x_ptr + tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(at, tl.trans(tl.load(at)))


def test_a_tile_is_turned_where_it_lies():
    x = torch.arange(64.0).view(8, 8)
    expected = x.T.clone()
    in_place_kernel[(1,)](x, N=8)
    assert torch.equal(x, expected)


@triton.jit
def again_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    """Read back what was just written."""
    at = tl.arange(0, BLOCK)
    tl.store(x_ptr + at, at * 2.0)
    tl.store(y_ptr + at, tl.load(x_ptr + (BLOCK - 1 - at)))


def test_a_load_sees_the_store_before_it():
    x, y = torch.zeros(64), torch.zeros(64)
    again_kernel[(1,)](x, y, BLOCK=64)
    assert y.tolist() == [2.0 * i for i in reversed(range(64))]


@triton.jit
def strided_kernel(x_ptr, y_ptr, rows, columns, stride, M: tl.constexpr, N: tl.constexpr):
    """Transpose a tile, whose rows are `stride` apart, with a mask."""
    i, j = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
    inside = (i < rows) & (j < columns)
    x = tl.load(x_ptr + i * stride + j, mask=inside, other=-1.0)
    tl.store(y_ptr + tl.trans(j * M + i), tl.trans(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_masked_lanes_take_other(dtype):
    x, y = torch.randn(5, 24, dtype=dtype), torch.zeros(32, 8, dtype=dtype)
    strided_kernel[(1,)](x, y, 5, 20, 24, M=8, N=32)
    expected = torch.full((32, 8), -1.0, dtype=dtype)
    expected[:20, :5] = x[:, :20].T
    assert torch.equal(y, expected)


@triton.jit
def copy_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


def test_an_access_beyond_a_tensor_is_reported_and_not_made():
    whole = torch.zeros(128)
    x, y = torch.ones(96), whole[:96].clone()
    with pytest.raises(
        KernelFault, match=r"test_compiled.py:\d+: copy_kernel, program \(1, 0, 0\): load out"
    ):
        copy_kernel[(2,)](x, torch.zeros(128), 128, BLOCK=64)
    with pytest.raises(KernelFault, match="store out of bounds"):
        copy_kernel[(2,)](whole, y, 128, BLOCK=64)
    with native.unchecked():
        copy_kernel[(2,)](x, y, 96, BLOCK=64)
    assert torch.equal(y, x)


def test_an_empty_tensor_may_be_given_where_nothing_is_read():
    y = torch.ones(4)
    copy_kernel[(1,)](torch.zeros(0), y, 0, BLOCK=4)
    with pytest.raises(KernelFault, match="load out of bounds"):
        copy_kernel[(1,)](torch.zeros(0), y, 4, BLOCK=4)


@triton.jit
def positive_kernel(x_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.device_assert(x > 0, "not positive")


def test_a_failed_assertion_is_named_with_its_line():
    x = torch.ones(32)
    positive_kernel[(1,)](x, BLOCK=32)
    x[20] = -1
    with pytest.raises(KernelFault, match=r"test_compiled.py:\d+: positive_kernel.*not positive"):
        positive_kernel[(1,)](x, BLOCK=32)


@triton.jit
def divide_kernel(x_ptr, y_ptr, q_ptr, r_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x, y = tl.load(x_ptr + at), tl.load(y_ptr + at)
    tl.store(q_ptr + at, x // y)
    tl.store(r_ptr + at, x % y)


def test_integer_division_never_traps():
    least = -(2**31)
    x = torch.tensor([7, -7, least, least, 5, 0, 9, -9], dtype=torch.int32)
    y = torch.tensor([2, 2, -1, 1, 0, 0, -4, -4], dtype=torch.int32)
    q, r = torch.zeros_like(x), torch.zeros_like(x)
    divide_kernel[(1,)](x, y, q, r, BLOCK=8)
    defined = [0, 1, 3, 6, 7]
    assert q[defined].tolist() == [3, -3, least, -2, 2]
    assert r[defined].tolist() == [1, -1, 0, 1, -1]


@triton.jit
def product_kernel(
    a_ptr, b_ptr, c_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, FLIP: tl.constexpr
):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    if FLIP:
        a = tl.trans(tl.load(a_ptr + k[:, None] * M + m[None, :]))
        b = tl.trans(tl.load(b_ptr + n[:, None] * K + k[None, :]))
    else:
        a = tl.load(a_ptr + m[:, None] * K + k[None, :])
        b = tl.load(b_ptr + k[:, None] * N + n[None, :])
    at = m[:, None] * N + n[None, :]
    c = tl.load(c_ptr + at)
    tl.store(c_ptr + at, tl.dot(a, b, c.to(tl.float32), input_precision="ieee").to(c.dtype))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(16, 16, 16), (64, 32, 16), (32, 64, 128)])
def test_products(sizes, dtype, flip):
    (m, n, k), seed = sizes, torch.manual_seed(0)
    a, b = (torch.randn(*s, generator=seed).to(dtype) for s in ((m, k), (k, n)))
    c = torch.randn(m, n, generator=seed)
    expected = c.double() + a.double() @ b.double()
    given = (a.T.contiguous(), b.T.contiguous()) if flip else (a, b)
    product_kernel[(1,)](*given, c, M=m, N=n, K=k, FLIP=flip)
    assert (c - expected).abs().max() < 1e-5 * k**0.5 * 4


@pytest.mark.parametrize("name", functions.FUNCTIONS)
def test_functions_are_within_two_units_of_the_last_place(name):
    """Over a 4,001st of all floats; benchmarks/results/functions.jsonl is of every one of them."""
    assert functions.measure(name, every=4001)["worst_ulp"] <= 2


@triton.jit
def scaled_rows_kernel(x_ptr, w_ptr, y_ptr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Scale rows by a row of weights, backwards."""
    row, at = tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * BLOCK + at[None, :])
    total = tl.sum(x, axis=1)
    weight = tl.load(w_ptr + at)
    tl.store(
        y_ptr + row * BLOCK + (BLOCK - 1 - at)[None, :], (x + total[:, None]) * weight[None, :]
    )


@pytest.mark.parametrize("rows", [1, 4])
def test_a_row_that_scales_rows_is_read_beside_them(rows):
    x, y, weight = torch.randn(rows, 64), torch.empty(rows, 64), torch.randn(64)
    scaled_rows_kernel[(1,)](x, weight, y, ROWS=rows, BLOCK=64)
    torch.testing.assert_close(y, ((x + x.sum(1, keepdim=True)) * weight).flip(1))


@triton.jit
def scaled_in_place_kernel(w_ptr, BLOCK: tl.constexpr):
    """Read a row, and write it backwards over itself."""
    at = tl.arange(0, BLOCK)
    weight = tl.load(w_ptr + at)
    tl.store(w_ptr + (BLOCK - 1 - at)[None, :], weight[None, :] * 2.0)


def test_a_row_that_is_written_backwards_over_itself_is_read_first():
    weight = torch.randn(64)
    expected = weight.flip(0) * 2
    scaled_in_place_kernel[(1,)](weight, BLOCK=64)
    assert torch.equal(weight, expected)
