"""The reference softmax: what any softmax promises, and that each step of the climb is equal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.layers.softmax import softmax, softmax_backward, softmax_forward, softmax_online

rows = st.tuples(st.integers(1, 4), st.integers(1, 50), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.default_rng(t[2]).normal(0, 5, size=t[:2])
)


@given(rows)
def test_rows_sum_to_one(x):
    np.testing.assert_allclose(softmax(x).sum(axis=-1), 1, atol=1e-14)


@given(rows, st.floats(-1e6, 1e6))
def test_a_shift_changes_nothing(x, shift):
    np.testing.assert_allclose(softmax(x + shift), softmax(x), atol=1e-9)


@given(rows, st.integers(1, 60), st.sampled_from([1.0, 0.2]))
def test_online_equals_definition(x, block, scale):
    np.testing.assert_allclose(
        softmax_online(x, block, scale=scale), softmax(x, scale=scale), atol=1e-15
    )


def test_online_equals_definition_where_the_first_blocks_see_nothing():
    x = np.array([[-np.inf, -np.inf, -np.inf, 1.0, 2.0], [-np.inf] * 5])
    np.testing.assert_allclose(softmax_online(x, 2), softmax(x), atol=1e-16)


def test_known_values():
    np.testing.assert_allclose(
        softmax(np.log(np.array([1.0, 2.0, 5.0]))), [1 / 8, 2 / 8, 5 / 8], atol=1e-15
    )


def test_causal_is_aligned_at_the_bottom_right():
    seen = softmax(np.zeros((1, 2, 4)), causal=True) > 0
    np.testing.assert_array_equal(seen[0], [[1, 1, 1, 0], [1, 1, 1, 1]])
    # More queries than keys: the first ones see nothing, and give zeros.
    p = softmax(np.zeros((1, 3, 2)), causal=True)
    np.testing.assert_array_equal(p[0], [[0, 0], [1, 0], [0.5, 0.5]])


def test_key_mask_hides_keys_of_its_batch_alone():
    mask = np.array([[True, False, True], [False, False, False]])
    p = softmax(np.zeros((2, 1, 1, 3)), key_mask=mask)
    np.testing.assert_array_equal(p[:, 0, 0], [[0.5, 0, 0.5], [0, 0, 0]])


def test_a_row_that_sees_nothing_has_zero_gradient():
    _, saved = softmax_forward(np.full((1, 3), -np.inf))
    np.testing.assert_array_equal(softmax_backward(saved, np.ones((1, 3))), np.zeros((1, 3)))


@pytest.mark.filterwarnings("ignore:overflow")  # −∞ is what the difference should become
def test_huge_logits_do_not_overflow():
    np.testing.assert_array_equal(softmax(np.array([1e308, -1e308, 0.0]), scale=10.0), [1, 0, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0.0}, "scale: expected a finite number above 0, got 0.0"),
        ({"scale": float("nan")}, "scale: expected a finite number above 0, got nan"),
        ({"key_mask": np.zeros((2, 3))}, "key_mask: expected dtype bool"),
        ({"key_mask": np.zeros((2, 4), bool)}, r"key_mask: expected shape \(2, 3\), got shape"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        softmax(np.zeros((2, 1, 3)), **arguments)


def test_causal_needs_a_query_axis():
    with pytest.raises(ValueError, match=r"x: expected at least 2 dimensions \[batch, ..., query"):
        softmax(np.zeros(3), causal=True)


def test_gradient_of_another_shape_is_refused():
    _, saved = softmax_forward(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"d_probabilities: expected shape \(2, 3\)"):
        softmax_backward(saved, np.zeros((2, 4)))
