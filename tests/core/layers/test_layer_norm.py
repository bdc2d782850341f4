"""What core's layer norm promises: its exact derivative, in the precision it is given."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.layers.layer_norm import (
    layer_norm,
    layer_norm_backward,
    layer_norm_forward,
    row_statistics,
    row_statistics_tiled,
)

shapes = st.lists(st.integers(1, 4), max_size=2).flatmap(
    lambda batch: st.integers(1, 12).map(lambda d_model: (*batch, d_model))
)
seeds = st.integers(0, 2**32 - 1)
EPS = 1e-5


def draw(shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "x": generator.normal(size=shape),
        "weight": generator.normal(1, 0.5, size=shape[-1]),
        "bias": generator.normal(size=shape[-1]),
        "residual": generator.normal(size=shape),
        "d_y": generator.normal(size=shape),
        "d_summed": generator.normal(size=shape),
    }


@given(shape=shapes, fused=st.booleans(), seed=seeds)
def test_backward_is_the_slope(shape: tuple[int, ...], fused: bool, seed: int) -> None:
    """Central differences of the loss Σ d_y·y + Σ d_summed·summed, one input element at a time."""
    a = draw(shape, seed)
    names = ["x", "weight", "bias"] + (["residual"] if fused else [])
    # A row that is nearly constant bends faster than any step: a large ε keeps it smooth.
    eps = 0.1

    def loss() -> float:
        result = layer_norm(
            a["x"], a["weight"], a["bias"], residual=a["residual"] if fused else None, eps=eps
        )
        if fused:
            return float((a["d_y"] * result[0]).sum() + (a["d_summed"] * result[1]).sum())
        return float((a["d_y"] * result).sum())

    _, saved = layer_norm_forward(
        a["x"], a["weight"], a["bias"], residual=a["residual"] if fused else None, eps=eps
    )
    gradients = layer_norm_backward(saved, a["d_y"], a["d_summed"] if fused else None)
    assert fused or gradients[3] is None
    step = 1e-4
    for name, gradient in zip(names, gradients, strict=False):
        slope = np.empty_like(gradient)
        for index in np.ndindex(slope.shape):
            value = a[name][index]
            # Fourth order: the error of the step stays below 1e-7.
            losses = []
            for k in (2, 1, -1, -2):
                a[name][index] = value + k * step
                losses.append(loss())
            a[name][index] = value
            far_up, up, down, far_down = losses
            slope[index] = (8 * (up - down) - (far_up - far_down)) / (12 * step)
        scale = max(1.0, np.abs(gradient).max())
        np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-7 * scale, err_msg=name)


@given(shape=shapes, fused=st.booleans(), seed=seeds)
def test_equals_pytorch_in_float64(shape: tuple[int, ...], fused: bool, seed: int) -> None:
    a = draw(shape, seed)
    names = ["x", "weight", "bias"] + (["residual"] if fused else [])
    t = {name: torch.tensor(a[name], requires_grad=True) for name in names}
    summed = t["x"] + t["residual"] if fused else t["x"]
    y = torch.nn.functional.layer_norm(summed, shape[-1:], t["weight"], t["bias"], EPS)
    loss = (y * torch.tensor(a["d_y"])).sum()
    if fused:
        loss = loss + (summed * torch.tensor(a["d_summed"])).sum()
    loss.backward()

    result, saved = layer_norm_forward(
        a["x"], a["weight"], a["bias"], residual=a["residual"] if fused else None, eps=EPS
    )
    if fused:
        np.testing.assert_allclose(result[1], summed.detach(), rtol=0, atol=0)
    np.testing.assert_allclose(result[0] if fused else result, y.detach(), rtol=1e-10, atol=1e-10)
    gradients = layer_norm_backward(saved, a["d_y"], a["d_summed"] if fused else None)
    for name, gradient in zip(names, gradients, strict=False):
        scale = max(1.0, np.abs(gradient).max())
        np.testing.assert_allclose(gradient, t[name].grad, rtol=0, atol=1e-10 * scale, err_msg=name)


@given(shape=shapes, seed=seeds)
def test_float32_stays_float32(shape: tuple[int, ...], seed: int) -> None:
    """Python-float scalars (Liger#1350): nor does a float64 scalar of NumPy leak in."""
    a = {name: array.astype(np.float32) for name, array in draw(shape, seed).items()}
    (y, summed), saved = layer_norm_forward(
        a["x"], a["weight"], a["bias"], residual=a["residual"], eps=np.float64(EPS)
    )
    gradients = layer_norm_backward(saved, a["d_y"], a["d_summed"])
    for array in (y, summed, *saved[:3], *gradients, *row_statistics_tiled(a["x"], 3)):
        assert array.dtype == np.float32


@given(shape=shapes, seed=seeds)
def test_rows_have_mean_0_and_variance_1(shape: tuple[int, ...], seed: int) -> None:
    x = draw(shape, seed)["x"]
    d_model = shape[-1]
    y = layer_norm(x, np.ones(d_model), np.zeros(d_model), eps=EPS)
    variance = x.var(axis=-1)
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-10)
    # Not quite 1: ε takes its share.
    np.testing.assert_allclose(y.var(axis=-1), variance / (variance + EPS), rtol=1e-9)


@given(
    shape=shapes, shift=st.floats(-100, 100), scale=st.sampled_from([0.5, 3.0, 40.0]), seed=seeds
)
def test_shift_and_scale_change_nothing(
    shape: tuple[int, ...], shift: float, scale: float, seed: int
) -> None:
    """Scaling x by s equals dividing ε by s²: exactly invariant but for ε."""
    a = draw(shape, seed)
    y = layer_norm(a["x"], a["weight"], a["bias"], eps=EPS)
    moved = layer_norm(a["x"] * scale + shift, a["weight"], a["bias"], eps=EPS * scale**2)
    np.testing.assert_allclose(moved, y, rtol=0, atol=1e-8)


@given(shape=shapes, seed=seeds)
def test_gradient_of_x_ignores_shift_and_scale(shape: tuple[int, ...], seed: int) -> None:
    """d_x sums to 0 over features, and its component along the normalised row is what ε leaves."""
    a = draw(shape, seed)
    _, saved = layer_norm_forward(a["x"], a["weight"], a["bias"], eps=EPS)
    normalised, rstd = saved[0], saved[1][..., 0]
    d_x = layer_norm_backward(saved, a["d_y"])[0]
    scale = 1 + np.abs(d_x).max(axis=-1)
    assert np.all(np.abs(d_x.sum(axis=-1)) <= 1e-9 * scale)
    # Σ x̂² is n·(1 − ε·r²), not n: that much of mean(g·x̂) is not subtracted.
    left_by_eps = EPS * rstd**3 * (a["d_y"] * a["weight"] * normalised).sum(axis=-1)
    assert np.all(np.abs((d_x * normalised).sum(axis=-1) - left_by_eps) <= 1e-9 * scale)


@given(shape=shapes, seed=seeds)
def test_fused_is_add_then_normalise(shape: tuple[int, ...], seed: int) -> None:
    a = draw(shape, seed)
    y, summed = layer_norm(a["x"], a["weight"], a["bias"], residual=a["residual"])
    np.testing.assert_array_equal(summed, a["x"] + a["residual"])
    np.testing.assert_array_equal(y, layer_norm(summed, a["weight"], a["bias"]))
    _, saved = layer_norm_forward(a["x"], a["weight"], a["bias"], residual=a["residual"])
    d_x, _, _, d_residual = layer_norm_backward(saved, a["d_y"], a["d_summed"])
    np.testing.assert_array_equal(d_residual, d_x)
    # None is a cotangent of zeros
    without = layer_norm_backward(saved, a["d_y"])[0]
    np.testing.assert_array_equal(without, layer_norm_backward(saved, a["d_y"], np.zeros(shape))[0])


@given(shape=shapes, block=st.integers(1, 15), offset=st.sampled_from([0, 10, 1e4]), seed=seeds)
def test_tiled_statistics_are_the_statistics(
    shape: tuple[int, ...], block: int, offset: float, seed: int
) -> None:
    x = draw(shape, seed)["x"] + offset
    for tiled, defined in zip(row_statistics_tiled(x, block), row_statistics(x), strict=True):
        np.testing.assert_allclose(tiled, defined, rtol=1e-9, atol=1e-9)


def test_tiled_statistics_survive_a_large_mean() -> None:
    """In float32 at mean 10⁴, E[x²] − E[x]² has no digit left; the tiled loop keeps five."""
    x = np.random.default_rng(0).normal(1e4, 1, size=(3, 4096)).astype(np.float32)
    _, variance = row_statistics_tiled(x, 1024)
    _, exact = row_statistics(x.astype(np.float64))
    np.testing.assert_allclose(variance, exact, rtol=1e-5)
    naive = np.square(x).mean(axis=-1, keepdims=True) - np.square(x.mean(axis=-1, keepdims=True))
    assert np.abs(naive / exact - 1).max() > 0.1


@pytest.mark.parametrize("value", [0.0, 1.0, -1e4, 12345.678])
def test_constant_row_gives_the_bias(value: float) -> None:
    a = draw((2, 9), 0)
    y = layer_norm(np.full((2, 9), value), a["weight"], a["bias"])
    np.testing.assert_allclose(y, np.broadcast_to(a["bias"], (2, 9)), atol=1e-8)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4)])
def test_empty_batch(shape: tuple[int, ...]) -> None:
    a = draw(shape, 0)
    (y, summed), saved = layer_norm_forward(a["x"], a["weight"], a["bias"], residual=a["residual"])
    assert y.shape == summed.shape == shape
    d_x, d_weight, d_bias, d_residual = layer_norm_backward(saved, a["d_y"], a["d_summed"])
    assert d_x.shape == d_residual.shape == shape
    np.testing.assert_array_equal(d_weight, np.zeros(4))
    np.testing.assert_array_equal(d_bias, np.zeros(4))


def test_bad_arguments_are_named() -> None:
    x, four = np.ones((2, 4)), np.ones(4)
    with pytest.raises(ValueError, match=r"^x: expected at least 1 feature .* got shape \(2, 0\)"):
        layer_norm(np.ones((2, 0)), np.ones(0), np.ones(0))
    with pytest.raises(ValueError, match=r"^x: expected at least 1 dimensions \[..., d_model\]"):
        layer_norm(np.float64(1), four, four)
    with pytest.raises(ValueError, match=r"^weight: expected shape \(4,\), got shape \(2,\)"):
        layer_norm(x, np.ones(2), four)
    with pytest.raises(ValueError, match=r"^bias: expected shape \(4,\), got shape \(1, 4\)"):
        layer_norm(x, four, np.ones((1, 4)))
    with pytest.raises(ValueError, match=r"^residual: expected shape \(2, 4\), got shape \(4,\)"):
        layer_norm(x, four, four, residual=four)
    for eps in (0.0, -1e-5, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"^eps: expected a finite number above 0"):
            layer_norm(x, four, four, eps=eps)
    _, saved = layer_norm_forward(x, four, four)
    with pytest.raises(ValueError, match=r"^d_y: expected shape \(2, 4\)"):
        layer_norm_backward(saved, four)
    with pytest.raises(ValueError, match=r"^d_summed: expected None without a residual"):
        layer_norm_backward(saved, x, x)
    _, saved = layer_norm_forward(x, four, four, residual=x)
    with pytest.raises(ValueError, match=r"^d_summed: expected shape \(2, 4\)"):
        layer_norm_backward(saved, x, four)
    with pytest.raises(ValueError, match=r"^block: expected a finite number above 0"):
        row_statistics_tiled(x, 0)
