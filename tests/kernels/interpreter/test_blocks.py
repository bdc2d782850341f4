"""Reductions, scans and sorts, along both axes and in every precision."""

import math

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st


@triton.jit
def combine_add(a, b):
    return a + b


@triton.jit
def combine_last(a, b):
    return b


@triton.jit
def combine_linear(decay, value, next_decay, next_value):
    return decay * next_decay, value * next_decay + next_value


@triton.jit
def reduce_kernel(
    x_ptr, y_ptr, OP: tl.constexpr, AXIS: tl.constexpr, M: tl.constexpr, N: tl.constexpr
):
    offsets = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    x = tl.load(x_ptr + offsets)
    if OP == "cumsum":
        tl.store(y_ptr + offsets, tl.cumsum(x, AXIS))
    elif OP == "reverse cumsum":
        tl.store(y_ptr + offsets, tl.cumsum(x, AXIS, reverse=True))
    else:
        if OP == "sum":
            y = tl.sum(x, AXIS, keep_dims=True)
        elif OP == "max":
            y = tl.max(x, AXIS, keep_dims=True)
        elif OP == "min":
            y = tl.min(x, AXIS, keep_dims=True)
        elif OP == "argmax":
            y = tl.expand_dims(tl.argmax(x, AXIS), AXIS)
        elif OP == "argmin":
            y = tl.expand_dims(tl.argmin(x, AXIS), AXIS)
        elif OP == "custom":
            y = tl.reduce(x, AXIS, combine_add, keep_dims=True)
        elif OP == "last":
            y = tl.reduce(x, AXIS, combine_last, keep_dims=True)
        if AXIS == 0:
            tl.store(y_ptr + tl.arange(0, N)[None, :], y)
        else:
            tl.store(y_ptr + tl.arange(0, M)[:, None], y)


def reduce(op: str, x: torch.Tensor, axis: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    shape = list(x.shape)
    if "cumsum" not in op:
        shape[axis] = 1
    y = torch.full(shape, 77, dtype=dtype)
    reduce_kernel[(1,)](x, y, OP=op, AXIS=axis, M=x.shape[0], N=x.shape[1])
    return y


@triton.jit
def linear_scan_kernel(decay_ptr, value_ptr, y_ptr, REVERSE: tl.constexpr, N: tl.constexpr):
    offsets = tl.arange(0, N)
    decay, value = tl.load(decay_ptr + offsets), tl.load(value_ptr + offsets)
    _, y = tl.associative_scan((decay, value), 0, combine_linear, reverse=REVERSE)
    tl.store(y_ptr + offsets, y)


@triton.jit
def sort_kernel(x_ptr, y_ptr, M: tl.constexpr, N: tl.constexpr):
    offsets = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(y_ptr + offsets, tl.sort(tl.load(x_ptr + offsets), 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("op", ["sum", "custom", "cumsum", "reverse cumsum"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=3)
def test_sums_are_within_the_bound(op, axis, dtype, seed):
    """|error| <= gamma_n |x|, u being the input's own: even tl.sum adds in bfloat16."""
    x = torch.randn(16, 32, generator=torch.Generator().manual_seed(seed)).to(dtype)
    wide, n = x.double(), x.shape[axis]
    roundoff = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-24}[dtype]

    def exact(values):
        if op == "cumsum":
            return values.cumsum(axis)
        if op == "reverse cumsum":
            return values.flip(axis).cumsum(axis).flip(axis)
        return values.sum(axis, keepdim=True)

    error = (reduce(op, x, axis).double() - exact(wide)).abs()
    gamma = n * roundoff / (1 - n * roundoff)
    assert (error <= gamma * exact(wide.abs())).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("op", ["max", "min", "argmax", "argmin", "last"])
def test_selections_are_exact(same, op, axis, dtype):
    x = torch.randn(16, 32, generator=torch.Generator().manual_seed(2)).to(dtype)
    x[3, 5] = x[2, 7] = 9.0  # ties go to the left
    expected = {
        "max": x.amax(axis, keepdim=True),
        "min": x.amin(axis, keepdim=True),
        "argmax": torch.from_numpy(x.float().numpy().argmax(axis, keepdims=True)).int(),
        "argmin": torch.from_numpy(x.float().numpy().argmin(axis, keepdims=True)).int(),
        "last": x.select(axis, -1).unsqueeze(axis),
    }[op]
    same(reduce(op, x, axis, expected.dtype), expected)


def test_max_ignores_nan_and_sum_does_not(same):
    x = torch.randn(16, 32)
    x[3, 5] = math.nan
    expected = x.nan_to_num(-math.inf).amax(1, keepdim=True)
    same(reduce("max", x, 1), expected)
    assert reduce("sum", x, 1).isnan().squeeze().tolist() == [row == 3 for row in range(16)]


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_of_pairs_keeps_the_order(reverse):
    n = 64
    generator = torch.Generator().manual_seed(3)
    decay = torch.rand(n, generator=generator)
    value, y = torch.randn(n, generator=generator), torch.full((n,), math.nan)
    linear_scan_kernel[(1,)](decay, value, y, REVERSE=reverse, N=n)
    expected, state = torch.zeros(n, dtype=torch.float64), 0.0
    for i in reversed(range(n)) if reverse else range(n):
        state = state * decay[i].double() + value[i].double()
        expected[i] = state
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int32])
def test_sort(same, dtype):
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(4)).mul(100).to(dtype)
    y = torch.zeros_like(x)
    sort_kernel[(1,)](x, y, M=4, N=32)
    same(y, x.sort(1).values)
