"""Casts, constants, arguments and poison: what a value is, bit for bit as PyTorch has it."""

import math
import warnings

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, -1e-40, 1.1754944e-38]
SPECIAL += [3.3895314e38, 3.4028235e38, -3.4028235e38, 1.00390625, 1.01171875, 65504.0, 65520.0]
BLOCK = 256

float32_bits = st.integers(0, 2**32 - 1).map(lambda bits: np.uint32(bits).view(np.float32))
any_float32 = st.one_of(st.sampled_from(np.float32(SPECIAL)), float32_bits, st.floats(width=32))
float32_arrays = arrays(np.float32, BLOCK, elements=any_float32)


@triton.jit
def add_scalar_kernel(x_ptr, y_ptr, scalar):
    tl.store(y_ptr, (tl.load(x_ptr).to(tl.float64) + scalar).to(tl.float64))


@triton.jit
def scalar_mask_kernel(x_ptr, y_ptr, threshold, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    mask = (offsets < 3) & (threshold > 0.5)
    tl.store(y_ptr + offsets, tl.load(x_ptr + offsets), mask=mask)


@triton.jit
def poison_kernel(x_ptr, y_ptr, n, HOW: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    if HOW == "other":
        x = tl.load(x_ptr + offsets, mask=offsets < n, other=7)
    else:
        x = tl.load(x_ptr + offsets, mask=offsets < n)
    if HOW == "sum":
        tl.store(y_ptr, tl.sum(x, 0))
    elif HOW == "max":
        tl.store(y_ptr, tl.max(x, 0))
    elif HOW == "min":
        tl.store(y_ptr, tl.min(x, 0))
    elif HOW == "relu":
        tl.store(y_ptr, tl.sum(tl.maximum(x * 2.0, 0.0), 0))
    elif HOW == "where":
        tl.store(y_ptr, tl.sum(tl.where(offsets < n, x, 0.0), 0))
    else:
        tl.store(y_ptr + offsets, x)


def poison(how: str, x: torch.Tensor, n: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    y = torch.zeros(x.shape, dtype=dtype or x.dtype)
    poison_kernel[(1,)](x, y, n, HOW=how, BLOCK=x.numel())
    return y


def all_16_bit_patterns(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)


@given(float32_arrays)
@settings(max_examples=30)
def test_float32_to_bfloat16_rounds_as_pytorch(cast, same, values):
    x = torch.from_numpy(values)
    same(cast(x, torch.bfloat16), x.to(torch.bfloat16))


def test_float32_to_bfloat16_around_every_tie(cast, same):
    """Half-way between neighbours, and one bit to either side, for every bfloat16."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    x = np.concatenate([upper | low for low in (0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    x = torch.from_numpy(x.view(np.float32))
    same(cast(x, torch.bfloat16), x.to(torch.bfloat16))


@pytest.mark.parametrize("through", [torch.float32, torch.float64], ids=str)
def test_bfloat16_upcast_is_exact_and_comes_back(cast, same, through):
    x = all_16_bit_patterns(torch.bfloat16)
    wide = cast(x, through)
    same(wide, x.to(through))
    same(cast(wide, torch.bfloat16), x)


def test_bfloat16_to_and_from_float16(cast, same):
    x, y = all_16_bit_patterns(torch.bfloat16), all_16_bit_patterns(torch.float16)
    same(cast(x, torch.float16), x.to(torch.float16))
    same(cast(y, torch.bfloat16), y.to(torch.bfloat16))


@given(arrays(np.float64, BLOCK, elements=st.floats() | st.sampled_from(SPECIAL)))
@settings(max_examples=15)
def test_float64_to_bfloat16_rounds_as_pytorch(cast, same, values):
    x = torch.from_numpy(values)
    same(cast(x, torch.bfloat16), x.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.bool])
def test_integers_to_and_from_bfloat16(cast, same, dtype):
    random = torch.randint(-(2**31), 2**31, (BLOCK,), generator=torch.Generator().manual_seed(0))
    x = torch.cat([random, torch.arange(-600, 600)]).to(dtype)
    same(cast(x, torch.bfloat16), x.to(torch.bfloat16))
    small = torch.arange(-128, 128).to(dtype).to(torch.bfloat16)
    same(cast(small, dtype), small.to(dtype))


@pytest.mark.parametrize("scalar", [0.1, 1e-10, 1e-42, -3.3, math.inf])
def test_a_float_argument_is_float32(scalar):
    y = torch.zeros(1, dtype=torch.float64)
    add_scalar_kernel[(1,)](torch.zeros(1), y, scalar)
    assert y.item() == float(np.float32(scalar))


def test_a_comparison_of_float_scalars_is_a_mask():
    x, y = torch.ones(8), torch.zeros(8)
    scalar_mask_kernel[(1,)](x, y, 0.25, BLOCK=8)
    assert not y.any()
    scalar_mask_kernel[(1,)](x, y, 0.75, BLOCK=8)
    assert y.tolist() == [1.0] * 3 + [0.0] * 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("how", ["sum", "max", "min", "relu", "load"])
def test_undefined_float_lanes_are_nan(dtype, how):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = poison(how, torch.ones(8, dtype=dtype), 5)
    assert (
        result[0].isnan() if how != "load" else result.isnan().tolist() == [False] * 5 + [True] * 3
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_poison_stays_poison_after_a_cast(cast, binary, dtype):
    undefined = poison("load", torch.ones(8, dtype=dtype), 5)
    for target in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        x = cast(undefined, target)
        assert x.isnan().tolist() == [False] * 5 + [True] * 3
        for op in ("min", "max"):
            assert binary(op, x, torch.zeros_like(x), target).isnan().equal(x.isnan())


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.uint8, torch.bool])
def test_undefined_integer_lanes_are_extreme(dtype):
    result = poison("load", torch.zeros(8, dtype=dtype), 5)
    assert not result[:5].any()
    assert result[5:].all()
    if dtype.is_signed:
        assert (result[5:].double() < -torch.iinfo(dtype).max / 1.1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int32])
def test_lanes_with_other_or_unused_are_clean(dtype):
    x = torch.ones(8, dtype=dtype)
    assert poison("other", x, 5).tolist() == [1] * 5 + [7] * 3
    assert poison("load", x, 8).tolist() == [1] * 8
    if dtype.is_floating_point:
        assert poison("where", x, 5)[0] == 5
