"""What the reference of QKV attention promises: projection, then attention, then heads merged."""

import numpy as np
import pytest

from gptwin.core.attention.attention import attention
from gptwin.core.attention.decode_attention import decode_attention
from gptwin.core.attention.qkv_attention import qkv_attention, split_packed
from gptwin.core.attention.qkv_projection import qkv_projection


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


X, W, B = draw(2, 7, 6), draw(6, 24, seed=1), draw(24, seed=2)


def test_heads_lie_side_by_side_in_their_order():
    """Four query heads on two key heads: head h of the result is attention of query head h."""
    result = qkv_attention(X, W, B, n_head=4, n_kv_head=2, window=3)
    product = X @ W + B  # 8 heads of 3 columns: 4 query, 2 key, 2 value
    for head in range(4):
        query, key, value = (
            product[:, None, :, 3 * i : 3 * i + 3] for i in (head, 4 + head // 2, 6 + head // 2)
        )
        expected, _ = attention(query, key, value, causal=True, window=3)
        np.testing.assert_allclose(
            result[:, :, 3 * head : 3 * head + 3], expected[:, 0], atol=1e-13
        )


def test_causal_unless_said_otherwise():
    longer = np.concatenate([X, draw(2, 2, 6, seed=3)], axis=1)
    result = qkv_attention(longer, W, B, n_head=2)
    np.testing.assert_allclose(result[:, :7], qkv_attention(X, W, B, n_head=2), atol=1e-13)
    both_ways = qkv_attention(longer, W, B, n_head=2, causal=False)
    assert np.abs(both_ways[:, 0] - result[:, 0]).max() > 1e-3


def test_a_prefill_into_a_cache_and_one_step_give_the_last_row():
    packed = qkv_projection(X, W, B, n_head=4, n_kv_head=2)
    query, key, value = split_packed(packed, 4)
    assert np.shares_memory(query, packed) and np.shares_memory(value, packed)
    output, _ = decode_attention(query[:, :, -1:], key, value, np.array([7, 7]))
    result = qkv_attention(X, W, B, n_head=4, n_kv_head=2)
    np.testing.assert_allclose(output.reshape(2, 12), result[:, -1], atol=1e-13)


def test_padding_on_the_left_changes_nothing():
    padded = np.concatenate([np.full((2, 3, 6), 9.0), X], axis=1)
    result = qkv_attention(padded, W, B, n_head=2, key_start=np.array([3, 3]))
    np.testing.assert_allclose(result[:, 3:], qkv_attention(X, W, B, n_head=2), atol=1e-13)
    assert not result[:, :3].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_head": 5}, "w_qkv: expected columns for 5 query"),
        ({"window": 2, "causal": False}, "window: expected causal=True"),
        ({"key_start": np.array([1])}, r"key_start: expected shape \(2,\)"),
        ({"dropout": 1.0}, "dropout: expected a probability"),
        ({"scale": -1.0}, "scale: expected a finite number above 0"),
        ({"x": X[0]}, r"x: expected shape \[batch, time, d_model\]"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        qkv_attention(**({"x": X, "w_qkv": W, "n_head": 2} | change))
