"""Inputs that broke other people's kernels; each test names the project it broke.

Offsets beyond 2^31 (fla#1080, triton#1058) are in test_offsets.py. Rows about attention, variable
length and losses join with those operations.
"""

import math

import numpy as np
import pytest
import torch

from gptwin.kernels.common.launch import recording
from gptwin.kernels.layers.gelu import gelu
from gptwin.kernels.layers.layer_norm import layer_norm
from gptwin.kernels.layers.linear import linear
from gptwin.kernels.layers.softmax import softmax
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.draw import COTANGENT_LAYOUTS, LAYOUTS, to_numpy
from gptwin.lab.verify.check import check, prepare, run

each_twin = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)


@pytest.mark.parametrize("layout", LAYOUTS)
@each_twin
def test_strided_inputs(twin, layout, device):
    """flash-attention#355, fla#871: non-contiguous inputs gave wrong results."""
    finding = check(twin, twin.corners[0] | {"layout": layout}, "float32", device)
    assert finding.passed, finding


@pytest.mark.parametrize("layout", COTANGENT_LAYOUTS)
@each_twin
def test_strided_and_expanded_cotangents(twin, layout, device):
    """flash-attention#2541, fla#871: an expanded or strided d_out gave wrong gradients."""
    for corner in twin.corners:
        finding = check(twin, corner | {"d_layout": layout}, "float32", device)
        assert finding.passed, finding


@pytest.mark.parametrize("rows", [0, 1])
def test_empty_and_single_rows(rows, device):
    """flash-attention#1537, fla#892: zero-length sequences crashed or gave garbage."""
    cases = {
        "softmax": {"shape": [rows, 1, 3, 7], "causal": True, "key_mask": True},
        "gelu": {"shape": [rows, 5]},
        "linear": {"rows": rows, "d_in": 3, "d_out": 4, "bias": True, "activation": "gelu"},
        "layer_norm": {"shape": [rows, 9], "residual": True},
    }
    for name, case in cases.items():
        finding = check(TWINS[name], case, "float32", device)
        assert finding.passed, finding


def test_fully_masked_row_is_zero_and_so_is_its_gradient(device):
    """pytorch#103963: a fully masked row gave NaN."""
    x = torch.randn(2, 3, 5, device=device, requires_grad=True)
    mask = torch.tensor([[False] * 5, [True] * 5], device=device)
    p = softmax(x, key_mask=mask)
    p.backward(torch.randn_like(p))
    assert not p[0].any() and not x.grad[0].any()
    assert torch.isfinite(p).all() and torch.isfinite(x.grad).all()


@pytest.mark.parametrize("width", [1, 2, 40, 59, 96, 111, 127, 128, 129, 1000])
@pytest.mark.parametrize("name", ["softmax", "layer_norm"])
def test_widths_that_are_no_power_of_two(name, width, device):
    """triton#621: only the first power of two of a row was used, or the tail was wrong."""
    finding = check(TWINS[name], {"shape": [3, width], "seed": width}, "float32", device)
    assert finding.passed, finding


@pytest.mark.parametrize("size", [1, 31, 33, 63, 65, 129])
def test_matrix_sizes_that_are_no_multiple_of_a_block(size, device):
    """triton#621, again: every edge of the product, one at a time."""
    for edge in ("rows", "d_in", "d_out"):
        case = {"rows": 64, "d_in": 64, "d_out": 64, "bias": True, "activation": "gelu"}
        finding = check(TWINS["linear"], case | {edge: size}, "float32", device)
        assert finding.passed, finding


def test_huge_and_infinite_logits(device):
    """triton#5971: huge magnitudes and ±inf logits gave NaN where the answer is finite."""
    x = torch.tensor([[3e38, -3e38, 0.0], [-math.inf, 1.0, 1.0], [1e38, 1e38, -math.inf]])
    expected = [[1, 0, 0], [0, 0.5, 0.5], [0.5, 0.5, 0]]
    np.testing.assert_array_equal(softmax(x.to(device), scale=8.0).cpu(), expected)
    # +inf has no finite answer: its row is NaN, as in PyTorch and NumPy, and no other row is.
    p = softmax(torch.tensor([[math.inf, 0.0], [0.0, 0.0]], device=device))
    assert p[0].isnan().all() and (p[1] == 0.5).all()


def test_large_offset_and_small_variance(device):
    """triton#5971, for the norm: E[x²] − E[x]² loses every digit here; two passes do not."""
    x = torch.randn(4, 64, device=device, dtype=torch.float64)
    weight, bias = torch.ones(64, device=device), torch.zeros(64, device=device)
    shifted = layer_norm((x + 1e4).float(), weight, bias)
    truth = torch.nn.functional.layer_norm((x + 1e4).float().double(), (64,))
    assert (shifted.double() - truth).abs().max() < 1e-3


@pytest.mark.parametrize("wanted", ["x", "weight", "bias", "residual"])
@pytest.mark.parametrize("operation", ["linear", "linear+gelu", "layer_norm"])
def test_gradient_of_one_input_alone(operation, wanted, device):
    """Liger#507: requires_grad=False on one input gave a wrong or missing gradient."""
    g = torch.Generator().manual_seed(0)
    shapes = {"x": (5, 8), "weight": (8, 8), "bias": (8,), "residual": (5, 8)}
    if operation == "layer_norm":
        shapes["weight"] = (8,)

    def gradient_of(names):
        g.manual_seed(0)
        tensors = {n: torch.randn(*s, generator=g).to(device) for n, s in shapes.items()}
        for name in names:
            tensors[name].requires_grad_()
        if operation == "layer_norm":
            result = sum(layer_norm(**tensors))
        else:
            result = linear(**tensors, activation="gelu" if "gelu" in operation else None)
        result.backward(torch.randn(5, 8, generator=g).to(device))
        return tensors

    alone, together = gradient_of([wanted]), gradient_of(shapes)
    torch.testing.assert_close(alone[wanted].grad, together[wanted].grad, rtol=0, atol=0)
    assert all(alone[name].grad is None for name in shapes if name != wanted)


def test_python_float_arguments_are_float32(device):
    """Liger#1350: a Python float became a float64 scalar and dragged the kernel along."""
    x = torch.randn(4, 33, device=device, dtype=torch.float16)
    with recording() as log:
        p = softmax(x, scale=0.1)
    assert p.dtype == torch.float16 and log
    # 0.1 in float64 and in float32 differ in the 9th digit: magnify it
    wide = torch.tensor([[0.0, 1.0e7]], device=device)
    exact = torch.softmax(wide.double() * 1e-6, -1)
    torch.testing.assert_close(softmax(wide, scale=1e-6).double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(6,), (2, 6), (2, 3, 6), (2, 1, 3, 6)])
def test_any_number_of_dimensions(shape, device):
    """FlagGems#5392: a 3-D input where 2-D was assumed wrote out of bounds."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, generator=g).to(device)
    weight, bias = torch.randn(6, 5, generator=g).to(device), torch.randn(6, generator=g).to(device)
    flat = x.reshape(-1, 6)
    for operation in (
        softmax,
        gelu,
        lambda rows: linear(rows, weight),
        lambda rows: layer_norm(rows, bias, bias),
    ):
        whole = operation(x)
        assert whole.shape[:-1] == shape[:-1]
        torch.testing.assert_close(
            whole.reshape(flat.shape[0], -1), operation(flat), rtol=0, atol=0
        )


@each_twin
def test_repeats_are_bit_identical(twin, device):
    """tritonbench#1266: atomics and a lock without a barrier corrupted dW in 99 of 100 runs."""
    repeats = 100 if device == "cuda" else 2
    prepared = prepare(twin, twin.corners[-1], "float32", device, None)
    first = run(twin, twin.kernel, prepared)
    for _ in range(repeats):
        again = run(twin, twin.kernel, prepared)
        for name in first:  # NaN equals NaN here
            np.testing.assert_array_equal(to_numpy(first[name]), to_numpy(again[name]))


@each_twin
def test_what_the_output_memory_held_does_not_matter(twin, device, monkeypatch):
    """triton#9230: autotune trials shared an output, and a kernel that adds to it kept garbage."""
    prepared = prepare(twin, twin.corners[0], "float32", device, None)
    clean = run(twin, twin.kernel, prepared)
    for name in ("empty", "empty_like"):
        allocate = getattr(torch, name)
        monkeypatch.setattr(
            torch, name, lambda *a, _allocate=allocate, **k: _allocate(*a, **k).fill_(7.0)
        )
    dirty = run(twin, twin.kernel, prepared)
    for name in clean:
        np.testing.assert_array_equal(to_numpy(clean[name]), to_numpy(dirty[name]))
