"""Floats of 8 bits: each code, and the nearest of them, as PyTorch has it."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from gptwin.kernels.interpreter.float8 import decode, encode

FORMATS = {
    torch.float8_e5m2: (tl.float8e5, 57344.0),
    torch.float8_e4m3fn: (tl.float8e4nv, 448.0),
    torch.float8_e5m2fnuz: (tl.float8e5b16, 57344.0),
    torch.float8_e4m3fnuz: (tl.float8e4b8, 240.0),
}
formats = pytest.mark.parametrize("dtype", FORMATS)


@formats
def test_each_code_means_what_pytorch_says(dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    meant = decode(codes.numpy(), FORMATS[dtype][0])
    assert np.array_equal(meant, codes.view(dtype).float().numpy(), equal_nan=True)


@formats
@pytest.mark.parametrize("source", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_are_rounded_as_pytorch_rounds_them(
    dtype: torch.dtype, source: torch.dtype, cast
) -> None:
    scale = torch.tensor([1e-6, 1e-4, 1e-2, 1.0, 30.0])[:, None]
    x = torch.cat([(torch.randn(5, 2000) * scale).flatten(), torch.arange(-30, 31) / 8])
    special = torch.tensor([7.75, 1.9404, 0.0, -0.0, torch.nan])
    x = torch.cat([x, special, codes_between(dtype)]).to(source)
    rounded = cast(x, dtype)
    expected = x.float().to(dtype)
    same = rounded.view(torch.uint8) == expected.view(torch.uint8)
    assert (same | (rounded.float().isnan() & x.isnan())).all()


def codes_between(dtype: torch.dtype) -> torch.Tensor:
    """Every number half way between two neighbours."""
    finite = torch.arange(0, 120, dtype=torch.uint8).view(dtype).float()
    return (finite[1:] + finite[:-1]) / 2


@formats
def test_what_is_too_large_becomes_the_largest(dtype: torch.dtype, cast) -> None:
    x = torch.tensor([1e9, -1e9, torch.inf, -torch.inf])
    largest = FORMATS[dtype][1]
    assert cast(x, dtype).float().tolist() == [largest, -largest, largest, -largest]


def test_a_format_of_tritons_own() -> None:
    assert decode(np.array([0x7F, 0xFF, 0x01], np.uint8), tl.float8e4b15).tolist() == [
        1.75,
        -1.75,
        2.0**-17,
    ]
    assert decode(encode(np.array([1.3, -9.0]), tl.float8e4b15), tl.float8e4b15).tolist() == [
        1.25,
        -1.75,
    ]


@triton.jit
def cut_kernel(x_ptr, y_ptr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    y = tl.load(x_ptr + at).to(y_ptr.dtype.element_ty, fp_downcast_rounding="rtz")
    tl.store(y_ptr + at, y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_rounding_toward_zero_makes_nothing_larger(dtype: torch.dtype) -> None:
    x = torch.cat([torch.randn(255), torch.tensor([1e6])])
    y = torch.zeros(256, dtype=dtype)
    cut_kernel[(1,)](x, y, SIZE=256)
    nearest, cut = x.to(dtype).float(), y.float()
    assert (cut.abs() <= x.abs()).all() and cut.isfinite().all()
    exact = nearest.abs() <= x.abs()
    assert torch.equal(cut[exact], nearest[exact]) and (cut != nearest).any()


@triton.jit
def product_kernel(x_ptr, y_ptr, z_ptr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(z_ptr + at, tl.dot(tl.load(x_ptr + at), tl.load(y_ptr + at)))


def test_a_product_of_float8_blocks_keeps_small_numbers() -> None:
    x = (torch.randn(16, 16) * 2.0**-15).to(torch.float8_e5m2)  # subnormal
    y, z = torch.eye(16).to(torch.float8_e5m2), torch.zeros(16, 16)
    product_kernel[(1,)](x, y, z, SIZE=16)
    assert torch.equal(z, x.float()) and z.any()
