"""What the linear kernel promises beyond agreeing with the reference."""

import math

import pytest
import torch

from gptwin.kernels.common.launch import backend, recording
from gptwin.kernels.layers.linear import linear


def draw(*shape, seed=0, dtype=torch.float32, device="cpu"):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.to(device, dtype)


def test_tf32_rounds_and_ieee_does_not(device):
    """1 + 2⁻¹² is exact in float32 and becomes 1 in tf32."""
    x = torch.full((16, 16), 1 + 2.0**-12, device=device)
    weight = torch.eye(16, device=device)
    assert torch.equal(linear(x, weight), x)
    assert torch.equal(linear(x, weight, precision="tf32"), torch.ones_like(x))


@pytest.mark.parametrize("name", ["triton", "eager"])
def test_tf32_is_tf32_under_autocast(name, device):
    """Backward ran without autocast, on what autocast had made bfloat16: an error."""
    x, weight = (draw(8, 8, seed=i, device=device).requires_grad_() for i in range(2))
    found = []
    for enabled in (False, True):
        with backend(name):
            with torch.autocast(device, torch.bfloat16, enabled=enabled):
                y = linear(x, weight, precision="tf32")
            found.append((y, *torch.autograd.grad(y.square().sum(), (x, weight))))
    for plain, under_autocast in zip(*found, strict=True):
        assert torch.equal(plain, under_autocast)


def test_ieee_is_the_default_and_accumulates_in_float32(device):
    """4096 products of 1 and one of 2⁻¹²: half precision accumulation would lose the last."""
    x = torch.ones(1, 2049, device=device, dtype=torch.float16)
    x[0, -1] = 2.0**-1
    weight = torch.ones(2049, 1, device=device, dtype=torch.float16)
    y = linear(x - 0, weight - 0)
    assert y.item() == pytest.approx(2048.5, abs=1)
    exact = linear(x.float(), weight.float()).item()
    assert exact == 2048.5


def test_pre_activation_is_kept_only_for_training(device):
    x, weight = draw(4, 8, device=device), draw(8, 8, seed=1, device=device)
    with recording() as log:
        linear(x, weight, activation="gelu")
        linear(x.requires_grad_(), weight, activation="gelu")
    inference, training = log
    assert "pre_activation_ptr" not in inference.tensors
    assert training.tensors["pre_activation_ptr"].shape == (4, 8)


def test_no_operand_is_copied(device):
    """Strided views go to the kernel as they lie, in both directions."""
    x = draw(8, 16, device=device)[:, ::2].requires_grad_()  # [8, 8], stride 2
    weight = draw(8, 8, seed=1, device=device).T.requires_grad_()
    with recording() as log:
        y = linear(x, weight)
        y.backward(draw(8, 8, seed=2, device=device).T)
    forward, d_x, d_weight = log
    assert forward.tensors["a.ptr"].data_ptr() == x.data_ptr()
    assert forward.tensors["b.ptr"].data_ptr() == weight.data_ptr()
    assert d_x.tensors["b.ptr"].data_ptr() == weight.data_ptr()
    assert d_weight.tensors["a.ptr"].data_ptr() == x.data_ptr()


def test_batch_rows_do_not_mix(device):
    """A row's result is the same bits alone and among others."""
    x, weight = draw(130, 64, device=device), draw(64, 32, seed=1, device=device)
    together = linear(x, weight)
    assert torch.equal(together[129:], linear(x[129:], weight))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": draw(8, dtype=torch.float16)}, "bias: expected dtype torch.float32, like x, got"),
        ({"precision": "bf16"}, "precision: expected 'ieee' or 'tf32', got 'bf16'"),
        ({"residual": draw(4, 7)}, r"residual: expected shape \(4, 8\), got shape \(4, 7\)"),
        ({"weight": draw(8, 8, dtype=torch.float64)}, "weight: expected dtype torch.float32"),
    ],
)
def test_bad_arguments_are_refused_before_any_launch(change, message):
    arguments = {"x": draw(4, 8), "weight": draw(8, 8)} | change
    with recording() as log, pytest.raises(ValueError, match=message):
        linear(**arguments)
    assert not log


@pytest.mark.parametrize("name", ["triton", "eager"])
@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (2, 3, 0), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("d_out", [0, 4])
def test_empty_axes(d_out, shape, name, device):
    """No features: the bias alone. No rows or no results: nothing, and gradients of 0."""
    x = torch.zeros(shape, device=device, requires_grad=True)
    weight = torch.zeros(shape[-1], d_out, device=device, requires_grad=True)
    bias = torch.ones(d_out, device=device, requires_grad=True)
    with backend(name):
        y = linear(x, weight, bias, residual=torch.ones(*shape[:-1], d_out, device=device))
        y.sum().backward()
    torch.testing.assert_close(y, torch.full((*shape[:-1], d_out), 2.0, device=device))
    assert not x.grad.any()
    assert not weight.grad.any()
    torch.testing.assert_close(bias.grad, torch.full_like(bias, math.prod(shape[:-1])))
