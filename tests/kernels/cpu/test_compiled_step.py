"""A compiled decoding step: what a bound step computes and sampling draws, compiled once."""

import dataclasses

import pytest
import torch

from gptwin.core.model.presets import GPTConfig
from gptwin.kernels.common import launch
from gptwin.kernels.cpu import compiled_step
from gptwin.kernels.cpu.compiled_step import CompiledStep
from gptwin.kernels.language.sampling import sampling
from gptwin.kernels.model.decode_step import BoundStep
from gptwin.kernels.model.gpt import GPT
from gptwin.kernels.model.kv_cache import KVCache

CONFIG = GPTConfig(vocab_size=41, n_ctx=24, n_layer=2, n_head=2, d_model=32, band=5)
ROWS = [4, 0, 9]


def make(norm="pre", bias=True, dtype=torch.float32, **more):
    config = dataclasses.replace(CONFIG, norm=norm, bias=bias, tied=bias, **more)
    model = GPT(config, torch.Generator().manual_seed(0), init="fan_in").eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # or biases are 0, and weights of norms 1
            parameter.data.normal_(1, 0.5, generator=torch.Generator().manual_seed(1))
    return model.to(dtype)


def filled(model, n_rows, capacity, padded):
    """Return two caches that hold the same prompts of 4."""
    prompts = torch.randint(41, (n_rows, 4), generator=torch.Generator().manual_seed(n_rows))
    key_start = torch.arange(n_rows) % 3 if padded else None
    caches = [KVCache(model.config, n_rows, capacity, dtype=model.dtype) for _ in range(2)]
    for cache in caches:
        model(prompts, key_start=key_start, cache=cache)
    return caches


def expect_alike(model, backend, n_rows=3, capacity=9, padded=True, temperature=0.7, rows=ROWS):
    """Decode until the caches are full, by a compiled step and by a bound one."""
    draw = {"temperature": temperature, "seed": 5}
    with launch.backend("eager"), torch.inference_mode():
        own, plain = filled(model, n_rows, capacity, padded)
        compiled = CompiledStep(model, own, backend, rows=rows, **draw)
        bound = BoundStep(model, plain)
        tokens = torch.arange(n_rows)
        for step in range(capacity - 4):
            state, logits = bound(tokens)
            found_state, found, log_probs = compiled(tokens, step)
            tokens, expected = sampling(logits, step=step, rows=torch.tensor(rows), **draw)
            assert torch.equal(found, tokens)
            close = {"rtol": 1e-5, "atol": 1e-5}
            torch.testing.assert_close(found_state, state, **close)
            torch.testing.assert_close(log_probs, expected.to(log_probs.dtype), **close)
        torch.testing.assert_close(own.kept, plain.kept, **close)
        assert own.length == capacity and torch.equal(own.lengths, plain.lengths)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_a_bound_step_and_a_draw(norm, bias, padded):
    expect_alike(make(norm, bias), "eager", padded=padded)


def test_large_matrices_are_left_whole(monkeypatch):
    products = []
    bmm = torch.bmm

    def noted(a, b):
        products.append(tuple(b.shape))
        return bmm(a, b)

    monkeypatch.setattr(torch, "bmm", noted)
    monkeypatch.setattr(compiled_step, "SMALL", 32 * 96)
    monkeypatch.setattr(compiled_step, "_compiled", lambda *what: compiled_step._step)
    expect_alike(make(), "eager")
    assert {(2, 16, 96), (1, 32, 128), (1, 128, 32), (2, 16, 41)} < set(products)


def test_in_float64_and_with_an_odd_width():
    model = make(dtype=torch.float64, n_head=1, d_model=15, d_head=16)
    expect_alike(model, "eager", temperature=1.0)


def test_scores_too_large_for_an_exponential():
    model = make(dtype=torch.float64)
    for block in model.h:
        block.parameters_in(torch.float64)[2].data.mul_(100)  # of queries and keys
    expect_alike(model, "eager")


def counting(compiler):
    """Return a backend of torch.compile, and what it has compiled."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return torch._dynamo.lookup_backend(compiler)(graph, inputs)

    return backend, compiled


def test_what_is_compiled_serves_other_batches_capacities_and_weights(compiler):
    backend, compiled = counting(compiler)
    model = make()
    expect_alike(model, backend)
    once = len(compiled)  # a compiler may begin anew
    for parameter in model.parameters():
        parameter.data.mul_(1.25)
    expect_alike(model, backend, n_rows=5, capacity=13, rows=[3, 1, 4, 8, 5], temperature=1.5)
    assert len(compiled) == once


def test_what_it_cannot_serve_is_compiled_anew():
    backend, compiled = counting("eager")
    expect_alike(make(), backend)
    for other, options in (
        (make(), {"temperature": 1.0}),  # no factor
        (make(), {"padded": False}),  # no mask
        (make(d_model=16), {}),
        (make(dtype=torch.float64), {}),
    ):
        before = len(compiled)
        expect_alike(other, backend, **options)
        assert len(compiled) > before


def test_a_row_of_nothing_finite_draws_nothing():
    model = make()
    with launch.backend("eager"), torch.inference_mode():
        cache, _ = filled(model, 3, 9, padded=False)
        cache.kept[:, :, 1] = torch.nan
        step = CompiledStep(model, cache, "eager", rows=ROWS, temperature=1.0, seed=0)
        _, tokens, log_probs = step(torch.arange(3), 0)
    assert (tokens < 0).tolist() == log_probs.isnan().tolist() == [False, True, False]
