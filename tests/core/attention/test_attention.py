"""The reference attention: three versions that agree, and what the definition promises."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwin.core.attention.attention import (
    attention,
    attention_backward,
    attention_forward,
    attention_online,
    dropout_factor,
)
from gptwin.core.attention.attention_tiled import (
    attention_tiled,
    attention_tiled_backward,
    attention_tiled_forward,
    tiles,
)
from gptwin.core.attention.key_intervals import key_intervals, key_stretch, query_stretch


def draw(rng, n_batch, n_head, n_kv_head, n_query, n_key, d_head):
    return (
        rng.normal(size=(n_batch, n_head, n_query, d_head)),
        rng.normal(size=(n_batch, n_kv_head, n_key, d_head)),
        rng.normal(size=(n_batch, n_kv_head, n_key, d_head)),
    )


@st.composite
def problems(draw_from):
    """Arrays and options: every mask with every other, empty sizes included."""
    rng = np.random.default_rng(draw_from(st.integers(0, 2**32 - 1)))
    n_batch, n_kv_head, group = (draw_from(st.integers(1, 2)) for _ in range(3))
    n_query, n_key = draw_from(st.integers(0, 14)), draw_from(st.integers(0, 14))
    options = {"causal": draw_from(st.booleans()), "dropout": draw_from(st.sampled_from([0, 0.3]))}
    if options["causal"]:
        options["window"] = draw_from(st.none() | st.integers(1, 16))
    if draw_from(st.booleans()):
        options["key_start"] = rng.integers(0, n_key + 2, n_batch)
    if draw_from(st.booleans()):
        n_key = n_query
        options["cu_seqlens"] = np.append(0, np.sort(rng.integers(0, n_key + 1, 3)))
    arrays = draw(rng, n_batch, n_kv_head * group, n_kv_head, n_query, n_key, 3)
    return arrays, options, rng


def close(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@given(problems(), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=150)
def test_three_versions_agree(problem, block_queries, block_keys):
    arrays, options, rng = problem
    expected, saved = attention_forward(*arrays, **options)
    close(attention_online(*arrays, block_keys, **options), expected)
    blocks = {"block_queries": block_queries, "block_keys": block_keys}
    tiled, tiled_saved = attention_tiled_forward(*arrays, **blocks, **options)
    close(tiled, expected)
    d_output, d_lse = (rng.normal(size=x.shape) for x in expected)
    gradients = attention_backward(saved, d_output, d_lse)
    close(attention_tiled_backward(tiled_saved, d_output, d_lse), gradients)
    without = attention_backward(saved, d_output)
    close(attention_tiled_backward(tiled_saved, d_output), without)
    close(without, attention_backward(saved, d_output, np.zeros_like(d_lse)))


@given(problems())
def test_the_mask_said_pair_by_pair(problem):
    """`key_intervals` against the sentences of `attention`'s docstring."""
    (query, key, _), options, _ = problem
    n_batch, n_query, n_key = len(query), query.shape[2], key.shape[2]
    masks = {n: options[n] for n in options.keys() - {"dropout"}}
    low, high = key_intervals(n_batch, n_query, n_key, **masks)
    assert (np.diff(low) >= 0).all() and (np.diff(high) >= 0).all()
    for b, i, j in np.ndindex(n_batch, n_query, n_key):
        own = i + n_key - n_query
        sees = not options["causal"] or j <= own
        if options.get("window") is not None:
            sees = sees and j > own - options["window"]
        if "key_start" in options:
            sees = sees and j >= options["key_start"][b]
        if "cu_seqlens" in options:
            documents = zip(options["cu_seqlens"][:-1], options["cu_seqlens"][1:], strict=True)
            sees = sees and any(start <= i < end and start <= j < end for start, end in documents)
        assert (low[b, i] <= j < high[b, i]) == sees


@given(problems(), st.integers(1, 5), st.integers(1, 5))
def test_tiles_hold_every_pair_once_and_masks_only_where_needed(problem, block_queries, block_keys):
    (query, key, _), options, _ = problem
    n_query, n_key = query.shape[2], key.shape[2]
    masks = {n: options[n] for n in options.keys() - {"dropout"}}
    low, high = (x[0] for x in key_intervals(len(query), n_query, n_key, **masks))
    seen = (low[:, None] <= np.arange(n_key)) & (np.arange(n_key) < high[:, None])
    of_queries, of_keys = np.zeros_like(seen), np.zeros_like(seen)
    for first in range(0, n_query, block_queries):
        end = min(first + block_queries, n_query)
        for first_key, end_key, masked in tiles(key_stretch(low, high, first, end), block_keys):
            assert masked or seen[first:end, first_key:end_key].all()
            assert not of_queries[first:end, first_key:end_key].any()
            of_queries[first:end, first_key:end_key] = True
    for first in range(0, n_key if n_query else 0, block_keys):
        end = min(first + block_keys, n_key)
        is_seen = seen.any(axis=0)[first:end]
        stretch = query_stretch(low, high, first, end)
        for first_query, end_query, masked in tiles(stretch, block_queries):
            assert masked or seen[first_query:end_query, first:end][:, is_seen].all()
            assert not of_keys[first_query:end_query, first:end].any()
            of_keys[first_query:end_query, first:end] = True
    assert (of_queries | ~seen).all() and (of_keys | ~seen).all()


def test_known_values():
    query, key = np.zeros((1, 1, 2, 1)), np.array([0.0, 5.0, 9.0]).reshape(1, 1, 3, 1)
    output, lse = attention(query, key, key, causal=True)
    # Bottom right: query 0 sees keys 0 and 1, query 1 sees all; all scores are 0.
    np.testing.assert_allclose(output[0, 0, :, 0], [2.5, 14 / 3])
    np.testing.assert_allclose(lse[0, 0], np.log([2, 3]))


@given(problems())
def test_weights_sum_to_one_and_stay_in_the_convex_hull(problem):
    (query, key, value), options, _ = problem
    options = options | {"dropout": 0}
    output, lse = attention(query, key, np.ones_like(value), **options)
    np.testing.assert_allclose(output, np.isfinite(lse)[..., None] * np.ones(3), atol=1e-12)
    mixed, _ = attention(query, key, value, **options)
    if value.size:
        assert mixed.max(initial=0) <= max(value.max(), 0) + 1e-12
        assert mixed.min(initial=0) >= min(value.min(), 0) - 1e-12


def test_permuting_keys_changes_nothing():
    rng = np.random.default_rng(0)
    query, key, value = draw(rng, 2, 4, 2, 5, 9, 8)
    order = rng.permutation(9)
    close(attention(query, key[:, :, order], value[:, :, order]), attention(query, key, value))


def test_grouped_heads_are_repeated_heads():
    rng = np.random.default_rng(1)
    query, key, value = draw(rng, 2, 6, 2, 5, 7, 4)
    expected, saved = attention_forward(query, key.repeat(3, 1), value.repeat(3, 1), causal=True)
    actual, grouped = attention_forward(query, key, value, causal=True)
    close(actual, expected)
    d_output = rng.normal(size=expected[0].shape)
    d_query, d_key, d_value = attention_backward(saved, d_output)
    summed = (d_query, *(d.reshape(2, 2, 3, 7, 4).sum(2) for d in (d_key, d_value)))
    close(attention_backward(grouped, d_output), summed)


def test_documents_are_attended_one_by_one():
    rng = np.random.default_rng(2)
    query, key, value = draw(rng, 1, 2, 2, 12, 12, 4)
    bounds = [0, 3, 3, 4, 10]  # one is empty; two positions belong to none
    output, lse = attention(query, key, value, causal=True, cu_seqlens=np.array(bounds))
    for start, end in pairwise(bounds):
        alone = attention(*(x[:, :, start:end] for x in (query, key, value)), causal=True)
        close((output[:, :, start:end], lse[:, :, start:end]), alone)
    assert not output[:, :, 10:].any() and np.isneginf(lse[:, :, 10:]).all()


def test_padding_never_leaks():
    rng = np.random.default_rng(3)
    query, key, value = draw(rng, 2, 2, 1, 6, 6, 4)
    key_start = np.array([2, 6])
    results, saved = attention_forward(query, key, value, causal=True, key_start=key_start)
    d_output = rng.normal(size=results[0].shape)
    gradients = attention_backward(saved, d_output)
    for b, start in enumerate(key_start):
        query[b, :, :start] = key[b, :, :start] = value[b, :, :start] = np.nan
        d_output[b, :, :start] = np.nan
    poisoned, saved = attention_forward(query, key, value, causal=True, key_start=key_start)
    close(poisoned, results)
    close(attention_backward(saved, d_output), gradients)
    assert not any(g[1].any() for g in gradients)


def test_a_window_as_wide_as_the_sequence_is_causal():
    rng = np.random.default_rng(4)
    arrays = draw(rng, 1, 2, 2, 7, 9, 4)
    close(attention(*arrays, causal=True, window=9), attention(*arrays, causal=True))
    last, _ = attention(*arrays, causal=True, window=1)
    np.testing.assert_allclose(last, arrays[2][:, :, 2:])


def test_huge_and_infinite_scores():
    query = np.array([[1e200], [1.0], [0.0]]).reshape(1, 1, 3, 1)
    key = np.array([1e100, -np.inf, 3.0]).reshape(1, 1, 3, 1)
    value = np.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    with np.errstate(invalid="ignore"):
        output, lse = attention(query, key, value, scale=1.0)
    np.testing.assert_array_equal(output[0, 0, :2, 0], [1, 1])
    assert np.isfinite(lse[0, 0, :2]).all()
    assert np.isnan(output[0, 0, 2]).all()  # 0 · inf
    unseen, lse = attention(query[:, :, 1:2], key[:, :, 1:2], value[:, :, 1:2])
    assert unseen.item() == 0 and np.isneginf(lse).all()


def test_dropout_keeps_the_mean_and_its_share():
    factor = dropout_factor(7, 0.25, np.arange(4), np.arange(128), np.arange(128))
    assert set(np.unique(factor)) == {0, 1 / 0.75}
    kept = (factor > 0).mean()
    deviation = (0.25 * 0.75 / factor.size) ** 0.5
    assert abs(kept - 0.75) < 4 * deviation
    # Heads, queries and keys draw differently, and so do seeds, in the high word too.
    assert len({row.tobytes() for head in factor for row in head}) == 512
    others = [
        dropout_factor(s, 0.25, np.arange(1), np.arange(128), np.arange(64)) for s in (8, 2**40)
    ]
    for other in others:
        assert (other != factor[:1, :, :64]).any()


def test_dropout_of_a_pair_depends_on_its_coordinates_alone():
    whole = dropout_factor(3, 0.5, np.arange(6), np.arange(20), np.arange(30))
    part = dropout_factor(3, 0.5, np.array([4]), np.arange(5, 9), np.arange(7, 30))
    np.testing.assert_array_equal(part[0], whole[4, 5:9, 7:])


def test_skipped_tiles_are_never_read():
    """A causal launch reads about half of the tiles, a windowed one a band."""

    def n_tiles(**masks):
        low, high = (x[0] for x in key_intervals(1, 64, 64, **masks))
        stretches = [key_stretch(low, high, first, first + 8) for first in range(0, 64, 8)]
        return sum(1 for stretch in stretches for _ in tiles(stretch, 8))

    assert n_tiles() == 64
    assert n_tiles(causal=True) == 36
    assert n_tiles(causal=True, window=8) == 15
    assert n_tiles(cu_seqlens=np.arange(0, 65, 8)) == 8


def test_float32_stays_float32():
    arrays = [x.astype(np.float32) for x in draw(np.random.default_rng(5), 1, 2, 1, 5, 5, 4)]
    options = {"causal": True, "dropout": 0.5, "key_start": np.array([1])}
    results, saved = attention_forward(*arrays, **options)
    gradients = attention_backward(saved, *results)
    tiled = attention_tiled(*arrays, block_queries=2, block_keys=3, **options)
    online = attention_online(*arrays, 3, **options)
    for array in (*results, *gradients, *tiled, *online):
        assert array.dtype == np.float32


ZEROS = np.zeros((2, 4, 3, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": ZEROS[0]}, r"query: expected 4 dimensions \[batch, head, query, d_head\], got"),
        ({"key": ZEROS[..., :4]}, r"key: expected shape \(2, 4, 3, 8\), got shape \(2, 4, 3, 4\)"),
        ({"value": ZEROS[:, :, :2]}, r"value: expected shape \(2, 4, 3, 8\).*that of key"),
        ({"key": ZEROS[:, :3], "value": ZEROS[:, :3]}, "key: expected a number of heads that div"),
        ({"query": np.zeros((1, 1, 1, 300))}, "query: expected 1 ≤ d_head ≤ 256, got d_head 300"),
        ({"scale": -1.0}, "scale: expected a finite number above 0, got -1.0"),
        ({"window": 3}, "window: expected causal=True with a window"),
        ({"window": 0, "causal": True}, "window: expected a whole number of keys, at least 1"),
        ({"key_start": np.zeros(2)}, "key_start: expected integers, got dtype float64"),
        ({"key_start": np.zeros(3, int)}, r"key_start: expected shape \(2,\)"),
        ({"cu_seqlens": np.array([], int)}, r"cu_seqlens: expected shape \(n_documents \+ 1,\)"),
        ({"cu_seqlens": np.array([0, 4])}, "cu_seqlens: expected boundaries from 0 .* at most 3"),
        ({"cu_seqlens": np.array([0, 2, 1])}, r"cu_seqlens: .*\(likely cause: lengths instead"),
        ({"query": ZEROS[:, :, :1], "cu_seqlens": np.array([0])}, "as many queries as keys"),
        ({"dropout": 1.0}, "dropout: expected a probability from 0 to below 1, got 1.0"),
        ({"seed": 2**64}, "seed: expected a whole number from 0"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, message):
    given = {"query": ZEROS, "key": ZEROS, "value": ZEROS} | arguments
    with pytest.raises(ValueError, match=message):
        attention(**given)


def test_a_gradient_of_another_shape_is_named():
    _, saved = attention_forward(ZEROS, ZEROS, ZEROS)
    with pytest.raises(ValueError, match=r"d_output: expected shape \(2, 4, 3, 8\)"):
        attention_backward(saved, ZEROS[:1])
    with pytest.raises(ValueError, match=r"d_lse: expected shape \(2, 4, 3\)"):
        attention_backward(saved, ZEROS, ZEROS)
