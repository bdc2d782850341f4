"""What the KL kernels promise, through Triton and in eager PyTorch."""

import pytest
import torch

from gptwin.core.rlhf.kl import ESTIMATORS
from gptwin.kernels.common import launch
from gptwin.kernels.rlhf.kl import kl, kl_eager, sequence_kl

forms = pytest.mark.parametrize("form", [kl, kl_eager])
estimators = pytest.mark.parametrize("estimator", ESTIMATORS)


@forms
@pytest.mark.parametrize(
    ("estimator", "mean", "variance"),
    [("k1", 0.0371254, 0.077671), ("k2", 0.0395248, 0.001270), ("k3", 0.0371254, 0.000861)],
)
def test_moments_under_the_policy(form, estimator, mean, variance, device):
    policy = torch.tensor([0.4, 0.3, 0.2, 0.1], device=device)
    reference = torch.tensor([0.5, 0.25, 0.125, 0.125], device=device)
    every = torch.ones(4, dtype=torch.bool, device=device)
    estimate = form(policy.log(), reference.log(), every, estimator=estimator)
    first, second = (policy * estimate).sum().item(), (policy * estimate**2).sum().item()
    assert first == pytest.approx(mean, abs=2e-7)
    assert second - first**2 == pytest.approx(variance, abs=6e-7)


@pytest.mark.parametrize("near_half", [0.4999, 0.5001])
def test_k3_keeps_its_digits_where_the_policies_are_close(near_half, device):
    sizes = [1e-8, 1e-6, 1e-4, 1e-2, 0.3, near_half]
    delta = torch.tensor([s * d for d in sizes for s in (1, -1)], device=device)
    delta.requires_grad_()
    zero, every = torch.zeros_like(delta), torch.ones_like(delta, dtype=torch.bool)
    k3 = kl(delta, zero, every, estimator="k3")
    (slope,) = torch.autograd.grad(k3.sum(), delta)
    exact = delta.detach().double()
    # In float64 the difference below 0.01 would lose digits too: there, the series.
    small = exact.abs() < 0.01
    series = exact**2 / 2 - exact**3 / 6 + exact**4 / 24 - exact**5 / 120
    expected = torch.where(small, series, torch.expm1(-exact) + exact)
    torch.testing.assert_close(k3.double(), expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(slope.double(), -torch.expm1(-exact), rtol=1e-6, atol=0)
    assert (k3 > 0).all()


@forms
@estimators
@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -torch.inf])
def test_masked_positions_give_zero_whatever_they_hold(form, estimator, junk, device):
    mask = torch.tensor([[True, False, True], [False] * 3], device=device)
    log_prob = torch.where(mask, -1.0, junk).requires_grad_()
    reference = torch.where(mask, -2.0, junk).requires_grad_()
    result = form(log_prob, reference, mask, estimator=estimator)
    gradients = torch.autograd.grad(result, (log_prob, reference), torch.full_like(result, 3.0))
    for array in (result, *gradients):
        assert not array[~mask].any() and array[mask].isfinite().all() and array[mask].all()


@estimators
def test_an_all_masked_batch_is_zero_with_zero_gradients(estimator, device):
    x = torch.full((2, 3), torch.nan, device=device, requires_grad=True)
    mask = torch.zeros(2, 3, dtype=torch.bool, device=device)
    total = sequence_kl(x, x.detach(), mask, estimator=estimator)
    total.backward()
    assert total == 0 and not x.grad.any()


def test_sequence_kl_is_the_sum_of_what_the_reward_sees(device):
    mask = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 0]], dtype=torch.bool, device=device)
    log_prob = torch.tensor([[0, -1, -2, -0.5], [0, 0, -3, 0]], device=device)
    reference = torch.tensor([[0, -1.5, -1, -0.5], [0, 0, -1, 0]], device=device)
    assert kl(log_prob, reference, mask).sum(1).tolist() == [-0.5, -2]
    assert sequence_kl(log_prob, reference, mask) == -1.25
    assert sequence_kl(log_prob[:0], reference[:0], mask[:0]) == 0
    with launch.backend("eager"):
        assert sequence_kl(log_prob, reference, mask) == -1.25


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_by_name(dtype, device):
    x = torch.zeros(2, 3, device=device)
    mask = torch.ones(2, 3, dtype=torch.bool, device=device)
    with pytest.raises(ValueError, match=r"reference_log_prob: expected dtype torch\.float32"):
        kl(x, x.to(dtype), mask)
    with pytest.raises(ValueError, match="estimator: expected"):
        kl(x, x, mask, estimator="k4")
