"""What the GELU kernel promises beyond agreeing with the reference."""

import pytest
import torch

from gptwin.kernels.layers.gelu import gelu


@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_gradient_is_finite_where_pytorch_gives_nan(form, device):
    x = torch.tensor([1e30, -1e30, 3e38, 40.0, -40.0], device=device, requires_grad=True)
    y = gelu(x, approximate=form)
    y.backward(torch.ones_like(y))
    assert torch.equal(x.grad.cpu(), torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0]))


def test_nan_passes_through(device):
    x = torch.tensor([torch.nan, 1.0], device=device, requires_grad=True)
    y = gelu(x)
    y.sum().backward()
    assert y[0].isnan() and x.grad[0].isnan() and not y[1].isnan()


def test_negative_tail_has_no_cancellation(device):
    """½(1 + tanh u) is 0 in float32 from x = −5.5 on; σ(2u) is not."""
    y = gelu(torch.tensor([-6.0], device=device)).item()
    exact = torch.nn.functional.gelu(torch.tensor([-6.0]).double(), approximate="tanh").item()
    assert y == pytest.approx(exact, rel=1e-4)
