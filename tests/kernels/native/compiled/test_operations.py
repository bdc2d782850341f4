"""Operations that few kernels use: loops that carry tiles, prints, atomics, functions of elements.

Run by ../test_native.py.
"""

import os

import pytest

if os.environ.get("GPTWIN_TESTS_ON") != "native":
    pytest.skip("kernels are interpreted here", allow_module_level=True)

import torch
import triton
import triton.language as tl

from gptwin.kernels.native.driver import KernelFault
from gptwin.kernels.native.instructions.ttir import Unsupported


@triton.jit
def until_kernel(x_ptr, y_ptr, turns_ptr, limit, BLOCK: tl.constexpr):
    """Carry two tiles that change places, pointers and a count, until a sum is large enough."""
    at = tl.arange(0, BLOCK)
    a, b = tl.load(x_ptr + at), tl.load(x_ptr + BLOCK + at)
    pointers = y_ptr + at
    turns = 0
    while tl.sum(tl.abs(a)) < limit:
        tl.store(pointers, a)
        pointers += BLOCK
        a, b = b, a + b
        turns += 1
    tl.store(pointers, a)
    tl.store(turns_ptr, turns)


@pytest.mark.parametrize("limit", [0.0, 50.0, 1000.0])
def test_a_while_loop_carries_tiles(limit):
    x = torch.rand(2, 16, generator=torch.Generator().manual_seed(0))
    a, b = x
    rows = [a]
    while a.abs().sum() < limit:
        a, b = b, a + b
        rows.append(a)
    y, turns = torch.zeros(len(rows), 16), torch.zeros(1, dtype=torch.int32)
    until_kernel[(1,)](x, y, turns, limit, BLOCK=16)
    assert turns.item() == len(rows) - 1
    torch.testing.assert_close(y, torch.stack(rows), rtol=1e-6, atol=0)


@triton.jit
def nested_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    """A while loop in a for loop; what it began with is still wanted behind it."""
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    total = tl.zeros([BLOCK], tl.float32)
    for turn in range(n):
        y = x * (turn + 1)
        while tl.max(y) < 8:
            y = y * 2
        total += y
        x += 1
    tl.store(y_ptr + at, total + x)


def test_a_while_loop_in_a_for_loop():
    x, y = torch.linspace(0.1, 1, 16), torch.zeros(16)
    expected, changing = torch.zeros(16), x.clone()
    for turn in range(3):
        scaled = changing * (turn + 1)
        while scaled.max() < 8:
            scaled = scaled * 2
        expected += scaled
        changing += 1
    nested_kernel[(1,)](x, y, 3, BLOCK=16)
    torch.testing.assert_close(y, expected + changing)


@triton.jit
def swapped_pointers_kernel(x_ptr, y_ptr, n_turns):
    """Copy to and fro between two tensors of different sizes, whose pointers change places."""
    source, target = x_ptr, y_ptr
    for turn in range(n_turns):
        tl.store(target + turn, tl.load(source + turn) + 1)
        source, target = target, source


def test_pointers_that_change_places_are_checked_against_no_wrong_tensor():
    x, y = torch.arange(4.0), torch.zeros(2)
    swapped_pointers_kernel[(1,)](x, y, 2)
    assert y.tolist() == [1, 0] and x.tolist() == [0, 1, 2, 3]


@triton.jit
def collatz(n):
    """Count a number's steps to 1: every element takes its own time."""
    steps = 0
    while n > 1:
        if n % 2 == 0:
            n = n // 2
        else:
            n = 3 * n + 1
        steps += 1
    return steps


@triton.jit
def sorted_pair(a, b, c, d):
    if a > b:
        x, y = b + c, a + d
    else:
        x, y = a + c, b + d
    return x, y


@triton.jit
def mapped_kernel(x_ptr, y_ptr, z_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.map_elementwise(collatz, tl.load(x_ptr + at)))
    x = tl.load(x_ptr + at)
    tl.store(z_ptr + at, tl.map_elementwise(sorted_pair, x, x * 10, pack=2)[0])


def test_a_function_of_single_elements_may_branch_and_loop():
    x = torch.arange(1, 17, dtype=torch.int32)
    y, z = torch.zeros_like(x), torch.zeros_like(x)
    mapped_kernel[(1,)](x, y, z, BLOCK=16)
    assert y.tolist()[:8] == [0, 1, 7, 2, 5, 8, 16, 3]
    assert z[::2].tolist() == (x[::2] * 11).tolist()


@triton.jit
def print_kernel(x_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.device_print("50% of x : %d", x * 0.5, at)
    tl.device_print("program", tl.program_id(0))
    tl.device_print("bits", tl.arange(0, 2) * 255, hex=True)
    tl.device_print("done")


def test_prints_read_as_on_a_gpu(capfd):
    print_kernel[(1,)](torch.tensor([1.0, -2.0]), BLOCK=2)
    assert capfd.readouterr().out.splitlines() == [
        "pid (0, 0, 0) idx (0) 50% of x : %d: (operand 0) 0.500000",
        "pid (0, 0, 0) idx (1) 50% of x : %d: (operand 0) -1.000000",
        "pid (0, 0, 0) idx (0) 50% of x : %d: (operand 1) 0",
        "pid (0, 0, 0) idx (1) 50% of x : %d: (operand 1) 1",
        "pid (0, 0, 0) idx () program: 0",
        "pid (0, 0, 0) idx (0) bits: 0x00000000",
        "pid (0, 0, 0) idx (1) bits: 0x000000ff",
        "pid (0, 0, 0) done",
    ]


@triton.jit
def atomics_kernel(x_ptr, total_ptr, last_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.atomic_add(total_ptr + at % 2, x, mask=at < n)
    tl.atomic_xchg(last_ptr + at, x, mask=at < n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_programs_on_several_cores_add_to_one_number(dtype):
    x = torch.ones(200, dtype=dtype)
    total, last = torch.zeros(2, dtype=dtype), torch.zeros(200, dtype=dtype)
    atomics_kernel[(7,)](x, total, last, 200, BLOCK=32)
    assert total.tolist() == [100, 100] and torch.equal(last, x)


@triton.jit
def product_kernel(
    a_ptr, b_ptr, c_ptr, b_row, b_column, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr
):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a = tl.load(a_ptr + m[:, None] * K + k[None, :])
    b = tl.load(b_ptr + k[:, None] * b_row + n[None, :] * b_column)
    product = tl.dot(a, (b * 2).to(a.dtype), input_precision="ieee")
    tl.store(c_ptr + m[:, None] * N + n[None, :], product)


@pytest.mark.parametrize(("m", "n", "k"), [(16, 16, 16), (4, 64, 2), (64, 2, 32), (1, 8, 128)])
def test_a_weight_may_lie_by_rows_or_by_columns(m, n, k):
    seed = torch.Generator().manual_seed(m)
    a, b = torch.randn(m, k, generator=seed), torch.randn(k, n, generator=seed)
    for given in (b, b.T.contiguous().T):
        c = torch.zeros(m, n)
        product_kernel[(1,)](a, given, c, *given.stride(), M=m, N=n, K=k)
        torch.testing.assert_close(c, a @ b * 2, rtol=1e-5, atol=1e-4)


@triton.jit
def batched_kernel(a_ptr, b_ptr, c_ptr, B: tl.constexpr, S: tl.constexpr):
    pair, i, j = tl.arange(0, B), tl.arange(0, S), tl.arange(0, S)
    by_row = pair[:, None, None] * S * S + i[None, :, None] * S + j[None, None, :]
    by_column = pair[:, None, None] * S * S + i[None, :, None] + j[None, None, :] * S
    c = tl.dot(tl.load(a_ptr + by_column), tl.load(b_ptr + by_column), input_precision="ieee")
    tl.store(c_ptr + by_row, c)


def test_pairs_of_matrices_are_multiplied_whichever_way_they_lie():
    a, b = torch.randn(2, 3 + 1, 16, 16, generator=torch.Generator().manual_seed(0))
    c = torch.zeros_like(a)
    batched_kernel[(1,)](a, b, c, B=4, S=16)
    torch.testing.assert_close(c, a.mT @ b.mT, rtol=1e-5, atol=1e-5)


@triton.jit
def far_kernel(x_ptr):
    tl.store(x_ptr, tl.inline_asm_elementwise("mov.u32 $0, 7;", "=r", [], tl.int32, True, 1))


def test_what_is_not_supported_is_named_with_its_line_before_anything_runs():
    with pytest.raises(
        Unsupported, match=r"test_operations.py:\d+: the native CPU backend has no tt.elementwise_in"
    ):
        far_kernel[(1,)](torch.zeros(1))


@triton.jit
def overflow_kernel(x_ptr, y_ptr, n, OP: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0)
    if OP == "add":
        y = x + x
    elif OP == "sub":
        y = -1 - x
    elif OP == "mul":
        y = x * x
    elif OP == "offset":  # a base and multiples of a stride
        y = tl.program_id(0) * 2_147_483_000 + at * 20
    else:
        y = x << n
    tl.store(y_ptr + at, y, mask=at < n)


@pytest.mark.parametrize(
    ("op", "good", "bad"),
    [("add", 2**30 - 1, 2**30), ("sub", 2**31 - 1, -(2**31)), ("mul", 46340, 46341)],
)
def test_integers_that_overflow_are_reported(op, good, bad):
    x, y = torch.zeros(20, dtype=torch.int32), torch.zeros(20, dtype=torch.int32)
    x[17] = good
    overflow_kernel[(2,)](x, y, 20, OP=op, BLOCK=16)
    x[17] = bad
    with pytest.raises(
        KernelFault,
        match=rf"test_operations.py:\d+: overflow_kernel, program \(1, 0, 0\): int32 overflow in {op}",
    ):
        overflow_kernel[(2,)](x, y, 20, OP=op, BLOCK=16)
    for dtype in (torch.int64, torch.uint32):  # unsigned numbers wrap, and int64 is not checked
        overflow_kernel[(2,)](x.to(dtype), torch.zeros(20, dtype=dtype), 20, OP=op, BLOCK=16)


def test_addresses_that_overflow_are_reported():
    x, y = torch.zeros(40, dtype=torch.int32), torch.zeros(40, dtype=torch.int32)
    overflow_kernel[(1,)](x, y, 16, OP="offset", BLOCK=16)
    with pytest.raises(KernelFault, match=r"program \(1, 0, 0\): int32 overflow in add"):
        overflow_kernel[(2,)](x, y, 40, OP="offset", BLOCK=32)


def test_a_shift_by_the_width_or_more_is_undefined():
    x, y = torch.ones(40, dtype=torch.int32), torch.zeros(40, dtype=torch.int32)
    overflow_kernel[(1,)](x, y, 31, OP="shift", BLOCK=64)
    assert y[0] == -(2**31)
    overflow_kernel[(1,)](x, y, 32, OP="shift", BLOCK=64)
    assert y[0] < -(2**30) and y[0] != -(2**31)


@triton.jit
def careless_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(y_ptr, tl.sum(x))
    tl.store(y_ptr + 1, tl.max(x))
    tl.store(y_ptr + 2, tl.min(tl.exp(x)))
    tl.store(y_ptr + 3, tl.max(tl.where(at < n, x, -1)))
    tl.store(y_ptr + 4, tl.max(tl.clamp(x, 0.0, 1.0)))


def test_a_lane_that_is_masked_off_spoils_what_it_reaches():
    x, y = torch.ones(20), torch.zeros(5)
    careless_kernel[(1,)](x, y, 16, BLOCK=16)
    torch.testing.assert_close(y, torch.tensor([16, 1, 2.7182817, 1, 1]))
    careless_kernel[(1,)](x, y, 15, BLOCK=16)
    assert y.isnan().tolist() == [True, True, True, False, True]
    x[3] = float("nan")  # what is not a number but was stored is forgotten, as on a GPU
    careless_kernel[(1,)](x, y, 16, BLOCK=16)
    assert y.isnan().tolist() == [True, False, False, False, False]
