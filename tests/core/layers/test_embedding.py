"""The reference embedding: lookups, their transpose, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.layers.embedding import (
    embedding,
    embedding_backward,
    embedding_forward,
    scatter_add,
    scatter_add_sorted,
)

RNG = np.random.default_rng(0)
TOKENS = np.array([[2, 0, 2], [1, 1, 2]])
TOKEN_TABLE, POSITION_TABLE = RNG.normal(size=(5, 4)), RNG.normal(size=(6, 4))


def test_each_row_is_its_token_plus_its_place():
    y = embedding(TOKENS, TOKEN_TABLE, POSITION_TABLE)
    for b, t in np.ndindex(2, 3):
        np.testing.assert_array_equal(y[b, t], TOKEN_TABLE[TOKENS[b, t]] + POSITION_TABLE[t])


def test_given_positions_replace_the_count():
    padded = np.array([[0, 0, 1], [0, 1, 2]])
    y = embedding(TOKENS, TOKEN_TABLE, POSITION_TABLE, positions=padded)
    np.testing.assert_array_equal(y[0, 2], TOKEN_TABLE[2] + POSITION_TABLE[1])


def test_a_row_gets_the_sum_of_its_uses_and_an_unused_row_nothing():
    _, saved = embedding_forward(TOKENS, TOKEN_TABLE, POSITION_TABLE)
    d_y = RNG.normal(size=(2, 3, 4))
    d_token_table, d_position_table = embedding_backward(saved, d_y)
    np.testing.assert_allclose(d_token_table[2], d_y[0, 0] + d_y[0, 2] + d_y[1, 2], atol=1e-15)
    assert not d_token_table[3:].any()
    np.testing.assert_allclose(d_position_table[:3], d_y.sum(axis=0), atol=1e-15)
    assert not d_position_table[3:].any()


@given(
    st.lists(st.integers(0, 6), max_size=60),
    st.integers(1, 9),
    st.booleans(),
)
def test_sorted_sums_equal_the_definition(ids, chunk, hot):
    ids = np.array(ids, dtype=np.int64) * (0 if hot else 1)
    rows = np.random.default_rng(len(ids)).normal(size=(len(ids), 3))
    np.testing.assert_allclose(
        scatter_add_sorted(ids, rows, 8, chunk), scatter_add(ids, rows, 8), atol=1e-13
    )


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_no_tokens_give_nothing_and_no_gradient(shape):
    y, saved = embedding_forward(np.zeros(shape, int), TOKEN_TABLE, POSITION_TABLE)
    assert y.shape == (*shape, 4)
    assert not any(gradient.any() for gradient in embedding_backward(saved, y))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": TOKENS - 1}, r"tokens: expected 0 to 4, got -1 at \(0, 1\)"),
        ({"tokens": TOKENS + 3}, r"tokens: expected 0 to 4, got 5 at \(0, 0\) .*tokenizer"),
        ({"tokens": TOKENS.astype(float)}, "tokens: expected integers, got dtype float64"),
        ({"tokens": TOKENS[0]}, r"tokens: expected 2 dimensions .*batch axis"),
        ({"tokens": np.zeros((1, 7), int)}, "time of at most n_ctx = 6, got time 7"),
        ({"positions": TOKENS * 3}, r"positions: expected 0 to 5, got 6 at \(0, 0\)"),
        ({"positions": TOKENS[:1]}, r"positions: expected shape \(2, 3\)"),
        ({"positions": TOKENS > 0}, "positions: expected integers, got dtype bool"),
        ({"position_table": POSITION_TABLE.T}, r"position_table: expected shape \(4, 4\)"),
        ({"token_table": TOKEN_TABLE[0]}, "token_table: expected 2 dimensions"),
    ],
)
def test_bad_input_is_refused_by_name(changes, message):
    arguments = {"tokens": TOKENS, "token_table": TOKEN_TABLE, "position_table": POSITION_TABLE}
    with pytest.raises(ValueError, match=message):
        embedding(**arguments | changes)


def test_bad_gradient_and_bad_chunk_are_refused_by_name():
    _, saved = embedding_forward(TOKENS, TOKEN_TABLE, POSITION_TABLE)
    with pytest.raises(ValueError, match="d_y: expected shape"):
        embedding_backward(saved, np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="chunk: expected a finite number above 0"):
        scatter_add_sorted(TOKENS.reshape(-1), np.zeros((6, 1)), 3, 0)
