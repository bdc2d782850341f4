"""The reference GELU."""

import math

import numpy as np
import pytest

from gptwin.core.layers.gelu import gelu, gelu_backward, gelu_forward


def test_known_values():
    assert gelu(np.array([1.0]), approximate="erf")[0] == pytest.approx(0.8413447460685429)
    assert gelu(np.array([1.0]))[0] == pytest.approx(0.8411919906082768)
    np.testing.assert_array_equal(gelu(np.array([0.0, 100.0, -100.0])), [0, 100, 0])


def test_the_two_forms_differ_by_what_the_literature_says():
    x = np.linspace(-6, 6, 100_001)
    difference = np.abs(gelu(x, approximate="tanh") - gelu(x, approximate="erf")).max()
    assert difference == pytest.approx(4.73e-4, rel=1e-3)


@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_odd_part_is_half_of_x(form):
    """g(x) + g(−x) = 1, so gelu(x) − gelu(−x) = x."""
    x = np.linspace(-8, 8, 1001)
    np.testing.assert_allclose(
        gelu(x, approximate=form) - gelu(-x, approximate=form), x, atol=1e-15
    )


@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_far_from_zero_nothing_overflows(form):
    x = np.array([1e300, -1e300, 1e10, -1e10])
    y, saved = gelu_forward(x, approximate=form)
    np.testing.assert_allclose(y, [1e300, 0, 1e10, 0], atol=1e-200)
    np.testing.assert_allclose(gelu_backward(saved, np.ones(4)), [1, 0, 1, 0], atol=1e-200)


def test_slope_at_zero_is_one_half():
    _, saved = gelu_forward(np.zeros(1))
    assert gelu_backward(saved, np.ones(1))[0] == 0.5
    assert math.isclose(
        gelu_backward(gelu_forward(np.zeros(1), approximate="erf")[1], np.ones(1))[0], 0.5
    )


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="approximate: expected 'tanh' or 'erf', got 'none'"):
        gelu(np.zeros(1), approximate="none")
