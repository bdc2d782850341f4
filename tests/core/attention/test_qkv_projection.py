"""What the reference of the QKV projection promises: the plain product, cut into heads."""

import numpy as np
import pytest

from gptwin.core.attention.qkv_projection import (
    qkv_projection,
    qkv_projection_backward,
    qkv_projection_forward,
)
from gptwin.core.layers.layer_norm import layer_norm


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_each_head_is_its_own_columns():
    """Two query heads, one key head, one value head, of three columns each."""
    x, w, b = draw(2, 5, 6), draw(6, 12, seed=1), draw(12, seed=2)
    packed = qkv_projection(x, w, b, n_head=2, n_kv_head=1)
    assert packed.shape == (4, 2, 5, 3)
    for head in range(4):
        columns = slice(3 * head, 3 * head + 3)
        np.testing.assert_allclose(packed[head], x @ w[:, columns] + b[columns], atol=1e-14)


def test_by_default_queries_keys_and_values_have_as_many_heads():
    packed = qkv_projection(draw(1, 4, 6), draw(6, 18, seed=1), n_head=2)
    assert packed.shape == (6, 1, 4, 3)
    # GPT-2's order: the first third of the columns are all the queries
    product = draw(1, 4, 6) @ draw(6, 18, seed=1)
    np.testing.assert_allclose(packed[2, 0], product[0, :, 6:9], atol=1e-14)


def test_the_norm_comes_first():
    x, w = 5 + 3 * draw(2, 5, 6), draw(6, 9, seed=1)
    norm = draw(6, seed=2), draw(6, seed=3)
    fused = qkv_projection(x, w, None, *norm, n_head=1, eps=1e-3)
    apart = qkv_projection(layer_norm(x, *norm, eps=1e-3), w, n_head=1)
    np.testing.assert_array_equal(fused, apart)
    # and so moving or stretching a row changes nothing (up to eps)
    moved = qkv_projection(100 * x + 7, w, None, *norm, n_head=1)
    np.testing.assert_allclose(moved, fused, atol=1e-2)


def test_gradients_are_none_where_there_is_no_input():
    packed, saved = qkv_projection_forward(draw(1, 2, 3), draw(3, 3), n_head=1)
    d_x, d_w, *others = qkv_projection_backward(saved, np.ones_like(packed))
    assert d_x.shape == (1, 2, 3) and d_w.shape == (3, 3) and others == [None, None, None]


def test_nothing_gives_nothing():
    for shape in ((0, 4, 6), (2, 0, 6)):
        packed, saved = qkv_projection_forward(draw(*shape), draw(6, 9), draw(9), n_head=1)
        assert packed.shape == (3, *shape[:2], 3)
        d_x, d_w, d_b, *_ = qkv_projection_backward(saved, packed)
        assert d_x.shape == shape and not d_w.any() and not d_b.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": draw(5, 6)}, r"x: expected shape \[batch, time, d_model\], got shape \(5, 6\)"),
        ({"n_kv_head": 3}, "n_kv_head: expected a divisor of n_head = 2"),
        ({"n_head": 0}, "n_kv_head: expected a divisor of n_head = 0"),
        ({"w_qkv": draw(6, 13)}, "w_qkv: expected columns for 2 query and 2 x 2 key and value"),
        ({"w_qkv": draw(12, 6)}, r"w_qkv: expected shape \(6, d_out\).*Linear weight"),
        ({"w_qkv": draw(6)}, "w_qkv: expected 2 dimensions"),
        ({"b_qkv": draw(6)}, r"b_qkv: expected shape \(12,\)"),
        ({"norm_weight": draw(6)}, "norm_bias: expected norm_weight and norm_bias, or neither"),
        ({"norm_weight": draw(5), "norm_bias": draw(6)}, r"norm_weight: expected shape \(6,\)"),
        ({"eps": 0.0}, "eps: expected a finite number above 0"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"x": draw(2, 5, 6), "w_qkv": draw(6, 12), "n_head": 2}
    with pytest.raises(ValueError, match=message):
        qkv_projection(**(arguments | change))
