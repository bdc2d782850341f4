"""Casts to and from float8, rounding to zero, and floats to integers."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from gptwin.kernels.interpreter.numbers.casts import float8_values, to_float8

FORMATS = {
    "fp8e5": torch.float8_e5m2,
    "fp8e4nv": torch.float8_e4m3fn,
    "fp8e5b16": torch.float8_e5m2fnuz,
    "fp8e4b8": torch.float8_e4m3fnuz,
}
LARGEST = {"fp8e5": 57344, "fp8e4nv": 448, "fp8e5b16": 57344, "fp8e4b8": 240}


@triton.jit
def cast_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr, ROUNDING: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x.to(y_ptr.dtype.element_ty, fp_downcast_rounding=ROUNDING))


def cast(x: torch.Tensor, dtype: torch.dtype, rounding: str | None = None) -> torch.Tensor:
    y = torch.empty(x.shape, dtype=dtype)
    cast_kernel[(1,)](x, y, BLOCK=x.numel(), ROUNDING=rounding)
    return y


def every_float16() -> torch.Tensor:
    return torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)


@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", FORMATS)
def test_to_float8_rounds_as_pytorch_does(name: str, source: torch.dtype) -> None:
    x = every_float16().to(source)
    x = torch.where(x.abs().float() <= LARGEST[name], x, 1.0)  # beyond, PyTorch gives NaN
    result, expected = cast(x, FORMATS[name]), x.to(FORMATS[name])
    assert torch.equal(result.view(torch.uint8), expected.view(torch.uint8))


def test_known_values() -> None:
    assert cast(torch.tensor([7.75]), torch.float8_e5m2).item() == 8.0
    assert cast(torch.tensor([1.9404]), torch.float8_e4m3fn).item() == 2.0
    assert cast(torch.tensor([2.0**-9]), torch.float8_e4m3fn).item() == 2.0**-9  # the smallest


@pytest.mark.parametrize("name", FORMATS)
def test_from_float8_is_exact(name: str) -> None:
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(FORMATS[name])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        torch.testing.assert_close(
            cast(codes, dtype), codes.float().to(dtype), rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("name", [*FORMATS, "fp8e4b15"])
def test_what_is_too_large_becomes_the_largest(name: str) -> None:
    x = np.array([1e9, np.inf, -np.inf, -1e9, -0.0, 0.0])
    largest = np.nanmax(np.where(np.isinf(float8_values(name)), np.nan, float8_values(name)))
    back = float8_values(name)[to_float8(x, name)]
    assert back.tolist() == [largest, largest, -largest, -largest, 0, 0]
    assert largest == LARGEST.get(name, 1.75)
    if name != "fp8e4b15":
        assert np.isnan(float8_values(name)[to_float8(np.array([np.nan]), name)])


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16]
)
def test_rounding_to_zero_never_enlarges(dtype: torch.dtype) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, dtype=np.uint32)
    x = torch.from_numpy(bits.view(np.float32))
    x = torch.where(x.isfinite(), x, 1.0)
    largest = torch.finfo(dtype).max
    x = torch.where(x.abs() <= largest, x, x % 1)
    down, nearest = cast(x, dtype, "rtz").double(), cast(x, dtype).double()
    assert (down.abs() <= x.double().abs()).all()
    assert ((nearest == down) | (nearest.abs() > x.double().abs())).all()
    assert (nearest != down).any()


@triton.jit
def product_kernel(x_ptr, y_ptr, z_ptr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(z_ptr + at, tl.dot(tl.load(x_ptr + at), tl.load(y_ptr + at)))


def test_a_product_of_float8_blocks_keeps_small_numbers() -> None:
    x = (torch.randn(16, 16) * 2.0**-15).to(torch.float8_e5m2)  # subnormal
    y, z = torch.eye(16).to(torch.float8_e5m2), torch.zeros(16, 16)
    product_kernel[(1,)](x, y, z, SIZE=16)
    assert torch.equal(z, x.float()) and z.any()


def test_a_float_that_is_no_integer_is_clamped() -> None:
    x = torch.tensor([3e9, -3e9, float("nan"), float("inf"), -2.9, 2.9, -0.5, 1e20])
    expected = [2**31 - 1, -(2**31), 0, 2**31 - 1, -2, 2, 0, 2**31 - 1]
    assert cast(x, torch.int32).tolist() == expected
    assert cast(x, torch.int64).tolist()[1:4] == [-3_000_000_000, -(2**63), 2**63 - 1]
    assert cast(x, torch.uint8).tolist()[4:7] == [0, 2, 0]
    assert cast(torch.tensor([300.0]), torch.uint8).item() == 300 % 256  # there is none of 8 bits
