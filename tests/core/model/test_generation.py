"""The reference generation: a cache changes the cost of a token, and nothing else."""

import dataclasses

import numpy as np
import pytest

from gptwin.benchmarks.baselines.picogpt import generate as generate_uncached
from gptwin.core.model.generation import KVCache, extend, generate, pad_left
from gptwin.core.model.gpt import gpt
from gptwin.core.model.parameters import init_parameters
from gptwin.core.model.presets import GPTConfig

SMALL = GPTConfig(17, 24, 2, 2, 6)
KINDS = {
    "gpt2": {},
    "gpt1": {"norm": "post"},
    "gpt3": {"band": 3},
    "no bias": {"bias": False},
    "untied": {"tied": False},
    "wide heads": {"d_head": 5},
}
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]


def make(kind="gpt2", dtype=np.float64):
    config = GPTConfig(17, 24, 2, 2, 6, **KINDS[kind])
    rng = np.random.default_rng(0)
    parameters = {
        name: value + rng.normal(0, 0.5, size=value.shape).astype(dtype)
        for name, value in init_parameters(config, 0, dtype).items()
    }
    return config, parameters


def greedy(parameters, config, prompts, n=8, **options):
    return generate(parameters, config, prompts, max_new_tokens=n, temperature=0.0, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_logits_equal_uncached_ones(kind):
    """A prompt of 5 at once, then 1, 3 and 1: any pieces of a sequence give the same."""
    config, parameters = make(kind)
    tokens = np.random.default_rng(1).integers(0, 17, (2, 10))
    expected = gpt(parameters, tokens, config)
    cache = KVCache(config, np.zeros(2, dtype=int), 12, np.float64)
    for start, end in [(0, 5), (5, 6), (6, 9), (9, 10)]:
        logits = extend(parameters, tokens[:, start:end], config, cache)
        np.testing.assert_allclose(logits, expected[:, end - 1], rtol=1e-11, atol=1e-12)
    assert cache.length == 10


@pytest.mark.parametrize("kind", KINDS)
def test_generation_equals_the_uncached_loop(kind):
    config, parameters = make(kind)
    tokens = list(PROMPTS[0])
    for _ in range(8):
        tokens.append(int(gpt(parameters, np.array([tokens]), config)[0, -1].argmax()))
    assert greedy(parameters, config, [PROMPTS[0]]) == [tokens[5:]]


def test_generation_equals_picogpts():
    config, parameters = make()
    expected = generate_uncached(PROMPTS[0], parameters, 2, 2, max_new_tokens=8)
    assert greedy(parameters, config, [PROMPTS[0]]) == [expected]


@pytest.mark.parametrize("kind", KINDS)
def test_padded_in_a_batch_equals_one_by_one(kind):
    config, parameters = make(kind)
    alone = [greedy(parameters, config, [prompt])[0] for prompt in PROMPTS]
    assert greedy(parameters, config, PROMPTS) == alone


def test_what_is_greedy_does_not_depend_on_the_seed():
    config, parameters = make()
    assert greedy(parameters, config, PROMPTS, seed=1) == greedy(parameters, config, PROMPTS)


def test_sampling_is_reproducible_and_follows_its_seed():
    config, parameters = make()

    def sample(seed, **options):
        return generate(parameters, config, PROMPTS, max_new_tokens=16, seed=seed, **options)

    assert sample(0) == sample(0) != sample(1)
    assert sample(0, top_k=1) == sample(1, top_k=1) == greedy(parameters, config, PROMPTS, 16)
    assert sample(0, top_p=1e-9) == greedy(parameters, config, PROMPTS, 16)
    assert sample(0, temperature=1e-4) == greedy(parameters, config, PROMPTS, 16)


def test_a_stop_token_ends_its_own_sequence():
    config, parameters = make()
    free = greedy(parameters, config, PROMPTS)
    stop = free[0][2]
    stopped = greedy(parameters, config, PROMPTS, stop_tokens=[stop])
    for row, whole in zip(stopped, free, strict=True):
        end = whole.index(stop) + 1 if stop in whole else len(whole)
        assert row == whole[:end]
    assert len(stopped[0]) < len(free[0])


def test_generation_ends_when_all_have_stopped():
    """Every token stops: one step, whatever was asked for."""
    config, parameters = make()
    assert [len(row) for row in greedy(parameters, config, PROMPTS, stop_tokens=range(17))] == [
        1
    ] * 3


def test_the_context_may_be_filled_to_the_end():
    config, parameters = make()
    (tokens,) = greedy(parameters, config, [PROMPTS[0]], 19)
    assert len(tokens) == 19
    with pytest.raises(
        ValueError, match=r"max_new_tokens: expected at most n_ctx = 24 less .* 5, got 20"
    ):
        greedy(parameters, config, [PROMPTS[0]], 20)


def test_float32_stays_float32():
    config, parameters = make(dtype=np.float32)
    cache = KVCache(config, np.zeros(1, dtype=int), 4, np.float32)
    assert extend(parameters, np.array([[1, 2]]), config, cache).dtype == np.float32


def test_left_padding():
    tokens, key_start = pad_left(PROMPTS)
    np.testing.assert_array_equal(tokens, [[3, 1, 4, 1, 5], [0, 0, 0, 0, 9], [0, 0, 2, 6, 5]])
    np.testing.assert_array_equal(key_start, [0, 4, 2])


def test_no_prompts_give_no_continuations():
    config, parameters = make()
    assert greedy(parameters, config, []) == []


def test_bad_input_is_named():
    config, parameters = make()
    with pytest.raises(ValueError, match=r"prompts\[1\]: expected at least one token, got none"):
        greedy(parameters, config, [[1], []])
    with pytest.raises(ValueError, match="tokens: expected 0 to 16, got 17"):
        greedy(parameters, config, [[17]])
    with pytest.raises(ValueError, match="max_new_tokens: expected a finite number above 0"):
        greedy(parameters, config, [[1]], 0)
    with pytest.raises(ValueError, match="config: expected a decoder, got causal=False"):
        greedy(parameters, dataclasses.replace(config, causal=False), [[1]])
