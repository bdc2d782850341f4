"""What the layer norm kernels promise beyond agreeing with the reference."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.layers import layer_norm as reference
from gptwin.kernels.common.launch import configuration, recording
from gptwin.kernels.layers import layer_norm as operation
from gptwin.kernels.layers.layer_norm import MAX_BLOCK, layer_norm, layer_norm_eager

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALVES = (torch.float16, torch.bfloat16)
NAMES = ("x", "weight", "bias", "residual")


def draw(shape, seed, dtype=torch.float32, mean=0.0, std=1.0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values * std + mean).to(dtype).to(DEVICE)


def inputs(shape, dtype=torch.float32, needed=NAMES, **distribution):
    tensors = {
        "x": draw(shape, 1, dtype, **distribution),
        "weight": draw(shape[-1:], 2, dtype, mean=1.0, std=0.5),
        "bias": draw(shape[-1:], 3, dtype),
        "residual": draw(shape, 4, dtype),
    }
    return {name: t.requires_grad_(name in needed) for name, t in tensors.items()}


def gradients(tensors, d_y, d_summed):
    """Run forward and backward; either cotangent may be None."""
    results = layer_norm(**tensors)
    used = [(r, d) for r, d in zip(results, (d_y, d_summed), strict=True) if d is not None]
    torch.autograd.backward([r for r, _ in used], [d for _, d in used])
    return {name: t.grad for name, t in tensors.items()}


def exact(tensors, d_y):
    """Gradients of the reference in float64, without a residual."""
    arrays = [tensors[name].detach().double().cpu().numpy() for name in NAMES[:3]]
    y, saved = reference.layer_norm_forward(*arrays)
    return y, reference.layer_norm_backward(saved, d_y.double().cpu().numpy())


def assert_near(actual, expected, relative):
    """Compare relative to the largest entry expected."""
    actual = actual.detach().double().cpu().numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * scale)


# --- properties ----------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(2, 300), st.integers(0, 1000))
def test_rows_have_mean_0_and_variance_1(rows, width, seed):
    x = draw((rows, width), seed)
    y = layer_norm(x, torch.ones_like(x[0]), torch.zeros_like(x[0])).double()
    variance = x.double().var(-1, unbiased=False)
    torch.testing.assert_close(y.mean(-1), torch.zeros_like(variance), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        y.var(-1, unbiased=False), variance / (variance + 1e-5), atol=0, rtol=3e-6
    )


@given(st.integers(1, 40), st.integers(-8, 8), st.integers(0, 1000))
def test_a_shift_changes_nothing(width, shift, seed):
    """Small integers, whose sums float32 holds exactly: a shift of the row is exact as well."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-8, 8, (3, width), generator=generator).float().to(DEVICE)
    weight, bias = draw((width,), 1), draw((width,), 2)
    torch.testing.assert_close(
        layer_norm(x + shift, weight, bias), layer_norm(x, weight, bias), atol=3e-6, rtol=0
    )


@given(st.integers(1, 12), st.integers(1, 300), st.integers(0, 1000))
def test_gradient_of_x_sums_to_0_over_features(rows, width, seed):
    tensors = inputs((rows, width))
    del tensors["residual"]
    layer_norm(**tensors).backward(draw((rows, width), seed))
    d_x = tensors["x"].grad.double()
    assert (d_x.sum(-1).abs() <= 1e-6 * width * (1 + d_x.abs().max())).all()


@given(st.sampled_from(HALVES), st.integers(1, 12), st.integers(1, 100), st.integers(0, 1000))
def test_y_is_normalised_from_the_stored_sum(dtype, rows, width, seed):
    """Bit for bit: the statistics are those of the rounded sum, which backward sees again."""
    tensors = inputs((rows, width), dtype, needed=())
    y, summed = layer_norm(**tensors)
    assert torch.equal(summed, tensors["x"] + tensors["residual"])
    assert torch.equal(y, layer_norm(summed, tensors["weight"], tensors["bias"]))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("width", [MAX_BLOCK, MAX_BLOCK + 1])
def test_the_width_alone_chooses_the_path(width, residual, device):
    tensors = inputs((1, width))
    if not residual:
        del tensors["residual"]
    with recording() as log:
        results = layer_norm(**tensors)
        torch.autograd.backward(results, [draw((1, width), 5)] * (1 + residual))
    kernels = {"column_sum_kernel"}
    if width <= MAX_BLOCK:
        kernels |= {"layer_norm_forward_kernel", "layer_norm_backward_kernel"}
    else:
        kernels |= {
            "layer_norm_forward_wide_kernel",
            "layer_norm_backward_wide_kernel",
            "layer_norm_backward_parameters_kernel",
        }
    assert {entry.kernel for entry in log} == kernels


@pytest.mark.parametrize("wish", range(3))
def test_the_two_paths_agree(wish, monkeypatch):
    """Rows of several blocks and a tail, through both paths."""
    shape = (3, 2 * 4096 - 700)
    d_y, d_summed = draw(shape, 5), draw(shape, 6)
    with configuration(wish):
        narrow_y, _ = layer_norm(**inputs(shape))
        narrow = gradients(inputs(shape), d_y, d_summed)
        monkeypatch.setattr(operation, "MAX_BLOCK", 4096)
        wide_y, _ = layer_norm(**inputs(shape))
        wide = gradients(inputs(shape), d_y, d_summed)
    torch.testing.assert_close(wide_y, narrow_y, atol=4e-6, rtol=0)
    for name in NAMES:
        torch.testing.assert_close(wide[name], narrow[name], atol=4e-6, rtol=0)


@pytest.mark.parametrize(
    ("shape", "n_programs"),
    [
        ((283, 200), 70),  # more than one step of column_sum's loop takes, and a tail
        ((283, 200), 264),  # an H100's two per multiprocessor: column_sum launches twice
        ((71, MAX_BLOCK + 40), 70),
    ],
)
def test_every_program_s_partial_sum_counts(shape, n_programs, monkeypatch):
    """As on a large GPU, which has more programs than the interpreter."""
    monkeypatch.setattr(operation, "_partial_sums", lambda x, n_rows, n_features: n_programs)
    tensors = inputs(shape)
    del tensors["residual"]
    statistics = statistics_of(tensors["x"])
    d_y = draw(shape, 5)
    with torch.no_grad():
        _, d_weight, d_bias = operation.layer_norm_backward(
            tensors["x"], tensors["weight"], statistics, d_y
        )
    _, (_, exact_weight, exact_bias, _) = exact(tensors, d_y)
    assert_near(d_weight, exact_weight, 2e-6)
    assert_near(d_bias, exact_bias, 2e-6)


def statistics_of(x):
    """Compute what forward stores, without running it."""
    x = x.detach().double()
    mean = x.mean(-1).float()
    rest = (x.mean(-1) - mean).float()
    rstd = (x.var(-1, unbiased=False) + 1e-5).rsqrt().float()
    return torch.stack([mean, rest, rstd])


@pytest.mark.parametrize("wish", range(3))
def test_programs_without_a_row_add_nothing(wish):
    """Their partial sums are read as well; fresh memory is NaN here."""
    tensors = inputs((33, 200))
    del tensors["residual"]
    d_y = draw((33, 200), 5)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with configuration(wish):
            layer_norm(**tensors).backward(d_y)
    finally:
        torch.use_deterministic_algorithms(False)
    for name, gradient in zip(NAMES[:3], exact(tensors, d_y)[1], strict=False):
        assert_near(tensors[name].grad, gradient, 2e-6)


@pytest.mark.parametrize("width", [96, MAX_BLOCK + 1])
def test_a_loss_of_one_result_alone(width):
    """The other result's cotangent never comes: it counts as 0, and costs no zeros."""
    shape = (3, width)
    d = draw(shape, 5)
    zeros = torch.zeros_like(d)
    for given_, whole in (((d, None), (d, zeros)), ((None, d), (zeros, d))):
        part, full = gradients(inputs(shape), *given_), gradients(inputs(shape), *whole)
        for name in NAMES:
            assert torch.equal(part[name], full[name])


def test_gradients_can_be_changed_in_place(device):
    """d_weight and d_bias share memory: neither the other nor autograd may notice."""
    tensors = inputs((3, 7))
    y, _ = layer_norm(**tensors)
    d_weight, d_bias = torch.autograd.grad(y.square().sum(), (tensors["weight"], tensors["bias"]))
    before = d_bias.clone()
    d_weight.add_(tensors["weight"])  # which requires a gradient
    assert torch.equal(d_bias, before)


# --- inputs that broke other people's kernels ----------------------------------------------------


@pytest.mark.parametrize("width", [77, MAX_BLOCK + 3])
def test_strides_of_every_tensor(width):
    """flash-attention#355, #2541, fla#871: non-contiguous inputs and d_out, wrong gradients."""
    plain = inputs((4, width))
    strided = {
        "x": plain["x"].detach().t().contiguous().t(),
        "weight": torch.stack([plain["weight"].detach()] * 2, 1)[:, 1],
        "bias": plain["bias"].detach().flip(0).clone().flip(0),
        "residual": torch.stack([plain["residual"].detach()] * 2, -1)[..., 0],
    }
    strided = {name: t.requires_grad_() for name, t in strided.items()}
    assert not any(strided[name].is_contiguous() for name in ("x", "weight", "residual"))
    d_y, d_summed = draw((4, width), 5), draw((4, width), 6)
    expected = gradients(plain, d_y, d_summed)
    actual = gradients(strided, d_y.t().contiguous().t(), torch.stack([d_summed] * 2, -1)[..., 0])
    for name in NAMES:
        assert torch.equal(actual[name], expected[name])


@pytest.mark.parametrize("width", [77, MAX_BLOCK + 3])
def test_expanded_cotangent(width):
    """flash-attention#2541, fla#871: the gradient of `.sum()` has every stride 0."""
    one = torch.ones((), device=DEVICE)
    expanded = gradients(inputs((4, width)), one.expand(4, width), one.expand(4, width))
    ones = torch.ones(4, width, device=DEVICE)
    whole = gradients(inputs((4, width)), ones, ones)
    for name in NAMES:
        assert torch.equal(expanded[name], whole[name])


@pytest.mark.parametrize("shape", [(12,), (2, 6), (3, 2, 2, 6), (1, 1, 12)])
def test_any_number_of_dimensions(shape):
    """FlagGems#5392: a 3-D input where 2-D was assumed gave out-of-bounds writes."""
    tensors = inputs(shape)
    d_y, d_summed = draw(shape, 5), draw(shape, 6)
    flat = {
        name: t.detach().clone().reshape(-1, shape[-1]) if t.ndim == len(shape) else t.detach()
        for name, t in tensors.items()
    }
    flat["weight"], flat["bias"] = (tensors[n].detach().clone() for n in ("weight", "bias"))
    flat = {name: t.requires_grad_() for name, t in flat.items()}
    expected = gradients(flat, d_y.reshape(-1, shape[-1]), d_summed.reshape(-1, shape[-1]))
    actual = gradients(tensors, d_y, d_summed)
    for name in NAMES:
        assert actual[name].shape == tensors[name].shape
        assert torch.equal(actual[name].flatten(), expected[name].flatten())


@pytest.mark.parametrize("width", [50, MAX_BLOCK + 1])
@pytest.mark.parametrize(
    "needed", [("x",), ("weight",), ("bias",), ("residual",), ("x", "bias"), NAMES[1:]]
)
def test_only_some_inputs_require_a_gradient(needed, width):
    """Liger#678, #507: requires_grad=False on one input gave wrong or no gradients."""
    d_y, d_summed = draw((9, width), 5), draw((9, width), 6)
    expected = gradients(inputs((9, width)), d_y, d_summed)
    actual = gradients(inputs((9, width), needed=needed), d_y, d_summed)
    for name in NAMES:
        if name in needed:
            assert torch.equal(actual[name], expected[name])
        else:
            assert actual[name] is None


def test_frozen_parameters_cost_no_partial_sums(device):
    """Liger#678 again: what is not wanted is not computed."""
    with recording() as log:
        gradients(inputs((9, 50), needed=("x",)), draw((9, 50), 5), None)
    assert "column_sum_kernel" not in {entry.kernel for entry in log}


@pytest.mark.parametrize("width", [1000, MAX_BLOCK + 1000])
@pytest.mark.parametrize("std", [1.0, 0.01])
def test_large_mean(width, std):
    """triton#5971, huge magnitudes: at mean 10⁴, E[x²] − E[x]² has no digit left in float32.

    Backward, too, is exact: a mean rounded to float32 alone would be off by 5·10⁻⁴.
    """
    tensors = inputs((3, width), mean=1e4, std=std)
    del tensors["residual"]
    d_y = draw((3, width), 5)
    y = layer_norm(**tensors)
    y.backward(d_y)
    expected_y, expected = exact(tensors, d_y)
    assert_near(y, expected_y, 1e-6)
    for name, gradient in zip(NAMES[:3], expected, strict=False):
        assert_near(tensors[name].grad, gradient, 3e-6)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("value", [0.0, 12345.678, -3e4])
@pytest.mark.parametrize("width", [768, MAX_BLOCK + 1])
def test_constant_row_gives_the_bias(width, value, dtype):
    """triton#5971, huge magnitudes: variance 0 to the last bit, and ε keeps it finite."""
    tensors = inputs((2, width), dtype, needed=())
    x = torch.full((2, width), value, dtype=dtype, device=DEVICE)
    y = layer_norm(x, tensors["weight"], tensors["bias"])
    torch.testing.assert_close(y, tensors["bias"].expand(2, width), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [300, MAX_BLOCK + 1])
def test_repeats_are_bit_identical(width, dtype):
    """tritonbench#1266: atomics in dW were corrupt in 99 of 100 runs."""
    shape = (40, width) if width < MAX_BLOCK else (5, width)
    runs = [
        gradients(inputs(shape, dtype), draw(shape, 5, dtype), draw(shape, 6, dtype))
        for _ in range(3)
    ]
    for name in NAMES:
        assert all(torch.equal(run[name], runs[0][name]) for run in runs)


def test_python_float_eps_stays_float32(device):
    """Liger#1350: Python floats silently made a kernel float64; so would NumPy's."""
    tensors = inputs((3, 40), needed=())
    y, summed = layer_norm(**tensors, eps=1e-3)
    assert y.dtype == summed.dtype == torch.float32
    assert torch.equal(y, layer_norm(**tensors, eps=np.float64(1e-3))[0])
    with recording() as log:
        layer_norm(**tensors, eps=1e-3)
    assert {t.dtype for t in log[0].tensors.values()} == {torch.float32}


@pytest.mark.parametrize("shape", [(0, 7), (3, 0, 7), (0, MAX_BLOCK + 1)])
def test_empty_batch(shape):
    """flash-attention#1537, fla#892: empty results, and zero gradients of weight and bias."""
    tensors = inputs(shape)
    y, summed = layer_norm(**tensors)
    assert y.shape == summed.shape == shape
    found = gradients(tensors, draw(shape, 5), draw(shape, 6))
    assert found["x"].shape == found["residual"].shape == shape
    assert torch.equal(found["weight"], torch.zeros(shape[-1:], device=DEVICE))
    assert torch.equal(found["bias"], torch.zeros(shape[-1:], device=DEVICE))


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES[1:])
def test_mixed_dtypes_are_refused(name):
    tensors = inputs((2, 4), needed=())
    tensors[name] = tensors[name].half()
    with pytest.raises(ValueError, match=rf"^{name}: expected dtype torch.float32, like x, got"):
        layer_norm(**tensors)


def test_float64_is_refused(device):
    with pytest.raises(ValueError, match=r"^x: expected dtype float32, float16 or bfloat16"):
        layer_norm(**inputs((2, 4), torch.float64, needed=()))


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("x", (2, 0), "at least 1 feature"),
        ("x", (), "at least 1 dimensions"),
        ("weight", (2,), r"shape \(4,\), got shape \(2,\)"),
        ("bias", (2, 4), r"shape \(4,\), got shape \(2, 4\)"),
        ("residual", (4,), r"shape \(2, 4\), got shape \(4,\)"),
        ("residual", (1, 4), r"shape \(2, 4\), got shape \(1, 4\)"),
    ],
)
def test_bad_shapes_are_named(name, bad, message):
    tensors = inputs((2, 4), needed=())
    tensors[name] = torch.ones(bad, device=DEVICE)
    with pytest.raises(ValueError, match=rf"^{name}: expected {message}"):
        layer_norm(**tensors)


@pytest.mark.parametrize("eps", [0.0, -1e-5, float("inf"), float("nan")])
def test_bad_eps_is_named(eps):
    with pytest.raises(ValueError, match=r"^eps: expected a finite number above 0"):
        layer_norm(**inputs((2, 4), needed=()), eps=eps)


@pytest.mark.parametrize("shape", [(0, 7), (5, 7)])
def test_eager_has_the_same_edges(shape):
    tensors = inputs(shape)
    d_y = draw(shape, 5)
    y, summed = layer_norm_eager(**tensors)
    torch.testing.assert_close(layer_norm(**tensors), (y, summed), atol=2e-6, rtol=0)
    y.backward(d_y)
    expected = gradients(inputs(shape), d_y, None)
    for name in NAMES:
        torch.testing.assert_close(tensors[name].grad, expected[name], atol=4e-6, rtol=0)
