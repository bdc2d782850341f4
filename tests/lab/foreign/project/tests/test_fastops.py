"""The suite: `python -m pytest tests`, on a GPU."""

import pytest
import torch
import torch.nn.functional as F
from fastops import (
    FastRMSNorm,
    FusedSGD,
    MaxPool,
    argmax,
    attention,
    count,
    gelu,
    matmul,
    prefix_sum,
    quantize,
    rms_norm,
    rotate,
    seeded_dropout,
    softmax,
    transpose,
)

device = "cuda"

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    torch.cuda.manual_seed(0)
    yield
    torch.cuda.synchronize()


def test_argmax():
    x = torch.randn(100, device=device)
    assert argmax(x).item() == x.argmax().item()


@pytest.mark.parametrize("causal", [True, False])
def test_attention(causal):
    q, k, v = torch.randn(3, 2, 40, 16, device=device).unbind()
    ref = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(attention(q, k, v, causal), ref, atol=1e-2, rtol=1e-2)


def test_count():
    ids = torch.randint(0, 10, (100,), device=device)
    assert torch.equal(count(ids, 10).long(), torch.bincount(ids, minlength=10))


def test_dropout():
    x = torch.ones(200, device=device)
    y = seeded_dropout(x, p=0.25, seed=7)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert 20 < (y == 0).sum() < 80


def test_gelu():
    x = torch.randn(7, 31, device=device)
    torch.testing.assert_close(gelu(x), F.gelu(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_matmul(dtype):
    a = torch.randn((33, 40), device=device, dtype=dtype)
    b = torch.randn((40, 20), device=device, dtype=dtype)
    c, best = matmul(a, b)
    assert best.kwargs["BN"] <= 20
    torch.testing.assert_close(c, a @ b, atol=5e-2, rtol=1e-2)


def test_optimizer():
    layers = [torch.nn.Linear(9, 5, device=device) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    optimizers = [
        FusedSGD(layers[0].parameters(), lr=0.1),
        torch.optim.SGD(layers[1].parameters(), lr=0.1, momentum=0.9),
    ]
    for _ in range(2):
        for layer, optimizer in zip(layers, optimizers, strict=True):
            optimizer.zero_grad()
            layer(torch.ones(3, 9, device=device)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(layers[0].weight, layers[1].weight)
    torch.testing.assert_close(layers[0].bias, layers[1].bias)


def test_pool():
    x = torch.randn(3, 21, device=device)
    y, where = MaxPool(3, stride=2, pad=1)(x)
    ref, index = F.max_pool1d(x[None], 3, 2, 1, return_indices=True)
    assert torch.equal(y, ref[0]) and torch.equal(where.long(), index[0])


def test_prefix_sum():
    x = torch.randint(-9, 9, (150,), device=device, dtype=torch.int32)
    assert torch.equal(prefix_sum(x), x.cumsum(0).int())


def test_quantize():
    x = torch.randn(5, 30, device=device)
    q, scale = quantize(x)
    ref = (x / scale[:, None]).to(torch.float8_e4m3fn)
    assert torch.equal(q.float(), ref.float())


def test_rms_norm():
    norm = FastRMSNorm(20)
    x = torch.randn(6, 20, device=device, requires_grad=True)
    norm(x).pow(3).sum().backward()
    y = x.detach().clone().requires_grad_()
    w = norm.weight.detach().clone().requires_grad_()
    F.rms_norm(y, (20,), w, eps=1e-6).pow(3).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(norm.weight.grad, w.grad, atol=1e-4, rtol=1e-4)
    assert rms_norm(x.detach()[::2], w.detach()).shape == (3, 20)


def test_rope():
    x = torch.randn(6, 16, device=device)[:, ::2]
    y = rotate(x)
    freq = 10000.0 ** (-torch.arange(4, device=device) / 4)
    angle = torch.arange(6, device=device)[:, None] * freq
    a, b = x.chunk(2, dim=1)
    ref = torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=1)
    torch.testing.assert_close(y, ref, atol=1e-5, rtol=1e-5)


def test_softmax():
    x = torch.randn(10, 40, device=device)
    torch.testing.assert_close(softmax(x)[0], torch.softmax(x, dim=1))


def test_transpose():
    x = torch.randn(24, 40, device=device, dtype=torch.bfloat16)
    assert torch.equal(transpose(x), x.t())
