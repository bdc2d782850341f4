"""What the GELU kernel promises beyond agreeing with the reference."""

import pytest
import torch

from gptwin.kernels import eager_gelu
from gptwin.kernels.gelu import gelu


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


@pytest.mark.parametrize("compiler", [None, "aot_eager"])
def test_the_cpus_own_way_is_pytorchs_function(compiler, monkeypatch):
    monkeypatch.setattr(eager_gelu, "STRIP", 16)  # several strips, the last one shorter
    x = torch.linspace(-12, 12, 101, dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(1, 2, 101, dtype=torch.float64)

    def both_directions(function):
        y = function(x + 0)
        return y, *torch.autograd.grad(y, x, weights)

    own = eager_gelu.gelu_keeping_slope
    own = torch.compile(own, fullgraph=True, backend=compiler) if compiler else own
    expected = both_directions(lambda x: torch.nn.functional.gelu(x, approximate="tanh"))
    for actual, e in zip(both_directions(own), expected, strict=True):
        torch.testing.assert_close(actual, e, atol=1e-13, rtol=0)


@pytest.mark.parametrize("why", ["half precision", "not trained"])
def test_what_is_left_to_pytorch_is_not_written_over(why):
    x = torch.linspace(-3, 3, 7, dtype=torch.bfloat16 if why == "half precision" else None)
    before = x.clone()
    eager_gelu.gelu_keeping_slope(x.requires_grad_(why == "half precision"))
    assert torch.equal(x, before)
