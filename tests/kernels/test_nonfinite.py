"""What a NaN must reach, what it must not, and numbers whose way there overflows."""

import numpy as np
import pytest
import torch

from gptwin.core.layers.layer_norm import layer_norm as core_layer_norm
from gptwin.core.model.decoder_block import ARGUMENTS, decoder_block_backward, decoder_block_forward
from gptwin.core.model.presets import GPTConfig
from gptwin.kernels.attention.qkv_attention import qkv_attention
from gptwin.kernels.attention.qkv_projection import qkv_projection
from gptwin.kernels.attention.sdpa import masked_attention
from gptwin.kernels.common import launch
from gptwin.kernels.common.finite import checking_finite
from gptwin.kernels.language.cross_entropy import cross_entropy
from gptwin.kernels.layers.embedding import embedding
from gptwin.kernels.layers.layer_norm import layer_norm
from gptwin.kernels.model.decoder_block import decoder_block
from gptwin.kernels.model.gpt import GPT
from gptwin.kernels.rlhf.ppo_loss import ppo_loss

NAN = float("nan")


@pytest.fixture(params=launch.BACKENDS)
def backend(request):
    """Each backend, as on a GPU: nobody looks for what is not finite."""
    with launch.backend(request.param), checking_finite(False):
        yield request.param


# --- what it must reach: a diverged model has no finite loss --------------------------------------


def test_cross_entropy_of_a_nan_is_nan(backend, device):
    hidden, weight = torch.randn(4, 8, device=device), torch.randn(8, 11, device=device)
    hidden[1, 3] = NAN
    targets = torch.tensor([1, 2, 3, 4], device=device)
    loss, log_prob, entropy = cross_entropy(hidden, weight, targets)
    assert loss.isnan()
    for per_token in (log_prob, entropy):
        assert per_token.isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("where", (("attn.c_attn", 0), ("mlp.c_proj", 0), ("attn.c_attn", -1)))
def test_one_nan_in_a_weight_makes_the_loss_nan(backend, where, device):
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, d_model=8, n_ctx=8, vocab_size=11)).to(device)
    name, column = where  # The first column of c_attn is of queries: PyTorch takes them for masked.
    with torch.no_grad():
        model.get_parameter(f"h.0.{name}.weight")[0, column] = NAN
        for time in (5, 1):
            tokens = torch.randint(11, (2, time), device=device)
            assert model.loss(tokens, tokens).isnan()


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
@pytest.mark.parametrize("which", (0, 1, 2))
def test_fused_attention_drops_no_nan(dtype, which):
    heads = [torch.randn(1, 1, 5, 4).to(dtype) for _ in range(3)]
    heads[which][0, 0, 2, 1] = NAN
    rows = masked_attention(*heads, causal=True)[0, 0].isnan().any(dim=-1)
    reached = (2,) if which == 0 else (2, 3, 4)
    assert rows[list(reached)].all()
    query = heads[0][:, :, 2:3].requires_grad_()  # the last one alone, in training
    row = masked_attention(query, *(x[:, :, :3] for x in heads[1:]), causal=True)
    assert row.isnan().any()


def test_ppo_loss_keeps_the_nan_of_any_argument(backend, device):
    names = ("log_prob", "old_log_prob", "advantages", "values", "old_values", "returns", "entropy")
    torch.manual_seed(0)
    given = {name: 0.1 * torch.randn(1, 4, device=device) for name in names}
    given["mask"] = torch.ones(1, 4, dtype=torch.bool, device=device)
    for name in names:
        there = given | {name: given[name].clone()}
        there[name][0, 2] = NAN
        results = ppo_loss(**there, entropy_coefficient=0.1)
        assert results.loss.isnan(), name
        touched = {"returns": ("explained_variance",), "old_log_prob": ("ratio_min", "ratio_max")}
        for statistic in touched.get(name, ()):
            assert getattr(results, statistic).isnan(), statistic


# --- what it must not reach: whatever a mask hides ------------------------------------------------


def block_arguments(time, device):
    torch.manual_seed(1)
    shapes = {
        "c_attn_weight": (8, 24), "c_attn_bias": (24,), "attn_proj_weight": (8, 8),
        "c_fc_weight": (8, 32), "c_fc_bias": (32,), "mlp_proj_weight": (32, 8),
    }  # fmt: skip
    parameters = [0.3 * torch.randn(shapes.get(name, (8,)), device=device) for name in ARGUMENTS]
    return torch.randn(1, time, 8, device=device), parameters


@pytest.mark.parametrize("norm", ("pre", "post"))
@pytest.mark.parametrize("mask", ("key_start", "cu_seqlens"))
def test_nan_in_padding_reaches_no_position_and_no_weight(backend, norm, mask, device):
    x, parameters = block_arguments(5, device)
    hidden = 0 if mask == "key_start" else 4
    real = [t for t in range(5) if t != hidden]
    options = {"n_head": 2, "norm": norm}
    options[mask] = torch.tensor([1] if mask == "key_start" else [0, 2, 4], device=device)

    def run(stream):
        leaves = [tensor.clone().requires_grad_() for tensor in (stream, *parameters)]
        y = decoder_block(*leaves, **options)
        gradients = torch.autograd.grad(y[:, real].square().sum(), leaves)
        return y[:, real].detach(), gradients

    y, gradients = run(x)
    x[0, hidden] = NAN
    x[0, hidden, 1] = float("inf")
    y_beside_nan, gradients_beside_nan = run(x)
    assert torch.equal(y_beside_nan, y)
    for gradient, beside_nan in zip(gradients, gradients_beside_nan, strict=True):
        torch.testing.assert_close(beside_nan, gradient, rtol=1e-4, atol=1e-5)


def test_nan_in_padding_reaches_no_weight_of_the_reference():
    x, parameters = block_arguments(5, "cpu")
    x[0, 0] = NAN
    arrays = [tensor.double().numpy() for tensor in (x, *parameters)]
    y, saved = decoder_block_forward(*arrays, n_head=2, key_start=np.array([1]))
    d_y = np.ones_like(y)
    d_y[:, 0] = 0
    assert np.isfinite(y).all()
    assert all(np.isfinite(gradient).all() for gradient in decoder_block_backward(saved, d_y))


@pytest.mark.parametrize("path", ("packed", "single"))
def test_nan_in_padding_reaches_no_weight_of_qkv_attention(path, device):
    with launch.backend("triton"), checking_finite(False):
        x, parameters = block_arguments(5, device)
        x[0, 0] = NAN
        leaves = [tensor.requires_grad_() for tensor in (x, *parameters[2:4], *parameters[:2])]
        result = qkv_attention(
            *leaves, n_head=2, key_start=torch.tensor([1], device=device), force_path=path
        )
        result.square().sum().backward()
    for leaf in leaves:
        assert leaf.grad.isfinite().all()


# --- numbers whose way there overflows ------------------------------------------------------------


@pytest.mark.parametrize("scale", (1e19, 1e30))
def test_rows_whose_squares_overflow_are_normalised(backend, scale, device):
    torch.manual_seed(0)
    for d_model in (8, 8200):
        x = scale * torch.randn(2, d_model, device=device)
        weight, bias = torch.ones(d_model, device=device), torch.zeros(d_model, device=device)
        expected = torch.nn.functional.layer_norm(x.double(), (d_model,)).float()
        torch.testing.assert_close(layer_norm(x, weight, bias), expected, rtol=1e-5, atol=1e-5)
        in_numpy = core_layer_norm(x.cpu().numpy(), weight.cpu().numpy(), bias.cpu().numpy())
        np.testing.assert_allclose(in_numpy, expected.cpu(), rtol=1e-5, atol=1e-5)
    x = scale * torch.randn(1, 3, 8, device=device)
    norm = torch.ones(8, device=device), torch.zeros(8, device=device)
    packed = qkv_projection(x, torch.eye(8, 24, device=device), None, *norm, n_head=1)
    expected = torch.nn.functional.layer_norm(x.double(), (8,)).float()
    torch.testing.assert_close(packed[0], expected, rtol=1e-5, atol=1e-5)


def test_an_id_out_of_range_makes_a_compiled_loss_nan(device):
    """torch.compile lets nobody look at ids: the kernel writes NaN, which the loss must keep."""
    tables = torch.randn(5, 8, device=device), torch.randn(4, 8, device=device)

    @torch.compile(backend="aot_eager")
    def loss(tokens, targets):
        hidden = embedding(tokens, *tables).flatten(0, 1)
        return cross_entropy(hidden, tables[0].T, targets.flatten())[0]

    tokens = torch.tensor([[1, 2, 3, 4]], device=device)
    with launch.backend("triton"):
        assert loss(tokens, tokens).isfinite()
        assert loss(tokens + 1, tokens).isnan()
        assert loss(tokens, tokens + 1).isnan()
