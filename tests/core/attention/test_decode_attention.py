"""What the reference of decode attention promises: the last rows of full attention, in pieces."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.attention.attention import attention
from gptwin.core.attention.decode_attention import combine, decode_attention, decode_attention_split

sizes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 3),
        "n_kv_head": st.integers(1, 2),
        "group": st.integers(1, 3),
        "n_query": st.integers(1, 4),
        "capacity": st.integers(1, 12),
        "window": st.sampled_from([None, 1, 3]),
        "padded": st.booleans(),
        "seed": st.integers(0, 2**32 - 1),
    }
)


def draw(batch, n_kv_head, group, n_query, capacity, window, padded, seed):
    """Return arguments and options; the cache beyond each length is NaN."""
    rng = np.random.default_rng(seed)
    query = rng.normal(size=(batch, n_kv_head * group, n_query, 5))
    key, value = rng.normal(size=(2, batch, n_kv_head, capacity, 5))
    lengths = rng.integers(0, capacity + 1, batch)
    empty = (np.arange(capacity) >= lengths[:, None])[:, None, :, None]
    options = {"window": window, "key_start": rng.integers(0, 3, batch) if padded else None}
    key, value = np.where(empty, np.nan, key), np.where(empty, np.nan, value)
    return (query, key, value, lengths), options


@given(sizes)
def test_it_is_the_last_rows_of_full_attention(case):
    (query, key, value, lengths), options = draw(**case)
    output, lse = decode_attention(query, key, value, lengths, **options)
    for b, length in enumerate(lengths):
        if length < case["n_query"]:  # some queries stand before the start of their sequence
            continue
        key_start = options["key_start"]
        expected = attention(
            query[b : b + 1],
            key[b : b + 1, :, :length],
            value[b : b + 1, :, :length],
            causal=True,
            window=options["window"],
            key_start=None if key_start is None else key_start[b : b + 1],
        )
        np.testing.assert_allclose(output[b], expected[0][0], atol=1e-13)
        np.testing.assert_allclose(lse[b], expected[1][0], atol=1e-13)


@given(sizes, st.integers(1, 15))
def test_pieces_give_the_same(case, n_splits):
    arguments, options = draw(**case)
    expected = decode_attention(*arguments, **options)
    for piecewise, whole in zip(
        decode_attention_split(*arguments, n_splits, **options), expected, strict=True
    ):
        np.testing.assert_allclose(piecewise, whole, atol=1e-13)


@given(sizes)
def test_what_nobody_sees_does_not_matter(case):
    arguments, options = draw(**case)
    query, key, value, lengths = arguments
    clean = decode_attention(query, np.nan_to_num(key), np.nan_to_num(value), lengths, **options)
    for actual, expected in zip(decode_attention(*arguments, **options), clean, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_worked_by_hand():
    """Scores ln 1 and ln 3: weights ¼ and ¾, lse ln 4."""
    query = np.ones((1, 1, 1, 1))
    key = np.log([1.0, 3.0]).reshape(1, 1, 2, 1)
    value = np.array([8.0, 4.0]).reshape(1, 1, 2, 1)
    output, lse = decode_attention(query, key, value, np.array([2]))
    assert output.item() == pytest.approx(5.0) and lse.item() == pytest.approx(math.log(4))


def test_a_query_that_sees_nothing_gives_zero_and_minus_infinity():
    query, cache = np.ones((3, 2, 2, 4)), np.ones((3, 1, 6, 4))
    lengths, key_start = np.array([0, 1, 6]), np.array([0, 0, 6])
    output, lse = decode_attention(query, cache, cache, lengths, key_start=key_start)
    nothing = np.array([[True, True], [True, False], [True, True]])[:, None].repeat(2, 1)
    assert not output[nothing].any() and np.isneginf(lse[nothing]).all()
    assert np.isfinite(lse[~nothing]).all()


def test_combining_nothing_with_something_changes_nothing():
    output, lse = combine(np.array([[0.0], [3.0]]), np.array([-np.inf, 800.0]))
    assert output.item() == 3 and lse.item() == 800
    output, lse = combine(np.zeros((2, 1)), np.full(2, -np.inf))
    assert output.item() == 0 and np.isneginf(lse)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": np.ones((2, 4, 5))}, r"query: expected shape \[batch, head, query, d_head\]"),
        ({"key_cache": np.ones((2, 3, 8, 5))}, "key_cache: expected a number of heads that div"),
        ({"key_cache": np.ones((2, 2, 8, 6))}, r"key_cache: expected shape \(2, 2, 8, 5\)"),
        ({"value_cache": np.ones((2, 2, 7, 5))}, r"value_cache: expected shape \(2, 2, 8, 5\)"),
        ({"lengths": np.ones(2)}, "lengths: expected integers, got dtype float64"),
        ({"lengths": np.array([3, 9])}, "numbers from 0 to the cache's capacity 8, got .* 3 to 9"),
        ({"lengths": np.array([-1, 8])}, "lengths: expected numbers from 0"),
        ({"lengths": np.array([1])}, r"lengths: expected shape \(2,\)"),
        ({"key_start": np.array([1, 2, 3])}, r"key_start: expected shape \(2,\)"),
        ({"scale": 0.0}, "scale: expected a finite number above 0"),
        ({"window": 0}, "window: expected at least 1"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {
        "query": np.ones((2, 4, 1, 5)),
        "key_cache": np.ones((2, 2, 8, 5)),
        "value_cache": np.ones((2, 2, 8, 5)),
        "lengths": np.array([3, 8]),
    }
    with pytest.raises(ValueError, match=message):
        decode_attention(**(arguments | change))
