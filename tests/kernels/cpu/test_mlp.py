"""The CPU's own MLP is the plain one, and what it writes over is never looked at again."""

import pytest
import torch

from gptwin.kernels.cpu import mlp, spare_memory
from gptwin.kernels.cpu.mlp import mlp_eager
from gptwin.kernels.cpu.spare_memory import SpareMemory
from gptwin.kernels.layers.linear import linear_eager

D_MODEL, D_MLP = 6, 24


@pytest.fixture(autouse=True)
def several_strips_on_spare_memory(monkeypatch):
    monkeypatch.setattr(mlp, "STRIP", 64)  # the last strip is shorter
    monkeypatch.setattr(mlp, "WHOLE", 1)
    monkeypatch.setattr(spare_memory, "SMALLEST", 1)
    monkeypatch.setattr(mlp, "_SPARE", SpareMemory())


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


@pytest.mark.parametrize("frozen", range(6))
def test_what_is_frozen_gets_no_gradient(frozen):
    arguments = draw(1)
    arguments[frozen].requires_grad_(False)
    expect_same(both_directions(mlp_eager, arguments), both_directions(plain, arguments))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_without_a_gradient_it_is_the_plain_mlp_too(dtype):
    arguments = draw(2, dtype=dtype)
    with torch.no_grad():
        actual, expected = mlp_eager(*arguments), plain(*arguments)
    torch.testing.assert_close(
        actual, expected, **({"atol": 1e-12, "rtol": 0} if dtype.itemsize == 8 else {})
    )


def test_under_autocast_it_is_the_plain_mlp_too():
    arguments = draw(2, dtype=torch.float32)
    for training in (True, False):
        with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(mlp_eager(*arguments), plain(*arguments), atol=0, rtol=0)


def test_a_kept_graph_can_be_gone_through_again():
    arguments = draw(3)
    y = mlp_eager(*arguments)
    first = torch.autograd.grad(y.sum(), arguments, retain_graph=True)
    mlp_eager(*draw(4))  # might take what this graph keeps
    expect_same(torch.autograd.grad(y.sum(), arguments), first)


def test_steps_of_other_lengths_do_not_share_memory_in_use():
    """Two graphs alive at a time, ended in either order, on the memory of earlier ones."""
    for lengths in ((5, 9), (9, 5), (7, 8), (4, 4)):
        each = [draw(seed, rows=(n,)) for seed, n in enumerate(lengths)]
        outputs = [mlp_eager(*arguments) for arguments in each]
        for arguments, y in reversed(list(zip(each, outputs, strict=True))):
            gradients = torch.autograd.grad(y, arguments, torch.ones_like(y))
            y_plain = plain(*arguments)
            expected = torch.autograd.grad(y_plain, arguments, torch.ones_like(y))
            expect_same((y, *gradients), (y_plain, *expected))
        assert mlp._SPARE.storages  # the next pair begins on it


def test_spare_memory_goes_to_what_it_fits_and_to_one_alone():
    spare = SpareMemory(limit=1000)
    matrix = spare.take(10, 8, torch.float32)
    address = matrix.data_ptr()
    spare.give(matrix)
    del matrix
    far_smaller = spare.take(3, 8, torch.float32)  # less than half of it
    smaller = spare.take(7, 8, torch.float32)
    another = spare.take(7, 8, torch.float32)
    assert smaller.shape == (7, 8) and smaller.is_contiguous()
    assert smaller.data_ptr() == address
    assert address not in (far_smaller.data_ptr(), another.data_ptr())


def test_spare_memory_is_bounded():
    spare = SpareMemory(limit=1000)
    spare.give(*(torch.empty(10, 10) for _ in range(5)))  # 400 bytes each
    assert [s.nbytes() for s in spare.storages] == [400, 400]
