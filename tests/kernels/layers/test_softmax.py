"""What the softmax kernels promise beyond agreeing with the reference."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwin.kernels.common.launch import backend, recording
from gptwin.kernels.layers.softmax import MAX_BLOCK, softmax


def draw(shape, seed, device):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


@given(st.integers(1, 5), st.integers(1, 300), st.integers(0, 1000))
def test_rows_are_probabilities(rows, width, seed):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    p = softmax(draw((rows, width), seed, device))
    assert (p >= 0).all() and (p <= 1).all()
    torch.testing.assert_close(p.sum(-1), torch.ones(rows, device=device), atol=1e-6, rtol=0)


@given(st.integers(2, 30), st.integers(0, 1000))
def test_permuting_keys_permutes_probabilities(width, seed):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = draw((3, width), seed, device)
    order = torch.randperm(width, generator=torch.Generator().manual_seed(seed)).to(device)
    torch.testing.assert_close(softmax(x)[:, order], softmax(x[:, order]), atol=1e-7, rtol=1e-6)


def test_causal_rows_never_see_later_keys(device):
    """Bit for bit: what a later key holds, even NaN, does not matter."""
    x = draw((1, 6, 6), 0, device)
    before = softmax(x, causal=True)
    x[0, :5, 5] = torch.nan
    after = softmax(x, causal=True)
    assert torch.equal(before, after)


def test_masked_keys_never_leak(device):
    x = draw((2, 3, 5), 0, device)
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.bool, device=device)
    before = softmax(x, key_mask=mask)
    x[0, :, 2] = 1e30
    assert torch.equal(before, softmax(x, key_mask=mask))
    assert not before[0, :, 2].any()


@pytest.mark.parametrize(
    ("width", "kernels"),
    [
        (MAX_BLOCK, {"softmax_forward_kernel", "softmax_backward_kernel"}),
        (MAX_BLOCK + 1, {"softmax_forward_wide_kernel", "softmax_backward_wide_kernel"}),
    ],
)
def test_the_width_alone_chooses_the_path(width, kernels, device):
    x = draw((1, width), 0, device).requires_grad_()
    with recording() as log:
        softmax(x).backward(draw((1, width), 1, device))
    assert {entry.kernel for entry in log} == kernels


def test_the_two_paths_agree(device):
    """A row just over the limit, padded with unseen keys, equals the row alone."""
    x = draw((2, 100), 3, device)
    padded = torch.full((2, MAX_BLOCK + 50), -torch.inf, device=device)
    padded[:, -100:] = x
    torch.testing.assert_close(softmax(padded)[:, -100:], softmax(x), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", ["triton", "eager"])
def test_a_row_of_minus_infinity_has_gradient_0(name, device):
    """A mask that was added to the scores, not given as a mask."""
    x = torch.tensor([[-torch.inf, -torch.inf], [0.0, 1.0]], device=device, requires_grad=True)
    with backend(name):
        softmax(x)[:, 0].sum().backward()
    p = 1 / (1 + math.e)
    expected = torch.tensor([[0, 0], [p * (1 - p), -p * (1 - p)]])
    torch.testing.assert_close(x.grad.cpu(), expected)
