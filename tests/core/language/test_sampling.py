"""The reference sampling: its integers, its filters, its distribution and its edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.language.sampling import (
    MAX_VOCAB,
    draw_target,
    keep,
    keep_by_threshold,
    sampling,
    share_of,
    sortable,
    units,
    weights,
)
from gptwin.core.philox import philox

VECTOR = np.array([[1, 1.01, 1.001, 0, 0, 0, 2]], np.float32)

logits = st.builds(
    lambda rows, vocab, grid, seed: (
        np.round(np.random.default_rng(seed).normal(0, 3, (rows, vocab)) * grid) / grid
    ).astype(np.float32),
    *(st.integers(1, 4), st.integers(1, 60), st.sampled_from([1, 4, 1000]), st.integers(0, 10**6)),
)
filters = st.tuples(
    st.one_of(st.none(), st.integers(1, 70)), st.one_of(st.none(), st.floats(1e-12, 1))
)


def kept(x, **filtered):
    return set(
        np.flatnonzero(keep(x, weights(x, 1.0), **{"top_k": None, "top_p": None} | filtered))
    )


# --- weights -------------------------------------------------------------------------------------


@given(logits, st.sampled_from([0.3, 1.0, 10.0]))
def test_weights_are_the_exponentials(x, temperature):
    exact = np.exp((x.astype(float) - x.max(axis=1, keepdims=True)) / temperature) * 2.0**40
    # 2⁻²⁴ of the exponent is lost twice, and one unit
    np.testing.assert_allclose(weights(x, temperature), exact, rtol=1e-5, atol=1)


def test_weights_near_the_likeliest_are_exact_to_1e_7():
    x = -np.linspace(0, 1, 10_001, dtype=np.float32)[None]
    exact = np.exp(x.astype(float)) * 2.0**40
    assert weights(x, 1.0)[0, 0] == 2**40
    np.testing.assert_allclose(weights(x, 1.0), exact, rtol=1.5e-7)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [1e-320, 1e-40, 1e40, 1e300])
def test_no_temperature_overflows(temperature):
    x = np.array([[3.0, 3.0, 2.5, -np.inf]], np.float32)
    near = 2**40 if temperature > 1 else 0
    assert weights(x, temperature).tolist() == [[2**40, 2**40, near, 0]]
    tokens, log_prob = sampling(x, temperature=temperature)
    assert tokens[0] < 3 and np.isfinite(log_prob).all()


# --- filters -------------------------------------------------------------------------------------


@given(logits, filters)
def test_the_threshold_finds_what_sorting_finds(x, filtered):
    w = weights(x, 1.0)
    np.testing.assert_array_equal(keep_by_threshold(x, w, *filtered), keep(x, w, *filtered))


@given(logits, filters)
def test_what_is_kept_is_smallest(x, filtered):
    top_k, top_p = filtered
    w = weights(x, 1.0)
    chosen = keep(x, w, top_k, top_p)
    among = keep(x, w, top_k, None)
    if top_k is not None:
        assert (among.sum(axis=1) == min(top_k, x.shape[1])).all()
    if top_p is not None:
        for row in range(len(x)):
            need = share_of(w[row][among[row]].sum(), top_p)
            mass = w[row][chosen[row]].sum()
            least = w[row][chosen[row]].min()
            assert mass - least < need <= mass


def test_nucleus_of_the_published_logits():
    """OpenAI's rule (cumulative at most p) gives the published sets; the nucleus has one more."""
    p = np.exp(VECTOR[0].astype(float))
    order = np.argsort(-VECTOR[0], kind="stable")
    cumulative = np.cumsum((p / p.sum())[order])
    for top_p, published in ((0.7, {1, 2, 6}), (0.6, {1, 6}), (0.5, {6})):
        assert set(order[cumulative <= top_p]) == published
        assert kept(VECTOR, top_p=top_p) == published | {order[len(published)]}


def test_ties_are_cut_at_the_first():
    even = np.zeros((1, 8), np.float32)
    assert kept(even, top_k=3) == {0, 1, 2}
    assert kept(even, top_p=0.5) == {0, 1, 2, 3}
    assert kept(even, top_p=0.51) == {0, 1, 2, 3, 4}
    assert kept(even, top_k=4, top_p=0.5) == {0, 1}
    zeros = np.array([[-0.0, 0.0, -1.0]], np.float32)
    assert kept(zeros, top_k=1) == {0}


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=9))
def test_sortable_sorts(numbers):
    x = np.array(numbers, np.float32)
    floats, keys = np.sort(x), np.sort(sortable(x))
    np.testing.assert_array_equal(floats[1:] > floats[:-1], keys[1:] > keys[:-1])
    np.testing.assert_array_equal(
        np.argsort(x, kind="stable"), np.argsort(sortable(x), kind="stable")
    )


@given(st.integers(1, 2**60), st.floats(1e-12, 1))
def test_shares_are_exact(total, top_p):
    assert share_of(np.array([total]), top_p)[0] == -(-units(top_p) * total // 2**31)


@given(st.integers(1, MAX_VOCAB * 2**40), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_draw_targets_are_exact_and_below_the_total(total, seed, step):
    high, low = (int(word[0]) >> 1 for word in philox(seed, np.arange(1), step, 0, 0)[:2])
    target = draw_target(np.array([total]), seed, step)[0]
    assert target == (high << 31 | low) * total >> 62 < total


# --- the draw ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"top_p": 0.8}, {"top_k": 4, "temperature": 2.0}])
def test_tokens_are_drawn_as_often_as_their_probability_says(options):
    n = 40_000
    x = np.random.default_rng(3).normal(size=(1, 12)).astype(np.float32)
    tokens, _ = sampling(np.repeat(x, n, axis=0), **options, seed=11, step=4)
    w = weights(x, options.get("temperature", 1.0))
    chosen = keep(x, w, options.get("top_k"), options.get("top_p"))[0]
    expected = n * np.where(chosen, w[0], 0) / w[0][chosen].sum()
    counts = np.bincount(tokens, minlength=12)
    assert not counts[~chosen].any()
    chi_square = ((counts - expected)[chosen] ** 2 / expected[chosen]).sum()
    # at most 11 degrees of freedom: exceeded once in 10,000
    assert chi_square < 37.4


def test_rows_and_steps_and_seeds_draw_apart_and_again_the_same():
    x = np.zeros((500, 1000), np.float32)
    first = sampling(x, seed=1, step=1)[0]
    assert len(set(first)) > 350
    np.testing.assert_array_equal(first, sampling(x, seed=1, step=1)[0])
    for other in ({"seed": 2, "step": 1}, {"seed": 1, "step": 2}):
        assert (first == sampling(x, **other)[0]).mean() < 0.02


def test_filters_that_keep_everything_change_nothing():
    x = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    plain = sampling(x, seed=3)
    for options in ({"top_k": 20}, {"top_k": 99}, {"top_p": 1.0}, {"top_k": 20, "top_p": 1}):
        for one, other in zip(plain, sampling(x, **options, seed=3), strict=True):
            np.testing.assert_array_equal(one, other)


def test_top_k_1_and_temperature_0_take_the_first_of_the_likeliest():
    x = np.array([[0, 2, 1, 2], [5, 5, 5, 5]], np.float64)
    for options in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}):
        tokens, log_prob = sampling(x, **options, seed=9)
        assert tokens.tolist() == [1, 0]
        exact = 2 - np.log(1 + 2 * np.e**2 + np.e), -np.log(4)
        np.testing.assert_allclose(log_prob, exact, rtol=1e-14)


def test_log_prob_is_of_the_whole_softmax_at_the_temperature():
    x = np.random.default_rng(1).normal(size=(30, 9))
    tokens, log_prob = sampling(x, temperature=0.7, top_k=2, top_p=0.9, seed=2)
    p = np.exp(x / 0.7)
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(log_prob, np.log(p[np.arange(30), tokens]), rtol=1e-12)
    assert (log_prob <= 0).all()


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.999}, {"temperature": 0}])
def test_banned_tokens_are_never_drawn(options):
    x = np.full((300, 6), -np.inf)
    x[:, 4] = -1e30
    x[::2, 2] = -1e30
    tokens, _ = sampling(x, **options, seed=1)
    assert set(tokens[1::2]) == {4} and set(tokens[::2]) <= {2, 4}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 0}])
def test_a_row_to_draw_nothing_from_says_so_and_spoils_no_other(options):
    x = np.random.default_rng(0).normal(size=(5, 4))
    sound = sampling(x, **options, seed=6)
    x[1], x[2, 3], x[3, 0] = -np.inf, np.nan, np.inf
    tokens, log_prob = sampling(x, **options, seed=6)
    assert tokens[1:4].tolist() == [-1] * 3 and np.isnan(log_prob[1:4]).all()
    for one, other in zip(sound, (tokens, log_prob), strict=True):
        np.testing.assert_array_equal(one[[0, 4]], other[[0, 4]])


def test_no_rows_give_none():
    tokens, log_prob = sampling(np.zeros((0, 5)))
    assert tokens.shape == log_prob.shape == (0,) and tokens.dtype == np.int64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature: expected a finite number, at least 0, got -1.0"),
        ({"temperature": np.inf}, "temperature"),
        ({"top_k": 0}, "top_k: .*got 0 .*leave it out"),
        ({"top_k": 2.5}, "top_k: expected a whole number"),
        ({"top_p": 0.0}, "top_p: .*temperature=0"),
        ({"top_p": 1.5}, "top_p: .*at most 1, got 1.5"),
        ({"top_p": np.nan}, "top_p"),
        ({"seed": 2**64}, "seed: expected an integer"),
        ({"step": -1}, "step: expected an integer from 0"),
        ({"logits": np.zeros((2, 3, 4))}, r"logits: .*logits\[:, -1\]"),
        ({"logits": np.zeros((2, 3), int)}, "logits: expected floats"),
        ({"logits": np.zeros((2, 0))}, "logits: expected a vocabulary of 1 to"),
    ],
)
def test_bad_input_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        sampling(**{"logits": np.zeros((2, 3))} | options)
