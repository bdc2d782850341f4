"""What the GAE kernels promise: the vector, the limits in λ, padding, and rows of many blocks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwin.kernels.rlhf.gae import MAX_BLOCK, gae, gae_eager

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
forms = pytest.mark.parametrize("form", [gae, gae_eager])
batches = st.tuples(st.integers(1, 3), st.integers(0, 150), st.integers(0, 10**6))


def draw(batch, time, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, batch, time, generator=generator).to(DEVICE)
    return rewards, values, (torch.rand(batch, time, generator=generator) < 0.6).to(DEVICE)


def ones(*shape):
    return torch.ones(shape, dtype=torch.bool, device=DEVICE)


@forms
@pytest.mark.parametrize(
    ("lam", "expected"),
    [(1.0, [0.8, 0.5, 0.3]), (0.0, [0.3, 0.2, 0.3]), (0.95, [0.76075, 0.485, 0.3])],
)
def test_the_published_vector(form, lam, expected, device):
    rewards = torch.tensor([[0.0, 0.0, 1.0]], device=device)
    values = torch.tensor([[0.2, 0.5, 0.7]], device=device)
    advantages, returns = form(rewards, values, ones(1, 3), lam=lam)
    expected = torch.tensor([expected], device=device)
    torch.testing.assert_close(advantages, expected, atol=2e-7, rtol=0)
    torch.testing.assert_close(returns, expected + values, atol=2e-7, rtol=0)


@given(batches, st.sampled_from([0.0, 0.9, 1.0]))
def test_lambda_0_is_delta(batch, gamma):
    rewards, values, mask = draw(*batch)
    advantages, _ = gae(rewards, values, mask, gamma=gamma, lam=0.0)
    for a, r, v, m in zip(advantages, rewards, values, mask, strict=True):
        following = torch.cat([v[m][1:], v.new_zeros(1)])[: m.sum()]
        torch.testing.assert_close(a[m], r[m] + gamma * following - v[m], atol=1e-5, rtol=0)


@given(batches)
def test_gamma_and_lambda_1_are_the_rewards_to_come_minus_the_value(batch):
    rewards, values, mask = draw(*batch)
    advantages, returns = gae(rewards, values, mask, lam=1.0)
    for a, ret, r, v, m in zip(advantages, returns, rewards, values, mask, strict=True):
        to_come = r[m].flip(0).cumsum(0).flip(0)
        torch.testing.assert_close(ret[m], to_come, atol=1e-4, rtol=0)
        torch.testing.assert_close(a[m], to_come - v[m], atol=1e-4, rtol=0)


@pytest.mark.parametrize("time", [5, MAX_BLOCK, MAX_BLOCK + 1, 2 * MAX_BLOCK + 7])
@pytest.mark.parametrize("padding", ["left", "right", "holes"])
def test_padding_changes_nothing_within_a_block_and_across(time, padding, device):
    """The same tokens with NaN beside or between them, so that blocks cut them elsewhere."""
    rewards, values, _ = draw(1, time, 0)
    gradients = draw(1, time, 1)[:2]
    place = torch.arange(time, device=device) * (2 if padding == "holes" else 1)
    place += 300 if padding == "left" else 0
    mask = torch.zeros(1, int(place[-1]) + 200, dtype=torch.bool, device=device)
    mask[0, place] = True

    def spread(x):
        return torch.full(mask.shape, torch.nan, device=device).masked_scatter(mask, x)

    def run(mask, *arrays):
        r, v, d_a, d_r = (a.clone().requires_grad_() for a in arrays)
        results = gae(r, v, mask, gamma=0.99)
        return (*results, *torch.autograd.grad(results, (r, v), (d_a, d_r)))

    alone = run(ones(1, time), rewards, values, *gradients)
    padded = run(mask, *map(spread, (rewards, values, *gradients)))
    for got, expected in zip(padded, alone, strict=True):
        torch.testing.assert_close(got[mask][None], expected, atol=2e-5, rtol=2e-5)
        assert not got[~mask].any()


def test_one_block_and_many_agree(device):
    """A short row, alone and at either end of a row of three blocks: the carry crosses a block."""
    rewards, values, _ = draw(1, 40, 3)
    short = gae(rewards, values, ones(1, 40))
    for at in (0, MAX_BLOCK - 20, 2 * MAX_BLOCK + 60):
        mask = torch.zeros(1, 2 * MAX_BLOCK + 100, dtype=torch.bool, device=device)
        mask[0, at : at + 40] = True
        wide = (
            torch.zeros(mask.shape, device=device).masked_scatter(mask, x)
            for x in (rewards, values)
        )
        for got, expected in zip(gae(*wide, mask), short, strict=True):
            torch.testing.assert_close(got[mask][None], expected, atol=1e-5, rtol=0)
    # A reward at the very end reaches the very start, through every carry; and back.
    time = 3 * MAX_BLOCK
    zero, late = torch.zeros(2, 1, time, device=device)
    late[0, -1] = 1
    late.requires_grad_()
    advantages, _ = gae(late, zero, ones(1, time), gamma=0.9999, lam=1.0)
    (d_late,) = torch.autograd.grad(advantages[0, 0], late)
    assert advantages[0, 0].item() == pytest.approx(0.9999 ** (time - 1), rel=1e-3)
    assert d_late[0, -1].item() == pytest.approx(0.9999 ** (time - 1), rel=1e-3)


@forms
@pytest.mark.parametrize("junk", [torch.nan, torch.inf])
def test_masked_junk_and_empty_rows(form, junk, device):
    mask = torch.tensor([[False, True, False, True, False], [False] * 5], device=device)
    rewards = torch.where(mask, 1.0, junk).requires_grad_()
    values = torch.where(mask, 2.0, junk).requires_grad_()
    results = form(rewards, values, mask, lam=0.5)
    ones_like = [torch.ones_like(r) for r in results]
    for array in (*results, *torch.autograd.grad(results, (rewards, values), ones_like)):
        assert not array[~mask].any() and array.isfinite().all()
    # δ = (1 + 2 − 2, 1 − 2)
    assert results[0][0].tolist() == [0, 0.5, 0, -1, 0]


@forms
def test_an_all_masked_batch_and_no_time_at_all(form, device):
    for shape in ((2, 3), (2, 0), (0, 3)):
        x = torch.full(shape, torch.nan, device=device, requires_grad=True)
        results = form(x, x * 1, torch.zeros(shape, dtype=torch.bool, device=device))
        (gradient,) = torch.autograd.grad(results, x, [torch.ones_like(r) for r in results])
        assert all(r.shape == shape and not r.any() for r in (*results, gradient.nan_to_num()))


def test_large_values_stay_finite(device):
    x = torch.full((2, 2 * MAX_BLOCK), 1e6, device=device)
    advantages, returns = gae(x, -x, ones(*x.shape), lam=1.0)
    assert advantages.isfinite().all() and returns.isfinite().all()
    assert returns[0, 0].item() == pytest.approx(2e6 * MAX_BLOCK, rel=1e-6)


def test_bad_arguments_are_named(device):
    x = torch.zeros(2, 3, device=device)
    with pytest.raises(ValueError, match=r"values: expected dtype torch\.float32"):
        gae(x, x.bfloat16(), ones(2, 3))
    with pytest.raises(ValueError, match=r"lam: expected a number in \[0, 1\]"):
        gae(x, x, ones(2, 3), lam=2.0)
