"""Integers where floats are meant, and index arrays of any integer type."""

import numpy as np
import pytest

from gptwin.core.attention.attention import attention
from gptwin.core.attention.decode_attention import decode_attention
from gptwin.core.model.gpt import gpt, loss_and_gradients
from gptwin.core.model.parameters import init_parameters
from gptwin.core.model.presets import GPTConfig
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.draw import RandomArrays

# The lists of adamw and ema are checked tensor by tensor, under names such as parameters[0].
OPERATIONS = [name for name in TWINS if name not in ("adamw", "ema")]
INTEGERS = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64)


@pytest.mark.parametrize("name", OPERATIONS)
def test_integers_are_refused_where_floats_are_meant(name):
    twin = TWINS[name]
    inputs = twin.inputs({"seed": 3} | twin.corners[0], RandomArrays(3))
    first = next(iter(inputs.tensors))
    wrong = inputs.tensors | {first: np.ones_like(inputs.tensors[first], dtype=np.int64)}
    with pytest.raises(ValueError, match=f"{first}: expected (floats|a floating dtype)"):
        twin.forward(**wrong, **inputs.options)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_lengths_of_any_integer_type_mean_the_same(dtype):
    """Unsigned lengths below the number of queries wrapped around: a bug report."""
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(2, 1, n, 4)) for n in (3, 5, 5))
    lengths, start = np.array([1, 4]), np.array([0, 1])
    results = [
        decode_attention(query, key, value, lengths.astype(t), key_start=start.astype(t))
        for t in (np.int64, dtype)
    ]
    for expected, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert np.isneginf(results[1][1][0, 0, :2]).all()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_boundaries_of_any_integer_type_mean_the_same(dtype):
    query = np.random.default_rng(0).normal(size=(2, 1, 300, 4))
    bounds, start = np.array([0, 20, 20, 255]), np.array([3, 200])
    results = [
        attention(
            query, query, query, causal=True,
            cu_seqlens=bounds.astype(t), key_start=start.astype(t),
        )
        for t in (np.int64, dtype)
    ]  # fmt: skip
    for expected, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="cu_seqlens: expected boundaries from 0 upwards"):
        attention(query, query, query, cu_seqlens=np.array([0, 20, 10], dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_model_takes_ids_of_any_integer_type(dtype):
    """A label of −100 is 156 in uint8, and that is a token."""
    config = GPTConfig(200, 8, 1, 2, 8)
    parameters = init_parameters(config, 0, np.float64)
    tokens, start = np.full((2, 5), 156), np.array([0, 3])
    results = [
        (
            gpt(parameters, tokens.astype(t), config, key_start=start.astype(t)),
            loss_and_gradients(parameters, tokens.astype(t), tokens.astype(t), config)[0],
        )
        for t in (np.int64, dtype)
    ]
    for expected, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert results[1][1] > 4
    for wrong in (tokens.astype(float), tokens > 0):
        with pytest.raises(ValueError, match=r"^tokens: expected integers"):
            gpt(parameters, wrong, config)
