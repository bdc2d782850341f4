"""The CPU's own MLP is the plain one, compiled or not, and so is its GELU."""

import pytest
import torch
from torch.nn import functional

from gptwin.kernels.cpu.mlp import gelu_in_place, mlp_eager
from gptwin.kernels.layers.linear import linear_eager

D_MODEL, D_MLP = 6, 24


def plain(x, fc_weight, fc_bias, proj_weight, proj_bias, residual=None):
    hidden = linear_eager(x, fc_weight, fc_bias, activation="gelu")
    return linear_eager(hidden, proj_weight, proj_bias, residual=residual)


def draw(seed, *, rows=(2, 7), bias=True, residual=True, dtype=torch.float64):
    """Draw the six arguments, which all want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [
        (*rows, D_MODEL), (D_MODEL, D_MLP), (D_MLP,) if bias else None, (D_MLP, D_MODEL),
        (D_MODEL,) if bias else None, (*rows, D_MODEL) if residual else None,
    ]  # fmt: skip
    return [
        None if s is None else torch.randn(s, generator=generator, dtype=dtype).requires_grad_()
        for s in shapes
    ]


def both_directions(function, arguments):
    wanted = [a for a in arguments if a is not None and a.requires_grad]
    y = function(*arguments)
    return y, *torch.autograd.grad(y, wanted, torch.linspace(1, 2, y.numel()).view(y.shape).to(y))


def expect_same(actual, expected):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("compiler", [None, "aot_eager"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_it_is_the_plain_mlp(compiler, bias, residual):
    arguments = draw(0, bias=bias, residual=residual)
    own = mlp_eager
    own = torch.compile(own, fullgraph=True, backend=compiler) if compiler else own
    expect_same(both_directions(own, arguments), both_directions(plain, arguments))


def test_under_autocast_it_is_the_plain_mlp_too():
    arguments = draw(2, dtype=torch.float32)
    for training in (True, False):
        with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(mlp_eager(*arguments), plain(*arguments), atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gelu_in_place_is_gelu(dtype):
    u = torch.linspace(-12, 12, 200).to(dtype)
    expected = functional.gelu(u, approximate="tanh")
    torch.testing.assert_close(gelu_in_place(u.clone()), expected)
