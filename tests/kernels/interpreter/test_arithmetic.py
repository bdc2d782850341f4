"""Arithmetic against PyTorch, bit for bit where PyTorch defines the bits."""

import math
import warnings

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.runtime.errors import InterpreterError

SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, -1e-40, 1.1754944e-38]
SPECIAL += [3.3895314e38, 3.4028235e38, -3.4028235e38, 1.00390625, 1.01171875, 65504.0, 65520.0]
UNIT_ROUNDOFF = 2.0**-24  # of float32


@triton.jit
def fma_kernel(x_ptr, y_ptr, z_ptr, out_ptr):
    tl.store(out_ptr, tl.fma(tl.load(x_ptr), tl.load(y_ptr), tl.load(z_ptr)))


@triton.jit
def dot_kernel(
    a_ptr, b_ptr, c_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr
):
    rows, columns, inner = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a = tl.load(a_ptr + rows[:, None] * K + inner[None, :])
    b = tl.load(b_ptr + inner[:, None] * N + columns[None, :])
    c = tl.dot(a, b, input_precision=PRECISION)
    tl.store(c_ptr + rows[:, None] * N + columns[None, :], c)


def dot(a: torch.Tensor, b: torch.Tensor, precision: str = "ieee") -> torch.Tensor:
    (m, k), n = a.shape, b.shape[1]
    c = torch.full((m, n), math.nan)
    dot_kernel[(1,)](a, b, c, M=m, N=n, K=k, PRECISION=precision)
    return c


@triton.jit
def overflow_kernel(x_ptr, y_ptr, OP: tl.constexpr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    if OP == "add":
        y = x + x
    elif OP == "sub":
        y = x - 1
    elif OP == "mul":
        y = x * x
    elif OP == "div":
        y = x // tl.where(x == 1, 0, 3)
    tl.store(y_ptr + tl.arange(0, BLOCK), y)


def number_first(select, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Ignore every NaN, as a GPU does; torch.fmin lets a signalling one through."""
    return torch.where(x.isnan(), y, torch.where(y.isnan(), x, select(x, y)))


ARITHMETIC = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "min": lambda x, y: number_first(torch.minimum, x, y),
    "max": lambda x, y: number_first(torch.maximum, x, y),
    "min_nan": torch.minimum,
    "max_nan": torch.maximum,
    "where": lambda x, y: torch.where(x < y, x, y),
    "abs": lambda x, y: x.abs(),
    "constant": lambda x, y: x * torch.tensor(0.1).bfloat16() + torch.tensor(0.3).bfloat16(),
    "fma": lambda x, y: (x.double() * y.double() + x.double()).float().bfloat16(),
    "clamp": lambda x, y: x.nan_to_num(-1.5, math.inf, -math.inf).clamp(-1.5, 2.0),
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "eq": torch.eq,
    "ne": torch.ne,
}


def bfloat16_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    special = torch.tensor(SPECIAL).bfloat16()
    x, y = torch.meshgrid(special, special, indexing="ij")
    generator = torch.Generator().manual_seed(1)
    bits = torch.randint(-(2**15), 2**15, (2, 20_000), generator=generator).to(torch.int16)
    near = torch.randn(2, 20_000, generator=generator).bfloat16()
    x = torch.cat([x.ravel(), bits[0].view(torch.bfloat16), near[0]])
    y = torch.cat([y.ravel(), bits[1].view(torch.bfloat16), near[1]])
    return x, y


@pytest.mark.parametrize("op", ARITHMETIC)
def test_bfloat16_arithmetic_equals_pytorch(binary, same, op):
    x, y = bfloat16_pairs()
    expected = ARITHMETIC[op](x, y)
    result = binary(op, x, y, expected.dtype)
    if op in ("min", "max", "min_nan", "max_nan", "clamp"):
        result, expected = result + 0.0, expected + 0.0  # which zero is larger is left open
    same(result, expected)


def test_bfloat16_negation(binary, same):
    x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)  # all of them
    nonzero = x != 0  # before 3.8 Triton computes 0 - x, whose zero is positive
    same(binary("neg", x, x, torch.bfloat16)[nonzero], (-x)[nonzero])


@pytest.mark.parametrize("op", ["min", "max"])
def test_float32_extremes_ignore_nan(binary, same, op):
    x, y = torch.tensor([1.0, math.nan, math.nan]), torch.tensor([math.nan, 2.0, math.nan])
    same(binary(op, x, y, torch.float32), torch.tensor([1.0, 2.0, math.nan]))


def test_inf_and_nan_are_values_not_warnings(cast, binary):
    x = torch.tensor([1.0, 0.0, math.inf, 3e38, math.nan])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quotient, difference = (binary(op, x, x - x, torch.float32) for op in ("div", "sub"))
        assert quotient.isnan().tolist() == [False, True, True, False, True]
        assert difference.isnan().tolist() == [False, False, True, False, True]
        assert binary("mul", x, x, torch.float32)[3] == math.inf
        cast(x, torch.int32)


def test_float32_fma_rounds_once():
    x = torch.tensor([1 + 2.0**-23])
    y = torch.tensor([-1 + 2.0**-23])  # x * y = -1 + 2**-46, which float32 cannot hold
    z = torch.zeros(1)
    fma_kernel[(1,)](x, y, torch.ones(1), z)
    assert z.item() == 2.0**-46


@given(
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    st.sampled_from([16, 64, 256]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=20)
def test_dot_is_within_the_float32_bound(dtype, k, seed):
    """|error| <= gamma_k |a| |b|, gamma_k = k u / (1 - k u), in any order of summation."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(16, k, generator=generator).to(dtype)
    b = torch.randn(k, 32, generator=generator).to(dtype)
    gamma = k * UNIT_ROUNDOFF / (1 - k * UNIT_ROUNDOFF)
    error = (dot(a, b).double() - a.double() @ b.double()).abs()
    assert (error <= gamma * (a.double().abs() @ b.double().abs())).all()


def test_tf32_drops_thirteen_bits_of_each_operand(same):
    """As compiled: no cvt.rna before the tensor core, which reads 10 mantissa bits."""
    eye, row = torch.eye(16), torch.ones(16)
    row[:4] = torch.tensor([1 + 2.0**-10, 1 + 2.0**-11, 1 + 2.0**-10 - 2.0**-23, -1 - 2.0**-11])
    row[4:6] = torch.tensor([3.4028234663852886e38, 1e-45])
    kept = row.clone()
    kept[1:6] = torch.tensor([1.0, 1.0, -1.0, float.fromhex("0x1.FFCp127"), 0.0])
    x, truncated = row.repeat(16, 1), kept.repeat(16, 1)
    same(dot(x, eye, "tf32"), truncated)
    same(dot(eye, x, "tf32"), truncated)
    same(dot(x, eye, "ieee"), x)
    same(dot(x, eye, "tf32x3"), x)
    same(
        dot(x[:, :4].repeat(1, 4).half(), eye.half(), "tf32"), x[:, :4].repeat(1, 4).half().float()
    )


@pytest.mark.parametrize(
    ("op", "good", "bad"),
    [("add", 2**30 - 1, 2**30), ("sub", 1 - 2**31, -(2**31)), ("mul", 46340, 46341)],
)
def test_int32_overflow_raises(op, good, bad):
    x, y = torch.tensor([1, good], dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    overflow_kernel[(1,)](x, y, OP=op, BLOCK=2)
    expected = {"add": x.long() + x, "sub": x.long() - 1, "mul": x.long() * x}[op]
    assert y.tolist() == expected.tolist()
    x[1] = bad
    with pytest.raises(InterpreterError, match="int32 overflow"):
        overflow_kernel[(1,)](x, y, OP=op, BLOCK=2)
    wide = x.long()  # int64 is not checked
    overflow_kernel[(1,)](wide, torch.zeros(2, dtype=torch.int64), OP=op, BLOCK=2)


def test_integer_division_truncates_and_by_zero_is_undefined():
    x, y = torch.tensor([7, -7, 1, 0], dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    overflow_kernel[(1,)](x, y, OP="div", BLOCK=4)
    assert y[[0, 1, 3]].tolist() == [2, -2, 0]
    assert y[2] < -(2**30)
