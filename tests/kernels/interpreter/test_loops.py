"""A loop's variable is a number of the kernel's."""

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError


@triton.jit
def halves_kernel(y_ptr, start, end, step):
    for i in range(start, end, step):
        tl.store(y_ptr + i, (i - 3) // 2)


def test_a_quotient_of_a_loops_variable_is_cut_off() -> None:
    y = torch.full((6,), 77)
    halves_kernel[(1,)](y, 0, 6, 1)
    assert y.tolist() == [-1, -1, 0, 0, 0, 1]
    y = torch.full((6,), 77)
    halves_kernel[(1,)](y, 5, 0, -2)
    assert y.tolist() == [77, -1, 77, 0, 77, 1]


@triton.jit
def types_kernel(y_ptr, n, LARGE: tl.constexpr):
    for i in tl.range(n, num_stages=2):
        tl.store(y_ptr, i.to(tl.int64) * 3_000_000_000)
    for i in range(LARGE, LARGE + 1):
        tl.store(y_ptr + 1, i)
    for i in tl.static_range(2):
        tl.store(y_ptr + 2 + i, tl.arange(0, 2 + 2 * i).shape[0])


def test_a_loops_variable_has_the_type_of_its_bounds() -> None:
    y = torch.zeros(4, dtype=torch.int64)
    types_kernel[(1,)](y, 3, LARGE=1 << 40)
    assert y.tolist() == [6_000_000_000, 1 << 40, 2, 4]


@triton.jit
def overflow_kernel(y_ptr, n, STRIDE: tl.constexpr):
    for i in range(n):
        tl.store(y_ptr, i * STRIDE)


def test_a_product_with_a_loops_variable_overflows() -> None:
    with pytest.raises(InterpreterError, match="int32 overflow"):
        overflow_kernel[(1,)](torch.zeros(1), 3, STRIDE=1 << 30)


@triton.jit
def last_step_kernel(y_ptr, start, end):
    for i in range(start, end, 64):
        tl.store(y_ptr, i)


def test_the_step_after_the_last_turn_overflows() -> None:
    end = 2**31 - 10
    with pytest.raises(InterpreterError, match=r"int32 overflow detected.*last step"):
        last_step_kernel[(1,)](torch.zeros(1, dtype=torch.int32), end - 3, end)
    last_step_kernel[(1,)](torch.zeros(1, dtype=torch.int32), end - 120, end - 64)


@triton.jit
def first(n):
    found = n
    for i in range(n):
        if i * i > 10 and found == n:
            found = i
    return found


@triton.jit
def first_kernel(y_ptr, n):
    tl.store(y_ptr, first(n))


def test_a_device_function_loops_alike() -> None:
    y = torch.zeros(1)
    first_kernel[(1,)](y, 9)
    assert y.item() == 4
