"""Sizes at which 32 bits would not do: refused by name, or done otherwise. Nothing is allocated."""

import re

import pytest
import torch

from gptwin import ops
from gptwin.kernels.attention.attention import attention
from gptwin.kernels.common import column_sum as column_sum_module
from gptwin.kernels.common import launch
from gptwin.kernels.common._triton import tl, triton
from gptwin.kernels.common.column_sum import column_sum, rows_per_program
from gptwin.kernels.common.indices import MOST_COUNTED, in_int32, signed
from gptwin.kernels.layers.linear import backward_activation


def huge(*shape, dtype=torch.float16):
    return torch.empty(shape, dtype=dtype, device="meta")


def bools(*shape):
    return huge(*shape, dtype=torch.bool)


CALLS = {
    "linear: expected at most 2147418112 rows": lambda n: ops.linear(huge(n, 1), huge(1, 1)),
    "linear: expected at most 2147418112 columns": lambda n: ops.linear(huge(1, 1), huge(1, n)),
    "linear: expected at most 2147418112 features": lambda n: ops.linear(huge(1, n), huge(n, 1)),
    "softmax: expected at most 2147418112 keys": lambda n: ops.softmax(huge(1, n)),
    "layer_norm: expected at most 2147418112 rows": lambda n: ops.layer_norm(
        huge(n, 1), huge(1), huge(1)
    ),
    "layer_norm: expected at most 2147418112 features": lambda n: ops.layer_norm(
        huge(1, n), huge(n), huge(n)
    ),
    "exact_kl: expected at most 2147418112 logits": lambda n: ops.exact_kl(
        huge(1, n), huge(1, n), bools(1)
    ),
    "qkv_projection: expected at most 2147418112 rows": lambda n: ops.qkv_projection(
        huge(1, n, 1), huge(1, 3), n_head=1
    ),
    "qkv_attention: expected at most 2147418112 d_model": lambda n: ops.qkv_attention(
        huge(1, 32, n), huge(n, 3), n_head=1
    ),
    "attention: expected at most 1073741823 keys": lambda n: ops.attention(
        huge(1, 1, 1, 1), huge(1, 1, n, 1), huge(1, 1, n, 1)
    ),
    "decode_attention: expected at most 2147418112 queries": lambda n: ops.decode_attention(
        huge(1, 1, n, 1), huge(1, 1, 4, 1), huge(1, 1, 4, 1), huge(1, dtype=torch.int64)
    ),
    "token_scores: expected at most 2147418112 tokens": lambda n: ops.cross_entropy(
        huge(n, 1), huge(1, 2), huge(n, dtype=torch.int64)
    ),
    "token_scores: expected at most 2147418112 vocab": lambda n: ops.cross_entropy(
        huge(2, 1), huge(1, n), huge(2, dtype=torch.int64)
    ),
    "director_scores: expected at most 2147418112 vocab": lambda n: ops.director_scores(
        huge(2, 1), huge(1, n), huge(1, n), huge(2, dtype=torch.int64), bools(2)
    ),
    "gae: expected at most 2147418112 tokens": lambda n: ops.gae(
        *[huge(1, n, dtype=torch.float32)] * 2, bools(1, n), gamma=1.0, lam=1.0
    ),
    "token_rewards: expected at most 2147418112 tokens": lambda n: ops.token_rewards(
        *[huge(1, n, dtype=torch.float32)] * 2, huge(1, dtype=torch.float32), bools(1, n), beta=0.1
    ),
}


@pytest.mark.parametrize("message", CALLS)
def test_sizes_that_32_bits_cannot_count_are_refused_by_name(message):
    most = int(re.search(r"\d+", message).group())
    with launch.tracing():  # no kernel runs
        with pytest.raises(ValueError, match=f"^{message}, got {most + 1} "):
            CALLS[message](most + 1)
        CALLS[message](most)


def test_the_limit_leaves_room_for_a_tile():
    """⌈n / 128⌉ as (n + 127) // 128, and the last start of a loop and its block."""
    assert MOST_COUNTED + 2**16 - 1 == 2**31 - 1


def test_positions_beyond_32_bits_hide_what_they_hid(device):
    """2³² + 1 was 1 in an int32; the largest int32 wrapped where queries outnumber keys."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 1, n, 16, generator=generator).to(device).requires_grad_()
        for n in (40, 5, 5)
    )
    found = []
    for start in (
        torch.tensor([1, 5], device=device),
        torch.tensor([1, 2**32 + 1], device=device),
        torch.tensor([1, 2**31 - 1], device=device, dtype=torch.int32),
    ):
        for name in ("triton", "eager"):
            with launch.backend(name):
                output, lse = attention(query, key, value, causal=True, key_start=start)
                gradients = torch.autograd.grad(output.sum(), (query, key, value))
            found.append((output, lse, *gradients))
    for results in found[1:]:
        torch.testing.assert_close(results, found[0], rtol=1e-4, atol=1e-5)
    assert found[0][1][1].isneginf().all()


def test_signed_and_in_int32_keep_what_they_can():
    ids = torch.tensor([0, 255], dtype=torch.uint8)
    assert signed(ids).dtype == torch.int64 and signed(ids).tolist() == [0, 255]
    for dtype in (torch.int32, torch.int64, torch.float32, torch.bool):
        kept = torch.ones(2, dtype=dtype)
        assert signed(kept) is kept
    assert signed(None) is None
    assert in_int32(torch.tensor([-(2**33), 7, 2**33])).tolist() == [0, 7, 2**31 - 1]
    kept = torch.tensor([1], dtype=torch.int32)
    assert in_int32(kept) is kept


def test_more_rows_than_a_grids_second_axis_numbers(device, monkeypatch):
    """65,535 blocks of 256 rows are 16.8 million: the bias of so many tokens had no gradient."""
    assert rows_per_program(2**16 * 256 - 256) == 256
    assert rows_per_program(2**16 * 256) == 512
    monkeypatch.setattr(column_sum_module, "LARGEST_GRID", (9, 2, 2))
    assert rows_per_program(2000) == 1024
    x = torch.arange(6000.0, device=device).view(2000, 3) % 7
    torch.testing.assert_close(column_sum(x, torch.float32), x.sum(0))
    u = torch.zeros_like(x)
    d_u, d_bias = backward_activation(x, u)
    torch.testing.assert_close(d_u, x / 2)
    torch.testing.assert_close(d_bias, x.sum(0) / 2)


@triton.jit
def nothing_kernel(x_ptr):
    """Do nothing."""
    tl.load(x_ptr)


def test_a_grid_that_no_gpu_can_number_is_refused(device):
    x = torch.zeros(1, device=device)
    for grid, axis in (((2**31,), 0), ((1, 2**16), 1), (lambda meta: (1, 1, 2**16), 2)):
        with pytest.raises(ValueError, match=f"^nothing_kernel: expected at most .* axis {axis} "):
            launch.launch(nothing_kernel, grid, x)
