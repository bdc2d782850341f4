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
from triton.language.extra import libdevice

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
def turn_kernel(x_ptr, n, SIZE: tl.constexpr):
    """Carry a tile that is read in another order than it is written."""
    i = tl.arange(0, SIZE)
    at = i[:, None] * SIZE + i[None, :]
    x = tl.load(x_ptr + at)
    turns = 0
    while turns < n:
        x = tl.trans(x) + 1
        turns += 1
    tl.store(x_ptr + at, x)


def test_a_turn_of_a_while_loop_does_not_overwrite_what_it_reads():
    for turns in range(5):
        x = torch.randn(16, 16, generator=torch.Generator().manual_seed(turns))
        expected = (x.T if turns % 2 else x) + turns
        turn_kernel[(1,)](x, turns, SIZE=16)
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)


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
def selu(x):
    """Return early, as the documentation of tl.map_elementwise does."""
    if x > 0:
        return x * 1.05
    else:
        return 1.76 * (tl.exp(x) - 1)


@triton.jit
def first_above(x_ptr, n, limit):
    """Return from one of several places."""
    if n < 1:
        return -1
    if tl.load(x_ptr) > limit:
        return 0
    found = n
    for i in range(n):
        if (tl.load(x_ptr + i) > limit) & (found == n):
            found = i
    return found


@triton.jit(noinline=True)
def doubled(x):
    return x * 2


@triton.jit
def early_kernel(x_ptr, y_ptr, at_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    if row >= n:
        return
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * BLOCK + at)
    if row == 1:
        tl.store(y_ptr + row * BLOCK + at, x)
        return
    for turn in range(3):
        tl.store(at_ptr + row * 3 + turn, first_above(x_ptr + row * BLOCK, turn * 4, 0.9))
    y = tl.map_elementwise(selu, x)
    if row == 2:
        y = y * doubled(row.to(tl.float32)) * 0.5
    tl.store(y_ptr + row * BLOCK + at, y)


def test_functions_and_kernels_may_return_early_and_need_not_be_inlined():
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    x[0, 0], x[3, :3], x[3, 3] = 1.0, 0.0, 2.0
    y, at = torch.zeros(4, 16), torch.zeros(4, 3, dtype=torch.int32)
    early_kernel[(6,)](x, y, at, 4, BLOCK=16)
    expected = torch.where(x > 0, x * 1.05, 1.76 * (x.exp() - 1))
    expected[1], expected[2] = x[1], 2 * expected[2]
    torch.testing.assert_close(y, expected)
    assert at[0].tolist() == [-1, 0, 0] and at[1].tolist() == [0, 0, 0]
    assert at[3].tolist() == [-1, 3, 3]


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
def places_kernel(x_ptr):
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    place = (z * tl.num_programs(1) + y) * tl.num_programs(0) + x
    tl.store(x_ptr + place, x + 10 * y + 100 * z)


def test_every_program_has_its_place_in_the_grid():
    x = torch.zeros(4, 3, 5, dtype=torch.int32)
    places_kernel[(5, 3, 4)](x)
    z, y, x_axis = (torch.arange(n) for n in x.shape)
    assert torch.equal(x.long(), 100 * z[:, None, None] + 10 * y[:, None] + x_axis)


@triton.jit
def prefix_kernel(x_ptr, flag_ptr, sum_ptr):
    program = tl.program_id(0)
    before = 0.0
    if program > 0:
        while tl.load(flag_ptr + program - 1, volatile=True) == 0:
            pass
        before = tl.load(sum_ptr + program - 1)
    tl.store(sum_ptr + program, before + tl.load(x_ptr + program))
    tl.atomic_xchg(flag_ptr + program, 1)


@triton.jit
def barriers_kernel(count_ptr, seen_ptr, n_programs, N_BARRIERS: tl.constexpr):
    program = tl.program_id(0)
    for i in range(N_BARRIERS):
        tl.atomic_add(count_ptr + i, 1)
        while tl.atomic_add(count_ptr + i, 0) < n_programs:
            pass
        tl.store(seen_ptr + program * N_BARRIERS + i, program)


def test_programs_that_wait_for_one_another_are_all_there():
    x, sums = torch.arange(40.0), torch.empty(40)
    prefix_kernel[(40,)](x, torch.zeros(40, dtype=torch.int32), sums)
    assert sums.tolist() == x.cumsum(0).tolist()
    counts, seen = torch.zeros(3, dtype=torch.int32), torch.full((9, 3), -1)
    barriers_kernel[(9,)](counts, seen, 9, N_BARRIERS=3)
    assert counts.tolist() == [9, 9, 9] and seen.tolist() == [[i] * 3 for i in range(9)]


@triton.jit
def atomics_kernel(x_ptr, total_ptr, last_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.atomic_add(total_ptr + at % 2, x, mask=at < n)
    tl.atomic_xchg(last_ptr + at, x.to(tl.float32), mask=at < n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_programs_on_several_cores_add_to_one_number(dtype, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    x = torch.ones(200, dtype=dtype)
    total, last = torch.zeros(2, dtype=dtype), torch.zeros(200)
    atomics_kernel[(7,)](x, total, last, 200, BLOCK=32)
    assert total.tolist() == [100, 100] and torch.equal(last, x.float())


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
def libdevice_kernel(x_ptr, n_ptr, y_ptr, m_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x, n = tl.load(x_ptr + at), tl.load(n_ptr + at)
    tl.store(y_ptr + at, libdevice.j0(x) + libdevice.fdim(x, 1.0))
    tl.store(m_ptr + 0 * BLOCK + at, libdevice.float2int_rd(x))
    tl.store(m_ptr + 1 * BLOCK + at, libdevice.llrint(x).to(tl.int32))
    tl.store(m_ptr + 2 * BLOCK + at, libdevice.clz(n))
    tl.store(m_ptr + 3 * BLOCK + at, libdevice.ffs(n))
    tl.store(m_ptr + 4 * BLOCK + at, libdevice.brev(n))
    tl.store(m_ptr + 5 * BLOCK + at, libdevice.mulhi(n, n))
    tl.store(m_ptr + 6 * BLOCK + at, libdevice.hadd(n, n + 3))
    tl.store(m_ptr + 7 * BLOCK + at, libdevice.float_as_int(x))


def test_libdevice_of_integers_and_bits():
    x = torch.tensor([-1.5, 0.5, 2.5, 1e10])
    n = torch.tensor([0, 1, -8, 2**30], dtype=torch.int32)
    y, m = torch.zeros(4), torch.zeros(8, 4, dtype=torch.int32)
    libdevice_kernel[(1,)](x, n, y, m, BLOCK=4)
    torch.testing.assert_close(y[:3], torch.special.bessel_j0(x[:3]) + (x[:3] - 1).relu())
    assert m[0].tolist() == [-2, 0, 2, 2**31 - 1] and m[1].tolist()[:3] == [-2, 0, 2]
    assert m[2].tolist() == [32, 31, 0, 1] and m[3].tolist() == [0, 1, 4, 31]
    assert m[4].tolist() == [0, -(2**31), 0x1FFFFFFF, 2]
    assert m[5].tolist() == [0, 0, 0, 2**28] and m[6].tolist() == [1, 2, -7, 2**30 + 1]
    assert torch.equal(m[7].view(torch.float32), x)


@triton.jit
def far_kernel(x_ptr):
    tl.store(x_ptr, tl.inline_asm_elementwise("mov.u32 $0, 7;", "=r", [], tl.int32, True, 1))


def test_what_is_not_supported_is_named_with_its_line_before_anything_runs():
    with pytest.raises(
        Unsupported,
        match=r"test_operations.py:\d+: the native CPU backend has no tt.elementwise_in",
    ):
        far_kernel[(1,)](torch.zeros(1))


@triton.jit
def overflow_kernel(x_ptr, y_ptr, n, OP: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0)
    if OP == "add":
        y = x + x
    elif OP == "sub":
        y = x * 0 - x - x
    elif OP == "mul":
        y = x * x
    elif OP == "offset":  # a base and multiples of a stride
        y = tl.program_id(0) * 2_147_483_000 + at * 20
    else:
        y = x << n
    tl.store(y_ptr + at, y, mask=at < n)


@pytest.mark.parametrize(
    ("op", "good", "bad"),
    [("add", 2**30 - 1, 2**30), ("sub", 2**30, 2**30 + 1), ("mul", 46340, 46341)],
)
def test_integers_that_overflow_are_reported(op, good, bad):
    x, y = torch.zeros(20, dtype=torch.int32), torch.zeros(20, dtype=torch.int32)
    x[17] = good
    overflow_kernel[(2,)](x, y, 20, OP=op, BLOCK=16)
    x[17] = bad
    said = rf"test_operations.py:\d+: overflow_kernel, program \(1, 0, 0\): int32 overflow in {op}"
    with pytest.raises(KernelFault, match=said):
        overflow_kernel[(2,)](x, y, 20, OP=op, BLOCK=16)
    for dtype in (torch.int64, torch.uint32):  # unsigned numbers wrap, and int64 is not checked
        overflow_kernel[(2,)](x.to(dtype), torch.zeros(20, dtype=dtype), 20, OP=op, BLOCK=16)


def test_addresses_that_overflow_are_reported():
    x, y = torch.zeros(40, dtype=torch.int32), torch.zeros(40, dtype=torch.int32)
    overflow_kernel[(1,)](x, y, 16, OP="offset", BLOCK=16)
    with pytest.raises(KernelFault, match=r"program \(1, 0, 0\): int32 overflow in add"):
        overflow_kernel[(2,)](x, y, 40, OP="offset", BLOCK=32)


@triton.jit
def padded_kernel(x_ptr, y_ptr, n, PAD: tl.constexpr, BLOCK: tl.constexpr):
    """Ask of an index once whether it is at least 0 and below n, as an unsigned number."""
    at = tl.arange(0, BLOCK)
    inside = (at - PAD).to(tl.uint32, bitcast=True) < n.to(tl.uint32)
    tl.store(y_ptr + at, tl.load(x_ptr + at - PAD, mask=inside, other=-1))


def test_an_unsigned_comparison_holds_for_no_number_below_0():
    x = torch.arange(100, dtype=torch.int32)
    y = torch.zeros(64, dtype=torch.int32)
    padded_kernel[(1,)](x[10:], y, 40, PAD=3, BLOCK=64)
    assert y.tolist() == [-1] * 3 + x[10:50].tolist() + [-1] * 21


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
    careless_kernel[(1,)](-torch.ones(64), y, 64, BLOCK=64)
    assert y[1] == y[3] == -1
    careless_kernel[(1,)](x, y, 15, BLOCK=16)
    assert y.isnan().tolist() == [True, True, True, False, True]
    x[3] = float("nan")  # what is not a number but was stored is forgotten, as on a GPU
    careless_kernel[(1,)](x, y, 16, BLOCK=16)
    assert y.isnan().tolist() == [True, False, False, False, False]
