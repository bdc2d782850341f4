"""What the exact-KL kernels promise, through Triton and in eager PyTorch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwin.kernels.rlhf.exact_kl import MAX_BLOCK, exact_kl, exact_kl_eager

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INF = math.inf
forms = pytest.mark.parametrize("form", [exact_kl, exact_kl_eager])


def ones(*shape):
    return torch.ones(shape, dtype=torch.bool, device=DEVICE)


@forms
def test_the_published_vector(form, device):
    x = torch.tensor([0.4, 0.3, 0.2, 0.1], device=device).log() + 7
    y = torch.tensor([0.5, 0.25, 0.125, 0.125], device=device).log() - 3
    assert form(x, y, ones()).item() == pytest.approx(0.0371254, abs=1e-6)


@settings(max_examples=20)
@given(
    st.integers(1, 4),
    st.one_of(st.integers(1, 300), st.integers(MAX_BLOCK, 2 * MAX_BLOCK + 9)),
    st.integers(0, 10**6),
)
def test_never_negative_and_zero_of_equal_rows(rows, vocab, seed):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(rows, vocab, generator=generator) * 5).to(DEVICE)
    near = x + (torch.randn(rows, vocab, generator=generator) * 1e-4).to(DEVICE)
    assert (exact_kl(x, near, ones(rows)) >= 0).all()
    assert not exact_kl(x, x, ones(rows)).any()


def test_a_rising_maximum_is_followed_across_blocks(device):
    """Each block raises both maxima, by different amounts, so every sum so far is rescaled."""
    vocab = 3 * MAX_BLOCK + 5
    x = torch.linspace(-20, 20, vocab, device=device)
    y = torch.linspace(-35, 30, vocab, device=device)
    for a, b in ((x, y), (x.flip(0), y), (x, y.flip(0))):
        expected = exact_kl_eager(a.double(), b.double(), ones())
        torch.testing.assert_close(exact_kl(a, b, ones()).double(), expected, rtol=1e-5, atol=1e-5)


@forms
@pytest.mark.parametrize("width", [4, 2 * MAX_BLOCK])
@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([0, 0, -INF, -INF], [0, 0, -INF, -INF], 0),
        ([0, 0, -INF, -INF], [0, math.log(3), -INF, 0], math.log(5) - math.log(12) / 2),
        ([-INF, -INF, 0, 0], [-INF, -INF, 0, 0], 0),
        ([0, 0, 0, 0], [0, 0, 0, -INF], INF),
        ([0, -5000, 0, 0], [0, -INF, 0, 0], INF),
        ([-INF] * 4, [0, 0, 0, 0], 0),
        ([-INF] * 4, [-INF] * 4, 0),
        ([0, 0, 0, 0], [-INF] * 4, INF),
        ([torch.nan, 0, 0, 0], [0, 0, 0, -INF], torch.nan),
        ([torch.nan, -INF, -INF, -INF], [0, 0, 0, 0], torch.nan),
        ([0, 0, 0, INF], [0, 0, 0, 0], torch.nan),
        ([0, 0, 0, 0], [0, 0, 0, torch.nan], torch.nan),
    ],
)
def test_infinite_logits(form, x, y, expected, width, device):
    """Four tokens alone, and far apart in a row of −inf that spans blocks."""
    rows = torch.full((2, width), -INF, device=device)
    rows[:, :: width // 4] = torch.tensor([x, y], device=device, dtype=torch.float32)
    rows.requires_grad_()
    result = form(rows[0], rows[1], ones())
    torch.testing.assert_close(
        result, torch.tensor(float(expected), device=device), atol=2e-6, rtol=0, equal_nan=True
    )
    (gradient,) = torch.autograd.grad(result, rows)
    if math.isfinite(expected):
        assert gradient.isfinite().all() and not gradient[0][rows[0] == -INF].any()
    elif expected == INF:
        assert gradient.isnan().all()


@forms
@pytest.mark.parametrize("junk", [torch.nan, INF, -INF])
def test_masked_rows_are_zero_whatever_they_hold(form, junk, device):
    x = torch.tensor([[0.0, 1.0, 2.0], [junk] * 3], device=device, requires_grad=True)
    y = torch.tensor([[2.0, 1.0, 0.0], [junk] * 3], device=device, requires_grad=True)
    result = form(x, y, torch.tensor([True, False], device=device))
    gradients = torch.autograd.grad(result, (x, y), torch.ones_like(result))
    assert result[1] == 0 and result[0] > 0
    assert all(not g[1].any() and g[0].isfinite().all() and g[0].any() for g in gradients)


@forms
def test_an_all_masked_batch_and_an_empty_one(form, device):
    for rows in (3, 0):
        x = torch.full((rows, 5), torch.nan, device=device, requires_grad=True)
        result = form(x, x.detach(), ~ones(rows))
        (gradient,) = torch.autograd.grad(result.sum(), x)
        assert not result.any() and not gradient.any() and gradient.shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_result_is_float32_and_gradients_keep_the_dtype(dtype, device):
    x = torch.randn(2, 9, dtype=dtype, device=device, requires_grad=True)
    result = exact_kl(x, x.detach().flip(1), ones(2))
    result.sum().backward()
    assert result.dtype == torch.float32 and x.grad.dtype == dtype


def test_bad_arguments_are_named(device):
    x = torch.zeros(2, 3, device=device)
    with pytest.raises(ValueError, match=r"reference_logits: expected dtype torch\.float32"):
        exact_kl(x, x.half(), ones(2))
    with pytest.raises(ValueError, match=r"mask: expected shape \(2,\)"):
        exact_kl(x, x, ones(2, 3))
