"""The reference linear."""

import numpy as np
import pytest

from gptwin.core.layers.gelu import gelu
from gptwin.core.layers.linear import linear, linear_backward, linear_forward


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


def test_known_values():
    x, weight = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0, -1.0], [3.0, 1.0, 0.0]])
    np.testing.assert_array_equal(linear(x, weight, np.array([0.0, 1.0, 2.0])), [[7, 3, 1]])


def test_activation_comes_before_the_residual():
    x, weight, bias, residual = arrays((2, 3, 4), (4, 5), (5,), (2, 3, 5))
    y = linear(x, weight, bias, activation="gelu", residual=residual)
    np.testing.assert_allclose(y, residual + gelu(x @ weight + bias), atol=1e-15)


def test_gradients_of_absent_inputs_are_none():
    x, weight = arrays((2, 4), (4, 5))
    _, saved = linear_forward(x, weight)
    assert linear_backward(saved, np.ones((2, 5)))[2:] == (None, None)


def test_no_rows_give_zero_weight_gradients():
    x, weight, bias = arrays((0, 4), (4, 5), (5,))
    y, saved = linear_forward(x, weight, bias)
    assert y.shape == (0, 5)
    _, d_weight, d_bias, _ = linear_backward(saved, y)
    assert not d_weight.any() and not d_bias.any()


def test_a_transposed_weight_is_recognised():
    x, weight = arrays((2, 4), (5, 4))
    with pytest.raises(ValueError, match=r"weight: expected shape \(4, d_out\).*pass weight.T"):
        linear(x, weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bias": np.zeros(4)}, r"bias: expected shape \(5,\), got shape \(4,\)"),
        ({"residual": np.zeros((2, 4))}, r"residual: expected shape \(2, 5\)"),
        ({"activation": "relu"}, "activation: expected None or 'gelu', got 'relu'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    x, weight = arrays((2, 4), (4, 5))
    with pytest.raises(ValueError, match=message):
        linear(x, weight, **arguments)
