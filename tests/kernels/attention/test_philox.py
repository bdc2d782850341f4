"""Triton's generator draws the bits and floats that core/philox.py defines."""

import numpy as np
import pytest
import torch

from gptwin.core.philox import philox, uniform
from gptwin.kernels.common._triton import tl, triton
from gptwin.kernels.common.launch import launch

SEEDS = [0, 1, 2**31, 2**32 + 5, 2**63 - 1, -3]


@triton.jit
def words_kernel(out_ptr, seed, c1, c2, c3, N: tl.constexpr):
    n = tl.arange(0, N)
    zeros = tl.zeros([N], tl.int64)
    words_1, words_2, words_3 = zeros + c1, zeros + c2, zeros + c3
    r0, r1, r2, r3 = tl.philox(
        seed,
        n.to(tl.uint32),
        words_1.to(tl.uint32),
        words_2.to(tl.uint32),
        words_3.to(tl.uint32),
    )
    tl.store(out_ptr + n, r0.to(tl.int32, bitcast=True))
    tl.store(out_ptr + N + n, r1.to(tl.int32, bitcast=True))
    tl.store(out_ptr + 2 * N + n, r2.to(tl.int32, bitcast=True))
    tl.store(out_ptr + 3 * N + n, r3.to(tl.int32, bitcast=True))


@triton.jit
def offset_kernel(words_ptr, floats_ptr, seed, first, N: tl.constexpr):
    n = tl.arange(0, N)
    offsets = n.to(tl.int64) + first  # 64 bits: two counter words
    r0, r1, r2, r3 = tl.randint4x(seed, offsets)
    tl.store(words_ptr + n, r0.to(tl.int32, bitcast=True))
    tl.store(words_ptr + N + n, r1.to(tl.int32, bitcast=True))
    tl.store(words_ptr + 2 * N + n, r2.to(tl.int32, bitcast=True))
    tl.store(words_ptr + 3 * N + n, r3.to(tl.int32, bitcast=True))
    tl.store(floats_ptr + n, tl.rand(seed, offsets))


def as_words(out):
    return out.cpu().numpy().view(np.uint32)


@pytest.mark.parametrize("seed", SEEDS)
def test_tl_philox_gives_the_same_bits(seed, device):
    out = torch.empty(4, 1024, dtype=torch.int32, device=device)
    launch(words_kernel, (1,), out, seed, 5, 2**31 + 9, 77, N=1024)
    np.testing.assert_array_equal(as_words(out), philox(seed, np.arange(1024), 5, 2**31 + 9, 77))


@pytest.mark.parametrize("first", [0, 2**32 - 100, 2**40 + 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_tl_rand_gives_the_same_bits_and_floats(seed, first, device):
    out = torch.empty(4, 1024, dtype=torch.int32, device=device)
    floats = torch.empty(1024, device=device)
    launch(offset_kernel, (1,), out, floats, seed, first, N=1024)
    offsets = first + np.arange(1024)
    expected = philox(seed, offsets, offsets >> 32, 0, 0)
    np.testing.assert_array_equal(as_words(out), expected)
    np.testing.assert_array_equal(floats.cpu().numpy(), uniform(expected[0]))
