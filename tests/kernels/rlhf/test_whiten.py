"""What the whitening kernels promise, through Triton and in eager PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwin.kernels.rlhf.whiten import BLOCK, whiten, whiten_eager

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
forms = pytest.mark.parametrize("form", [whiten, whiten_eager])
both = pytest.mark.parametrize("unbiased", [False, True])
either = pytest.mark.parametrize("shift_mean", [False, True])
BIASED = [[0.0508, 0.4381, 0.8254], [1.2127, 1.6, 1.9873], [2.3746, 2.7619, 3.1492]]
UNBIASED = [[0.1394, 0.5046, 0.8697], [1.2349, 1.6, 1.9651], [2.3303, 2.6954, 3.0606]]


@forms
@pytest.mark.parametrize(("unbiased", "expected"), [(False, BIASED), (True, UNBIASED)])
def test_the_published_vectors(form, unbiased, expected, device):
    x = torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]], device=device)
    every = torch.ones(3, 3, dtype=torch.bool, device=device)
    kept = form(x, every, shift_mean=False, unbiased=unbiased)
    torch.testing.assert_close(kept, torch.tensor(expected, device=device), atol=5.2e-5, rtol=0)
    shifted = form(x, every, unbiased=unbiased)
    torch.testing.assert_close(shifted, kept - 1.6, atol=1e-6, rtol=0)


@settings(max_examples=20)
@given(st.integers(2, 2 * BLOCK), st.integers(0, 10**6), st.booleans())
def test_moments(n, seed, unbiased):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(n, generator=generator) * 3 + 100).to(DEVICE)
    mask = (torch.rand(n, generator=generator) < 0.7).to(DEVICE)
    mask[:2] = True
    w = whiten(x, mask, unbiased=unbiased)[mask].double()
    assert w.mean().item() == pytest.approx(0, abs=1e-4)
    assert w.var(correction=int(unbiased)).item() == pytest.approx(1, abs=1e-4)


def test_a_spread_of_one_survives_an_offset_of_a_million(device):
    """E[x²] − E[x]² has no digit left of it in float32."""
    x = 1e6 + torch.arange(3 * BLOCK + 5, device=device) % 3
    w = whiten(x, torch.ones_like(x, dtype=torch.bool), unbiased=False)
    expected = (x.double() - x.double().mean()) / x.double().std(correction=0)
    torch.testing.assert_close(w.double(), expected, atol=0.05, rtol=0)  # a rounding of the mean
    assert w.std(correction=0).item() == pytest.approx(1, abs=1e-3)


@both
@either
@pytest.mark.parametrize("value", [0.1, 0.7, 1234567.0, 16777213.0])
def test_equal_elements_are_centred_to_exactly_0(unbiased, shift_mean, value, device):
    x = torch.full((3, 3 * BLOCK + 13), value, device=device)
    mask = torch.ones_like(x, dtype=torch.bool)
    w = whiten(x, mask, shift_mean=shift_mean, unbiased=unbiased)
    assert torch.equal(w, torch.zeros_like(x) if shift_mean else x)


@forms
@both
@either
@pytest.mark.parametrize("junk", [torch.nan, torch.inf])
def test_masked_junk_leaks_neither_forward_nor_back(form, unbiased, shift_mean, junk, device):
    mask = torch.tensor([True, False, True, False, True], device=device)
    options = {"shift_mean": shift_mean, "unbiased": unbiased}
    alone = torch.tensor([1.0, 3.0, 7.0], device=device, requires_grad=True)
    expected = form(alone, torch.ones_like(alone, dtype=torch.bool), **options)
    d = torch.tensor([1.0, -2.0, 0.5], device=device)
    (d_expected,) = torch.autograd.grad(expected, alone, d)
    x = torch.full((5,), junk, device=device).masked_scatter(mask, alone.detach())
    x.requires_grad_()
    result = form(x, mask, **options)
    d_result = torch.full((5,), junk, device=device).masked_scatter(mask, d)
    (d_x,) = torch.autograd.grad(result, x, d_result)
    torch.testing.assert_close(result[mask], expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(d_x[mask], d_expected, atol=1e-6, rtol=1e-5)
    assert not result[~mask].any() and not d_x[~mask].any()


@forms
@both
@either
def test_one_element_and_none(form, unbiased, shift_mean, device):
    options = {"shift_mean": shift_mean, "unbiased": unbiased}
    for mask in ([True, False], [False, False], []):
        mask = torch.tensor(mask, dtype=torch.bool, device=device)
        x = torch.where(mask, 5.0, torch.nan).requires_grad_()
        result = form(x, mask, **options)
        (d_x,) = torch.autograd.grad(result, x, torch.where(mask, 2.0, torch.nan))
        keeps = 0.0 if shift_mean else 1.0
        assert torch.equal(result, mask * keeps * 5) and torch.equal(d_x, mask * keeps * 2)


@forms
def test_advantages_of_a_million_stay_finite(form, device):
    x = torch.tensor([1e6, -1e6, 3e6, 0.0], device=device, requires_grad=True)
    result = form(x, torch.ones(4, dtype=torch.bool, device=device))
    (d_x,) = torch.autograd.grad(result, x, torch.full_like(x, 1e6).cumsum(0))
    assert result.isfinite().all() and d_x.isfinite().all()


def test_half_precision_is_refused_by_name(device):
    mask = torch.ones(3, dtype=torch.bool, device=device)
    with pytest.raises(ValueError, match=r"x: expected dtype torch\.float32"):
        whiten(torch.zeros(3, dtype=torch.bfloat16, device=device), mask)
    with pytest.raises(ValueError, match="mask: expected dtype bool"):
        whiten(torch.zeros(3, device=device), mask.float())
