"""Sums and products of half precision in eager PyTorch: they are float32, as in the kernels."""

import pytest
import torch

from gptwin.kernels.attention.attention import attention
from gptwin.kernels.attention.decode_attention import decode_attention
from gptwin.kernels.common import launch
from gptwin.kernels.cpu.loss import mean_cross_entropy
from gptwin.kernels.cpu.tied_embedding import tied_embedding
from gptwin.kernels.language.cross_entropy import cross_entropy, token_log_probs
from gptwin.kernels.layers.embedding import embedding
from gptwin.kernels.layers.layer_norm import layer_norm
from gptwin.kernels.layers.softmax import softmax
from gptwin.kernels.rlhf.gae import gae
from gptwin.kernels.rlhf.linear_ppo_loss import linear_ppo_loss
from gptwin.kernels.rlhf.whiten import whiten

half = pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
# bfloat16 counts to 256, float16 to 2048.
N = 4096


@pytest.fixture(params=launch.BACKENDS)
def backend(request):
    with launch.backend(request.param):
        yield request.param


def leaf(*shape, dtype, device="cpu", value=0.0):
    return torch.full(shape, value, dtype=dtype, device=device, requires_grad=True)


# --- sums ----------------------------------------------------------------------------------------


@half
def test_embedding_sums_its_gradients(dtype):
    def gradients(shape, positions=None):
        tokens = torch.zeros(shape, dtype=torch.int64)
        tables = [leaf(n, 2, dtype=dtype) for n in (3, shape[1])]
        with launch.backend("eager"):
            embedding(tokens, *tables, positions=tokens if positions else None).sum().backward()
        return [table.grad[0, 0].item() for table in tables]

    assert gradients((1, N)) == [N, 1]
    assert gradients((N, 1)) == [N, N]
    assert gradients((1, N), positions="all 0") == [N, N]


@half
def test_tied_embedding_sums_its_gradients(dtype):
    tables = leaf(2**17, 4, dtype=dtype), leaf(N, 4, dtype=dtype)  # larger than what is left plain
    with launch.backend("eager"):
        x, head = tied_embedding(torch.zeros(1, N, dtype=torch.int64), *tables)
        (x.sum() + head[1].sum()).backward()
    assert tables[0].grad[:3, 0].tolist() == [N, 1, 0]


@half
def test_layer_norm_sums_its_weights_gradients(backend, dtype, device):
    x = torch.tensor([1.0, -1.0], device=device).repeat(N, 2).to(dtype)
    weight = leaf(4, dtype=dtype, device=device, value=1.0)
    bias = leaf(4, dtype=dtype, device=device)
    layer_norm(x, weight, bias)[:, 0].sum().backward()
    assert weight.grad[0] == N
    assert bias.grad[0] == N


@half
def test_rollouts_sum_over_their_tokens(dtype):
    """On Triton they refuse half precision."""
    one, mask = torch.ones(1, N, dtype=dtype), torch.ones(1, N, dtype=torch.bool)
    with launch.backend("eager"):
        advantages, _ = gae(one, one * 0, mask, gamma=1.0, lam=1.0)
        assert advantages[0, 0] == N
        spread = whiten(torch.arange(N)[None].to(dtype), mask)
        assert abs(spread.mean()) < 1e-4
        assert abs(spread.std() - 1) < 1e-3


# --- products and scales --------------------------------------------------------------------------


def test_scores_beyond_float16_are_weighed(backend, device):
    same = torch.full((1, 1, 3, 64), 300.0, dtype=torch.float16, device=device)
    value = torch.ones_like(same)
    lengths = torch.tensor([3], device=device)
    assert (attention(same, same, value)[0] == 1).all()
    assert (decode_attention(same[:, :, :1], same, value, lengths)[0] == 1).all()


def test_softmax_scales_differences(backend, device):
    large = torch.tensor([[60000.0, 59999.0, 50000.0]], device=device).half()
    assert softmax(large, scale=2.0).tolist() == [[0.5, 0.5, 0.0]]
    largest = torch.tensor([[3e38, 1e38, 0.0]], device=device, requires_grad=True)
    p = softmax(largest, scale=2.0)
    assert p.tolist() == [[1.0, 0.0, 0.0]]
    p[0, 0].backward()
    assert largest.grad.tolist() == [[0.0, 0.0, 0.0]]


def test_logits_beyond_float16_are_scored(backend, device):
    """The target's logit is 95,880, the other one 96,000."""
    hidden = torch.full((1, 4), 240.0, dtype=torch.float16, device=device)
    weight = torch.tensor([[100.0, 99.875, 0.0]], device=device).half().repeat(4, 1)
    target = torch.tensor([1], device=device)
    near_120 = pytest.approx(120, abs=0.02)  # a rounding of the logits in float32
    assert cross_entropy(hidden, weight, target)[0].item() == near_120
    assert -token_log_probs(hidden, weight, target).item() == near_120
    ones = torch.ones(1, device=device)
    rest = {"advantages": ones, "values": ones, "old_values": ones, "returns": ones}
    results = linear_ppo_loss(
        hidden, weight, target, old_log_prob=-120 * ones, **rest, mask=ones.bool()
    )
    assert results.ratio_mean.item() == pytest.approx(1, abs=0.02)


def test_the_mean_loss_of_logits_beyond_float16():
    hidden = torch.full((1, 4), 240.0, dtype=torch.float16, requires_grad=True)
    weight = torch.tensor([[100.0, 99.875, 0.0]]).half().repeat(4, 1)
    loss = mean_cross_entropy(hidden, weight, torch.tensor([1]))
    assert loss == 120
    loss.backward()
    assert hidden.grad.tolist() == [[0.125] * 4]
