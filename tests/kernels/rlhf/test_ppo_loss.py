"""What the PPO-loss kernels promise beyond agreeing with the reference; eager PyTorch too."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.rlhf.ppo_loss import ppo_loss as core_ppo_loss
from gptwin.kernels.common.launch import backend, launch, recording
from gptwin.kernels.rlhf.ppo_loss import BLOCK, FLOAT_ARGUMENTS, ppo_loss
from gptwin.kernels.rlhf.ppo_statistics import (
    COUNT,
    N_ROWS,
    POLICY_BINDS,
    VALUE_BINDS,
    Sums,
    ppo_loss_statistics_kernel,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DIFFERENTIABLE = ("log_prob", "values", "entropy")
both = pytest.mark.parametrize("how", ("triton", "eager"))


def draw(shape, seed, share=0.6):
    generator = torch.Generator().manual_seed(seed)
    arguments = {n: torch.randn(shape, generator=generator).to(DEVICE) for n in FLOAT_ARGUMENTS}
    return arguments | {"mask": (torch.rand(shape, generator=generator) < share).to(DEVICE)}


def run(how="triton", **arguments):
    """Return the results and the gradients to the arguments that get one."""
    leaves = {n: arguments[n].detach().clone().requires_grad_() for n in DIFFERENTIABLE}
    with backend(how):
        results = ppo_loss(**(arguments | leaves))
        return results, torch.autograd.grad(results.loss, tuple(leaves.values()))


def clip_vector():
    arguments = {n: torch.zeros(1, 3, device=DEVICE) for n in FLOAT_ARGUMENTS}
    arguments["log_prob"] = torch.tensor([[0, 0.5, 0.05]], device=DEVICE)
    arguments["advantages"] = torch.ones(1, 3, device=DEVICE)
    return arguments | {"mask": torch.ones(1, 3, dtype=torch.bool, device=DEVICE)}


@both
def test_published_clip_vector(how):
    results, (d_log_prob, _, _) = run(how, **clip_vector())
    expected = torch.tensor([[-1 / 3, 0, -np.exp(0.05) / 3]], dtype=torch.float32, device=DEVICE)
    torch.testing.assert_close(d_log_prob, expected, atol=1e-7, rtol=0)
    assert d_log_prob[0, 1] == 0
    assert results.policy_clip_fraction.item() == pytest.approx(1 / 3)


@both
@given(st.integers(0, 1000))
def test_on_the_first_minibatch_the_ratio_is_exactly_1(how, seed):
    arguments = draw((3, 50), seed)
    arguments["old_log_prob"] = arguments["log_prob"].clone()
    results, (d_log_prob, _, _) = run(how, **arguments)
    assert results.ratio_min == results.ratio_mean == results.ratio_max == 1
    assert results.approx_kl == 0 == results.policy_clip_fraction
    mask = arguments["mask"]
    expected = torch.where(mask, -arguments["advantages"] / mask.sum(), 0.0)
    torch.testing.assert_close(d_log_prob, expected, atol=0, rtol=1e-6)


@both
def test_gradient_is_zero_exactly_where_the_clip_binds(how):
    arguments = draw((2, 700), 0)
    results, (d_log_prob, d_values, _) = run(how, **arguments)
    ratio = (arguments["log_prob"] - arguments["old_log_prob"]).exp()
    advantage, mask = arguments["advantages"], arguments["mask"]
    binds = mask & torch.where(advantage > 0, ratio > 1.2, ratio < 0.8)
    assert torch.equal(d_log_prob == 0, binds | ~mask)
    assert results.policy_clip_fraction.item() == pytest.approx((binds.sum() / mask.sum()).item())
    assert results.value_clip_fraction.item() > 0
    assert (d_values[mask] == 0).float().mean().item() == pytest.approx(
        results.value_clip_fraction.item()
    )


@both
def test_at_a_tie_the_unclipped_branch_counts(how):
    arguments = clip_vector()
    arguments["log_prob"] = torch.zeros(1, 3, device=DEVICE)  # clip = 0 is refused: tie by A = 0
    arguments["values"] = torch.full((1, 3), 0.25, device=DEVICE)
    arguments["returns"] = torch.ones(1, 3, device=DEVICE)
    leaves = {n: arguments[n].clone().requires_grad_() for n in DIFFERENTIABLE}
    with backend(how):
        loss = ppo_loss(**(arguments | leaves), value_clip=0.25, value_coefficient=1.0).loss
        d_values = torch.autograd.grad(loss, leaves["values"])[0]
    torch.testing.assert_close(d_values, torch.full((1, 3), -0.25, device=DEVICE))


@both
@pytest.mark.parametrize("shape", [(2, 5), (0, 5), (3, 0), (2, BLOCK)], ids=str)
def test_nothing_unmasked_gives_zeros(how, shape):
    arguments = {n: torch.full(shape, torch.nan, device=DEVICE) for n in FLOAT_ARGUMENTS}
    arguments["mask"] = torch.zeros(shape, dtype=torch.bool, device=DEVICE)
    results, gradients = run(how, **arguments)
    assert [x.item() for x in results] == [0.0] * 12
    assert not any(g.any() for g in gradients)  # NaN is truthy


@both
@given(st.integers(0, 1000), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_masked_positions_never_leak(how, seed, poison):
    arguments = draw((3, 40), seed, share=0.3)
    mask = arguments["mask"]
    poisoned = {n: x if n == "mask" else x.masked_fill(~mask, poison) for n, x in arguments.items()}
    before, after = run(how, **arguments), run(how, **poisoned)
    for a, b in zip((*before[0], *before[1]), (*after[0], *after[1]), strict=True):
        assert torch.equal(a, b)
    assert not any(g[~mask].any() for g in after[1])


def test_left_and_right_padding_agree():
    arguments = draw((4, 300), 5)
    left, right = (
        run(**{n: torch.nn.functional.pad(x, pad) for n, x in arguments.items()})
        for pad in ((50, 0), (0, 50))
    )
    for a, b in zip(left[0], right[0], strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)
    for a, b in zip(left[1], right[1], strict=True):
        assert torch.equal(a[:, 50:], b[:, :-50])


@both
def test_huge_advantages_and_ratios_stay_finite(how):
    arguments = clip_vector()
    arguments["log_prob"] = torch.tensor([[0.1, 25.0, -1e4]], device=DEVICE)
    arguments["advantages"] = torch.full((1, 3), -1e6, device=DEVICE)
    results, gradients = run(how, **arguments)
    assert all(x.isfinite() for x in results)
    assert all(g.isfinite().all() for g in gradients)
    assert torch.equal(gradients[0] == 0, torch.tensor([[False, True, True]], device=DEVICE))


def test_explained_variance_survives_a_large_mean():
    """Over several blocks, and 0 where all returns are equal, whatever rounding says."""
    arguments = draw((3, BLOCK), 1, share=1.0)
    arguments["returns"] = (arguments["returns"] + 1000).contiguous()
    arguments["values"] = arguments["returns"] + 0.1 * arguments["values"]
    expected = core_ppo_loss(**{n: x.cpu().numpy().astype(float if n != "mask" else bool)
                                for n, x in arguments.items()}).explained_variance  # fmt: skip
    assert ppo_loss(**arguments).explained_variance.item() == pytest.approx(expected, abs=1e-6)
    arguments["returns"] = torch.full((3, BLOCK), 0.1, device=DEVICE)
    assert ppo_loss(**arguments).explained_variance == 0


@both
def test_statistics_carry_no_gradient_and_the_loss_does(how):
    arguments = draw((2, 5), 0)
    arguments["log_prob"].requires_grad_()
    arguments["old_log_prob"].requires_grad_()
    with backend(how):
        results = ppo_loss(**arguments)
        results.loss.backward()
    assert [x.requires_grad for x in results] == [True] + [False] * 11
    assert arguments["old_log_prob"].grad is None or not arguments["old_log_prob"].grad.any()


def test_the_loss_can_be_changed_in_place(device):
    arguments = draw((2, 5), 0)
    arguments["log_prob"].requires_grad_()
    loss = ppo_loss(**arguments).loss
    loss /= 4
    loss.backward()
    assert arguments["log_prob"].grad.any()


def test_more_blocks_than_the_statistics_read_at_a_time(device):
    """In training that takes a million tokens; a mutant that forgot all but the last survived."""
    partial = torch.rand(N_ROWS, 11, generator=torch.Generator().manual_seed(0)).to(device)
    for counts in (COUNT, POLICY_BINDS, VALUE_BINDS):
        partial[counts.value] = torch.arange(1, 12)
    results = []
    for block in (4, 16):
        loss, statistics = torch.empty((), device=device), torch.empty(11, device=device)
        sums = Sums(partial, 11)
        launch(ppo_loss_statistics_kernel, (1,), sums, loss, statistics, 0.1, 0.01, BLOCK=block)
        results.append(torch.cat([loss[None], statistics]))
    torch.testing.assert_close(*results)


def test_more_tokens_than_float32_counts_are_counted(device):
    """135 million, in ragged blocks: added up in float32 they came out 16 too many."""
    counts = torch.randint(900, 1025, (140_000,), generator=torch.Generator().manual_seed(1))
    partial = torch.zeros(N_ROWS, len(counts), device=device)
    partial[COUNT.value] = counts
    loss, statistics = torch.empty((), device=device), torch.empty(11, device=device)
    sums = Sums(partial, len(counts))
    launch(ppo_loss_statistics_kernel, (1,), sums, loss, statistics, 0.1, 0.01, BLOCK=16384)
    assert statistics[10].item() == counts.sum().float().item()


def test_two_launches_forward_and_one_backward():
    with recording() as log:
        run(**draw((3, BLOCK), 0))
    assert [entry.kernel for entry in log] == [
        "ppo_loss_kernel", "ppo_loss_statistics_kernel", "ppo_loss_scale_kernel",
    ]  # fmt: skip


def test_half_precision_is_refused_by_name():
    arguments = {n: x.half() if n != "mask" else x for n, x in draw((2, 3), 0).items()}
    with pytest.raises(ValueError, match="log_prob: expected dtype float32, got dtype"):
        ppo_loss(**arguments)


def test_mixed_dtypes_are_refused_by_name():
    arguments = draw((2, 3), 0)
    arguments["returns"] = arguments["returns"].half()
    with pytest.raises(ValueError, match=r"returns: expected dtype torch\.float32, like log_prob"):
        ppo_loss(**arguments)
