"""What the reward loss's kernels promise beyond agreeing with the reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwin.core.rlhf import reward_loss as core
from gptwin.kernels.common import launch
from gptwin.kernels.rlhf.reward_loss import TILE, reward_loss

both_backends = pytest.mark.parametrize("backend", ["triton", "eager"])


def draw(n_prompts, n_completions, seed, device):
    """Scores, and rankings with ties and absent completions."""
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.normal(0, 2, (n_prompts, n_completions)), dtype=torch.float32)
    ranks = torch.tensor(rng.integers(-1, max(n_completions, 1), (n_prompts, n_completions)))
    return scores.to(device), ranks.to(device)


def run(scores, ranks, **options):
    """Results and the gradient of the scores."""
    leaf = scores.detach().requires_grad_()
    results = reward_loss(leaf, ranks, **options)
    return results, torch.autograd.grad(results.loss, leaf)[0]


@both_backends
def test_known_values(backend, device):
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]], device=device)
    with launch.backend(backend):
        results, gradient = run(scores, torch.arange(4, device=device)[None])
    assert results.loss.item() == pytest.approx(0.2070381, abs=1e-7)
    expected = torch.tensor([[-0.072595, -0.019867, 0.019867, 0.072595]], device=device)
    torch.testing.assert_close(gradient, expected, atol=6e-7, rtol=0)
    assert (results.accuracy, results.n_pairs) == (1, 6)
    assert (
        results.bin_pairs.tolist() == results.bin_right.tolist() == [0, 0, 0, 0, 3, 0, 0, 2, 0, 1]
    )


@both_backends
@pytest.mark.parametrize("shape", [(7, 2), (9, 6), (70, 17)], ids=str)
@pytest.mark.parametrize("options", [{"margin": 0.7}, {"centring": 0.3}], ids=str)
def test_margin_and_centring_agree_with_the_reference(backend, shape, options, device):
    """70 prompts of 17 take a program each: more than the reduction reads at a time."""
    scores, ranks = draw(*shape, 8, device)
    with launch.backend(backend):
        results, d_scores = run(scores, ranks, **options)
    expected, saved = core.reward_loss_forward(
        scores.cpu().double().numpy(), ranks.cpu().numpy(), **options
    )
    for actual, truth in zip(results, expected, strict=True):
        np.testing.assert_allclose(actual.detach().cpu().numpy(), truth, rtol=1e-5, atol=1e-6)
    d_truth = core.reward_loss_backward(saved, 1.0)
    np.testing.assert_allclose(d_scores.cpu().numpy(), d_truth, rtol=1e-4, atol=1e-6)


@both_backends
@pytest.mark.parametrize("shape", [(7, 2), (3, 9), (1, 64)])
def test_a_zero_reward_head_has_loss_ln_2(backend, shape, device):
    ranks = torch.arange(shape[1], device=device).expand(shape)
    with launch.backend(backend):
        results, _ = run(torch.zeros(shape, device=device), ranks)
    assert results.loss.item() == pytest.approx(math.log(2), rel=3e-7)
    assert results.accuracy == 0 and results.bin_pairs[0] == results.n_pairs


@both_backends
def test_statistics_carry_no_gradient(backend, device):
    scores, ranks = draw(2, 4, 0, device)
    with launch.backend(backend):
        results = reward_loss(scores.requires_grad_(), ranks)
    assert [result.requires_grad for result in results] == [True] + [False] * 5


@both_backends
@pytest.mark.parametrize("hidden", [math.nan, math.inf, -math.inf])
def test_absent_completions_never_leak(backend, hidden, device):
    """Bit for bit."""
    scores, ranks = draw(5, 6, 1, device)
    spoiled = torch.where(ranks < 0, hidden, scores)
    assert not torch.equal(spoiled, scores)
    with launch.backend(backend):
        (before, d_before), (after, d_after) = (
            run(s, ranks, margin=0.3, centring=0.1) for s in (scores, spoiled)
        )
    assert torch.equal(d_before, d_after) and not d_after[ranks < 0].any()
    assert all(map(torch.equal, before, after))


@both_backends
@pytest.mark.parametrize("rank", [[3, 3, 3], [-1, -1, -1], [-1, 0, -1]])
def test_without_a_pair_all_is_zero(backend, rank, device):
    scores = torch.randn(50, 3, device=device)
    with launch.backend(backend):
        results, gradient = run(scores, torch.tensor(rank, device=device).expand(50, 3))
    assert not any(result.any() for result in (*results, gradient))


@both_backends
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0), (3, 1)])
def test_empty_batches_are_zero(backend, shape, device):
    ranks = torch.zeros(shape, dtype=torch.int64, device=device)
    with launch.backend(backend):
        results, gradient = run(torch.zeros(shape, device=device), ranks)
    assert gradient.shape == shape and not any(result.any() for result in results)


@both_backends
def test_huge_differences_stay_finite(backend, device):
    scores = torch.tensor([[1e6, -1e6, 0.0]], device=device)
    with launch.backend(backend):
        results, gradient = run(scores, torch.tensor([[2, 1, 0]], device=device))
    assert results.loss.item() == pytest.approx(1e6)
    torch.testing.assert_close(gradient * 3, torch.tensor([[2.0, -1, -1]], device=device))


@pytest.mark.parametrize("gap", [0.0, 1.0, 3.0, 8.0, 14.0, 17.0, 30.0, 80.0])
def test_well_ranked_pairs_keep_their_digits(gap, device):
    """log(1 + e) of a small e: 1 + e would round e away."""
    results, gradient = run(
        torch.tensor([[gap, 0.0]], device=device), torch.tensor([[0, 1]], device=device)
    )
    assert results.loss.item() == pytest.approx(math.log1p(math.exp(-gap)), rel=1e-5)
    assert -gradient[0, 0].item() == pytest.approx(1 / (1 + math.exp(gap)), rel=1e-5)


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(2, 12), st.integers(0, 1000), st.sampled_from([0.0, 0.1]))
def test_order_of_prompts_and_completions_does_not_matter(n_prompts, n, seed, centring):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scores, ranks = draw(n_prompts, n, seed, device)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randperm(k, generator=generator).to(device) for k in (n_prompts, n))
    results, gradient = run(scores, ranks, centring=centring)
    shuffled, d_shuffled = run(scores[rows][:, columns], ranks[rows][:, columns], centring=centring)
    for expected, actual in zip(results, shuffled, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(d_shuffled, gradient[rows][:, columns], atol=1e-6, rtol=1e-5)


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(2, 12), st.integers(0, 1000))
def test_a_shift_changes_nothing_and_gradients_sum_to_zero(n_prompts, n, seed):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scores, ranks = draw(n_prompts, n, seed, device)
    scores = (scores * 256).round() / 256  # so that adding 16 is exact
    results, gradient = run(scores, ranks, margin=0.5)
    shifted, d_shifted = run(scores + 16, ranks, margin=0.5)
    assert torch.equal(results.loss, shifted.loss) and torch.equal(gradient, d_shifted)
    torch.testing.assert_close(
        gradient.sum(1), torch.zeros(n_prompts, device=device), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("n_completions", [2, 5, 33])
def test_unequal_numbers_of_completions_equal_prompts_one_by_one(n_completions, device):
    """Over several programs, and in tiles of other sizes."""
    n_prompts = 3 * max(1, TILE // 64**2) + 4
    scores, ranks = draw(n_prompts, n_completions, 2, device)
    alone = [
        reward_loss(s[rank >= 0][None], rank[rank >= 0][None])
        for s, rank in zip(scores, ranks, strict=True)
    ]
    counting = torch.stack([results.loss for results in alone if results.n_pairs])
    together = reward_loss(scores, ranks)
    torch.testing.assert_close(together.loss, counting.mean(), atol=1e-6, rtol=1e-5)
    assert torch.equal(together.bin_pairs, sum(results.bin_pairs for results in alone))
    assert torch.equal(together.bin_right, sum(results.bin_right for results in alone))


@both_backends
@pytest.mark.parametrize("edge", core.BIN_EDGES)
def test_bins_agree_at_their_edges(backend, edge, device):
    """One float32 below each edge, on it, and one above: the bin is decided in float32."""
    at = np.float32(edge)
    gaps = [np.nextafter(at, np.float32(0)), at, np.nextafter(at, np.float32(100))]
    scores = torch.tensor([[0.0, gap] for gap in gaps], device=device)
    ranks = torch.tensor([[1, 0], [1, 0], [0, 1]], device=device)
    with launch.backend(backend):
        results = reward_loss(scores, ranks)
    expected = core.reward_loss(scores.cpu().numpy(), ranks.cpu().numpy())
    assert results.bin_pairs.tolist() == expected.bin_pairs.tolist()
    assert results.bin_right.tolist() == expected.bin_right.tolist()
    k = core.BIN_EDGES.index(edge)
    assert results.bin_pairs[k : k + 2].tolist() == [1, 2]


def test_any_strides_and_either_integer(device):
    scores, ranks = draw(6, 5, 4, device)
    expected, d_expected = run(scores, ranks, centring=0.1)
    strided = scores.repeat_interleave(2, 1)[:, ::2], ranks.to(torch.int32).T.contiguous().T
    assert not any(tensor.is_contiguous() for tensor in strided)
    actual, d_actual = run(*strided, centring=0.1)
    assert all(map(torch.equal, actual, expected)) and torch.equal(d_actual, d_expected)


def test_the_cotangent_scales_the_gradient(device):
    scores, ranks = draw(6, 5, 4, device)
    leaf = scores.requires_grad_()
    loss = reward_loss(leaf, ranks).loss
    (once,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss * -3.0, leaf)
    torch.testing.assert_close(scaled, once * -3.0)


def test_three_launches_whatever_the_number_of_prompts(device):
    scores, ranks = draw(100, 9, 0, device)
    with launch.recording() as log:
        run(scores, ranks)
    assert [entry.kernel for entry in log] == [
        "reward_loss_forward_kernel",
        "reward_loss_totals_kernel",
        "reward_loss_backward_kernel",
    ]


def test_half_precision_scores_are_refused(device):
    scores, ranks = draw(2, 3, 0, device)
    with pytest.raises(ValueError, match=r"scores: expected dtype float32, got dtype torch\.bf"):
        reward_loss(scores.bfloat16(), ranks)
    with pytest.raises(ValueError, match="margin: expected a finite number, at least 0"):
        reward_loss(scores, ranks, margin=-0.5)
    with pytest.raises(ValueError, match=r"ranks: expected integers, got dtype torch"):
        reward_loss(scores, scores)
