"""Inputs that broke other people's attention; each test names the project it broke.

Offsets beyond 2^31 (fla#1080, triton#1058) are in test_offsets.py; strided inputs, repeats and
output memory that held garbage are tried on every twin in test_broken_elsewhere.py.
"""

import math

import pytest
import torch

from gptwin.kernels.attention.attention import attention
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.verify.check import check

SMALL = {"batch": 1, "head": 2, "kv_head": 1, "queries": 37, "keys": 37, "d_head": 24}


def passes(case, device, dtype="float32"):
    finding = check(TWINS["attention"], SMALL | case, dtype, device)
    assert finding.passed, finding


@pytest.mark.parametrize("layout", ["transposed", "every_other", "row_pitch"])
def test_strided_inputs_and_cotangents(layout, device):
    """flash-attention#355, #2541, fla#871: non-contiguous inputs and d_out gave wrong gradients."""
    passes({"layout": layout, "d_layout": layout, "causal": True}, device)


def test_expanded_cotangent(device):
    """flash-attention#2541: an expanded d_out, as `.sum()` makes it, has strides of 0."""
    passes({"batch": 2, "d_layout": "expanded"}, device)
    tensors = [torch.randn(1, 1, 5, 8, device=device, requires_grad=True) for _ in range(3)]
    attention(*tensors)[0].sum().backward()
    torch.testing.assert_close(tensors[2].grad.sum(2), torch.full((1, 1, 8), 5.0, device=device))


@pytest.mark.parametrize(
    "sizes", [{"queries": 0}, {"keys": 0}, {"queries": 0, "keys": 0}, {"batch": 0}]
)
@pytest.mark.parametrize("causal", [False, True])
def test_zero_length_sequences(sizes, causal, device):
    """flash-attention#1537, fla#892: crashed or gave garbage."""
    passes(sizes | {"causal": causal, "minus_inf": True}, device)


@pytest.mark.parametrize("documents", [[], [0], [0, 10, 0, 5], [37, 0, 0], [1, 1, 1]])
def test_documents_of_length_zero_and_a_rest_that_belongs_to_none(documents, device):
    """flash-attention#1537, fla#892: cu_seqlens[-1] < T left garbage in the output."""
    passes({"documents": documents, "causal": True, "minus_inf": True}, device)


def test_fully_masked_rows(device):
    """pytorch#103963: a row that saw nothing gave NaN."""
    passes({"batch": 2, "padding": 1.0, "minus_inf": True}, device)
    passes({"queries": 37, "keys": 20, "causal": True, "minus_inf": True}, device)


@pytest.mark.parametrize("d_head", [1, 40, 59, 96, 111, 160, 256])
def test_head_dimensions_that_are_no_power_of_two(d_head, device):
    """triton#621: only the first 64 of them were used."""
    passes({"d_head": d_head, "causal": True}, device)


@pytest.mark.parametrize("length", [1, 31, 33, 63, 65, 127, 129])
def test_lengths_that_are_no_multiple_of_a_block(length, device):
    """triton#4174, #621: backward took multiples of 128 alone, and the tail was wrong."""
    passes({"queries": length, "keys": length, "causal": True}, device)
    passes({"queries": length, "keys": 50}, device)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_backward_without_a_causal_mask(dtype, device):
    """triton#4174, #4541, #5660: wrong for two years in the tutorial."""
    passes({"queries": 130, "keys": 70, "causal": False}, device, dtype)


def test_huge_and_infinite_scores(device):
    """triton#5971: huge magnitudes and ±inf gave NaN where the answer is finite."""
    query = torch.tensor([1e19, 1.0, -1.0], device=device).view(1, 1, 3, 1)
    key = torch.tensor([1e19, -math.inf, 3.0], device=device).view(1, 1, 3, 1)
    value = torch.tensor([1.0, 2.0, 4.0], device=device).view(1, 1, 3, 1)
    output, lse = attention(query, key, value, scale=0.5)
    # 1e38 wins; a score of −inf is not seen; one of +inf has no finite answer, in its row alone.
    assert output[0, 0, :2, 0].tolist() == [1.0, 1.0]
    assert lse[0, 0, :2].isfinite().all()
    assert output[0, 0, 2].isnan().all()
    output, lse = attention(query[:, :, 1:2], key[:, :, 1:2], value[:, :, 1:2])
    assert output.item() == 0 and lse.item() == -math.inf


def test_gradient_of_one_input_alone(device):
    """Liger#507: requires_grad=False on one input gave a wrong or missing gradient."""
    tensors = [torch.randn(1, 2, 9, 8, device=device) for _ in range(3)]
    d_output = torch.randn(1, 2, 9, 8, device=device)

    def gradients(wanted):
        leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
        attention(*leaves, causal=True)[0].backward(d_output)
        return [leaf.grad for leaf in leaves]

    together = gradients({0, 1, 2})
    for i in range(3):
        alone = gradients({i})
        assert torch.equal(alone[i], together[i])
        assert all(alone[j] is None for j in range(3) if j != i)


def test_dropout_and_grouped_heads_together(device):
    """Dropout is where kernels stop short: FlagGems has it in forward alone."""
    passes({"head": 4, "kv_head": 2, "dropout": 0.4, "causal": True, "window": 20}, device)


def test_three_dimensions_are_refused(device):
    """FlagGems#5392: a 3-D input where another number was assumed wrote out of bounds."""
    x = torch.zeros(2, 3, 4, device=device)
    with pytest.raises(ValueError, match=r"query: expected 4 dimensions \[batch, head, query, d_h"):
        attention(x, x, x)


def test_repeats_are_bit_identical(device):
    """tritonbench#1266: atomics corrupted gradients in 99 of 100 runs."""
    tensors = [torch.randn(1, 4, 150, 64, device=device, requires_grad=True) for _ in range(3)]
    d_output = torch.randn(1, 4, 150, 64, device=device)

    def once():
        output, lse = attention(*tensors, causal=True, dropout=0.1)
        return output, lse, *torch.autograd.grad(output, tensors, d_output)

    first = once()
    for _ in range(100 if device == "cuda" else 1):
        assert all(torch.equal(a, b) for a, b in zip(first, once(), strict=True))
